"""Adam with decoupled weight decay (Loshchilov & Hutter, 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from softstart.training.optimizers.base import FORMERLY, Optimizer


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019)."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decays of the first and second moment."""

    formerly: ClassVar[dict[str, Any]] = FORMERLY

    def init_state(self, prompts: Tensor) -> dict[str, Tensor]:
        """First and second moments [R, P, d]."""
        return {"mean": torch.zeros_like(prompts), "square": torch.zeros_like(prompts)}

    def update(self, prompts: Tensor, gradient: Tensor, state: dict[str, Tensor], clock: Tensor) -> Tensor:
        """Bias-corrected m / (sqrt(v) + 1e-8), [A, P, d]."""
        b1, b2 = self.betas
        state["mean"].lerp_(gradient, 1 - b1)
        state["square"].lerp_(gradient.square(), 1 - b2)
        t = clock.to(prompts.dtype)[:, None, None]
        mean, square = state["mean"] / (1 - b1**t), state["square"] / (1 - b2**t)
        return mean / (square.sqrt() + 1e-8)
