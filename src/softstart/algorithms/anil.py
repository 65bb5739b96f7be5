"""ANIL for soft prompts (Raghu et al., 2020, "almost no inner loop"): only some rows adapt in the inner loop.

The paper adapts only the head of a network in the inner loop. A soft prompt has no head, so its rows are
split: the first rows are learned across tasks and stay fixed within a task, the last ``adapted`` rows take
the inner steps. Second order is exact, as in MAML:

    inner   φ_{k+1} = φ_k - α S ∇L_support,k(φ_k),  S keeps the last rows
    outer   (I - αH_0 S) … (I - αH_{K-1} S) ∇L_query(φ_K)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from softstart.algorithms.base import Data, Episodes, Logs, Loss, StepWork


@dataclass(frozen=True)
class ANIL:
    """ANIL on prompt rows."""

    inner_lr: float = 3e-5
    """α, the step size of the inner loop."""
    inner_steps: int = 1
    """K."""
    adapted: float = 0.5
    """Share of the rows, counted from the last, that adapt in the inner loop; at least one row."""
    support_size: int = 2
    """Rows of a task in one inner step."""
    query_size: int = 2
    """Rows of a task in the batch of the outer loop."""

    data: ClassVar[Data] = "episodes"
    label: ClassVar[str] = "ANIL"
    color: ClassVar[str] = "#00a3e9"

    @property
    def work(self) -> StepWork:
        """A gradient in each inner step, and a Hessian-vector product through each of them."""
        return StepWork(self.inner_steps, hvps=self.inner_steps, keepable=self.inner_steps)

    def meta_gradient(self, loss: Loss, theta: Tensor, episodes: Episodes) -> tuple[Tensor, Logs]:
        """Mean over tasks of the gradient through the inner loop of the last rows, [P, d]."""
        rows = theta.new_zeros(len(theta), 1)  # S
        rows[-max(1, round(self.adapted * len(theta))) :] = 1.0
        loss.expect(episodes.support)
        path, support = [theta.expand(episodes.tasks, *theta.shape)], 0.0
        for batch in episodes.support:
            value, gradient = loss.gradient(path[-1], batch)
            support = support or float(value.mean())
            path.append(path[-1] - self.inner_lr * rows * gradient)
        query, v = loss.gradient(path[-1], episodes.query)
        for phi, batch in zip(path[-2::-1], reversed(episodes.support), strict=True):
            v = v - self.inner_lr * loss.hvp(phi, batch, rows * v)
        return v.mean(0), {"support": support, "query": float(query.mean())}
