"""Reptile (Nichol et al., 2018, Algorithm 2): move the start toward the adapted prompts.

The pseudo-gradient (θ - φ_K)/α is the sum of the K inner gradients. As that sum it is exact. As a difference
in float32 it is lost in rounding if α is small compared with the prompt's entries (with α = 3e-5 and entries
of 8..16, any gradient below 0.016 vanishes). ``difference=True`` computes the difference, as printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from softstart.algorithms.base import Data, Episodes, Logs, Loss, inner_loop


@dataclass(frozen=True)
class Reptile:
    """Reptile; the defaults except ``difference`` are those of Qin et al. (2023), released files."""

    inner_lr: float = 3e-5
    """α, the step size of the inner loop."""
    inner_steps: int = 10
    """K."""
    support_size: int = 4
    """Rows of a task in one inner step."""
    query_size: int = 0
    """Reptile has no query set."""
    difference: bool = False
    """Compute (θ - φ_K)/α as printed instead of the equivalent sum of gradients."""

    data: ClassVar[Data] = "episodes"
    label: ClassVar[str] = "Reptile"
    color: ClassVar[str] = "#c43300"

    def meta_gradient(self, loss: Loss, theta: Tensor, episodes: Episodes) -> tuple[Tensor, Logs]:
        """Mean over tasks of (θ - φ_K)/α, [P, d]."""
        path = inner_loop(loss, theta, episodes, self.inner_lr)
        if self.difference:
            v = (theta - path.prompts[-1]) / self.inner_lr
        else:
            v = torch.stack(path.gradients).sum(0)
        return v.mean(0), {"support": float(path.losses[0].mean()), "adapted": float(path.losses[-1].mean())}
