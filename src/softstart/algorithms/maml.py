"""Model-agnostic meta-learning for soft prompts (Finn et al., 2017, Algorithm 1), exact second order.

    inner   φ_{k+1} = φ_k - α ∇L_support,k(φ_k),  φ_0 = θ
    outer   dL_query(φ_K)/dθ = (I - αH_0) … (I - αH_{K-1}) ∇L_query(φ_K),  H_k = ∇²L_support,k(φ_k)

The product is applied from right to left, one Hessian-vector product per step, so memory does not grow with
K. The loss may keep graphs of inner gradients so that they need not be computed again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from softstart.algorithms.base import Data, Episodes, Logs, Loss, StepWork, inner_loop


@dataclass(frozen=True)
class MAML:
    """MAML; the defaults are those of Qin et al. (2023), released files."""

    inner_lr: float = 3e-5
    """α, the step size of the inner loop."""
    inner_steps: int = 1
    """K."""
    support_size: int = 2
    """Rows of a task in one inner step."""
    query_size: int = 2
    """Rows of a task in the batch of the outer loop."""

    data: ClassVar[Data] = "episodes"
    label: ClassVar[str] = "MAML"
    color: ClassVar[str] = "#1a3c9f"

    @property
    def work(self) -> StepWork:
        """A gradient in each inner step, and a Hessian-vector product through each of them."""
        return StepWork(self.inner_steps, hvps=self.inner_steps, keepable=self.inner_steps)

    def meta_gradient(self, loss: Loss, theta: Tensor, episodes: Episodes) -> tuple[Tensor, Logs]:
        """Mean over tasks of the gradient through the inner loop, [P, d]."""
        loss.expect(episodes.support)
        path = inner_loop(loss, theta, episodes, self.inner_lr)
        query, v = loss.gradient(path.prompts[-1], episodes.query)
        for phi, batch in zip(path.prompts[-2::-1], reversed(episodes.support), strict=True):
            v = v - self.inner_lr * loss.hvp(phi, batch, v)
        return v.mean(0), {"support": float(path.losses[0].mean()), "query": float(query.mean())}
