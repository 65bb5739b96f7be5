"""Plain gradient descent (Robbins & Monro, 1951)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from softstart.training.optimizers.base import FORMERLY, Optimizer


@dataclass(frozen=True)
class SGD(Optimizer):
    """Plain gradient descent (Robbins & Monro, 1951)."""

    formerly: ClassVar[dict[str, Any]] = FORMERLY

    def update(self, prompts: Tensor, gradient: Tensor, state: dict[str, Tensor], clock: Tensor) -> Tensor:
        """The gradient itself, [A, P, d]."""
        return gradient
