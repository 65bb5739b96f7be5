"""First-order MAML (Finn et al., 2017, section 5.2): MAML with every Hessian taken as zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from softstart.algorithms.base import Data, Episodes, Logs, Loss, inner_loop


@dataclass(frozen=True)
class FoMAML:
    """FoMAML; the defaults are those of Qin et al. (2023), released files."""

    inner_lr: float = 3e-5
    """α, the step size of the inner loop."""
    inner_steps: int = 1
    """K."""
    support_size: int = 4
    """Rows of a task in one inner step."""
    query_size: int = 4
    """Rows of a task in the batch of the outer loop."""

    data: ClassVar[Data] = "episodes"
    label: ClassVar[str] = "FoMAML"
    color: ClassVar[str] = "#007a62"

    def meta_gradient(self, loss: Loss, theta: Tensor, episodes: Episodes) -> tuple[Tensor, Logs]:
        """Mean over tasks of the query gradient at φ_K, [P, d]."""
        path = inner_loop(loss, theta, episodes, self.inner_lr)
        query, v = loss.gradient(path.prompts[-1], episodes.query)
        return v.mean(0), {"support": float(path.losses[0].mean()), "query": float(query.mean())}
