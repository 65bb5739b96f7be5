"""Multi-task learning: one prompt trained on the shuffled rows of all source tasks. No inner loop (K = 0)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from softstart.algorithms.base import Data, Episodes, Logs, Loss


@dataclass(frozen=True)
class MultiTask:
    """Multi-task learning; the default batch is that of Qin et al. (2023), released files."""

    query_size: int = 4
    """Rows of a batch, drawn from the union of the train and dev files of all source tasks."""

    inner_steps: ClassVar[int] = 0
    support_size: ClassVar[int] = 0
    data: ClassVar[Data] = "mixture"
    label: ClassVar[str] = "Multi-task"
    color: ClassVar[str] = "#c98701"

    def meta_gradient(self, loss: Loss, theta: Tensor, episodes: Episodes) -> tuple[Tensor, Logs]:
        """The gradient of the batch's token-mean loss, [P, d]."""
        value, gradient = loss.gradient(theta[None], episodes.query)
        return gradient[0], {"query": float(value[0])}
