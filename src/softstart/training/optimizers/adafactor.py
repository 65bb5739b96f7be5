"""Adafactor (Shazeer & Stern, 2018) with a given learning rate, without relative steps and scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from softstart.training.optimizers.base import FORMERLY, Optimizer

EPS = 1e-30


@dataclass(frozen=True)
class Adafactor(Optimizer):
    """Adafactor (Shazeer & Stern, 2018) with a given learning rate, as transformers' ``Adafactor`` with
    ``scale_parameter=False, relative_step=False`` and no first moment.

    The defaults are those of Qin et al. (2023), released files, who used no schedule.
    """

    clip_threshold: float = 1.0
    """Upper bound on the RMS of a run's update."""
    decay_rate: float = -0.8
    """Exponent of the second-moment schedule."""

    formerly: ClassVar[dict[str, Any]] = FORMERLY

    def init_state(self, prompts: Tensor) -> dict[str, Tensor]:
        """Factored second moments: row means [R, P] and column means [R, d]."""
        return {"row": prompts.new_zeros(prompts.shape[:2]), "column": prompts.new_zeros(prompts[:, 0].shape)}

    def update(self, prompts: Tensor, gradient: Tensor, state: dict[str, Tensor], clock: Tensor) -> Tensor:
        """g / sqrt(row x column / mean row), [A, P, d], each run's RMS clipped to ``clip_threshold``."""
        square = gradient.square() + EPS
        keep = 1.0 - clock.to(prompts.dtype).pow(self.decay_rate)[:, None]  # [A, 1]
        state["row"].mul_(keep).add_((1 - keep) * square.mean(2))
        state["column"].mul_(keep).add_((1 - keep) * square.mean(1))
        row = (state["row"] / state["row"].mean(1, keepdim=True)).rsqrt()
        direction = row[:, :, None] * state["column"].rsqrt()[:, None, :] * gradient
        rms = direction.square().mean((1, 2)).sqrt()
        return direction / (rms / self.clip_threshold).clamp_min(1.0)[:, None, None]
