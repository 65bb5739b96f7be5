"""Meta-SGD for soft prompts (Li et al., 2017, Algorithm 1): every row's inner rate is learned with the start.

    inner   φ_{k+1} = φ_k - α ∘ ∇L_support,k(φ_k),  φ_0 = θ
    outer   with v_K = ∇L_query(φ_K) and v_k = v_{k+1} - H_k (α ∘ v_{k+1}):
            dL/dθ = v_0,  dL/dα = -Σ_k ∇L_support,k(φ_k) ∘ v_{k+1}, summed over the entries of a row

The paper learns one α for each entry. Here there is one for each row, as a logarithm ℓ relative to
``inner_lr``: rates stay positive, and one outer rate serves inner rates of any size. Second order is exact
through θ and ℓ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from softstart.algorithms.base import LOG_RATES, THETA, Data, Episodes, Logs, Loss, StepWork, inner_loop


@dataclass(frozen=True)
class MetaSGD:
    """Meta-SGD on prompt rows."""

    inner_lr: float = 3e-5
    """α of every row before it is learned."""
    inner_steps: int = 1
    """K."""
    further_lr: float = 0.02
    """Outer learning rate of the log rates, relative to that of the start."""
    support_size: int = 2
    """Rows of a task in one inner step."""
    query_size: int = 2
    """Rows of a task in the batch of the outer loop."""

    data: ClassVar[Data] = "episodes"
    label: ClassVar[str] = "Meta-SGD"
    color: ClassVar[str] = "#003e00"

    @property
    def work(self) -> StepWork:
        """A gradient in each inner step, and a Hessian-vector product through each of them."""
        return StepWork(self.inner_steps, hvps=self.inner_steps, keepable=self.inner_steps)

    def further(self, theta: Tensor) -> dict[str, Tensor]:
        """ℓ = log(α / inner_lr) of every row [P, 1]: zero before it is learned."""
        return {LOG_RATES: theta.new_zeros(len(theta), 1)}

    def meta_gradient(
        self, loss: Loss, theta: Tensor, episodes: Episodes, log_rates: Tensor
    ) -> tuple[dict[str, Tensor], Logs]:
        """Means over tasks of the gradients through the inner loop, of θ [P, d] and of ℓ [P, 1]."""
        rates = self.inner_lr * log_rates.exp()  # α [P, 1]
        loss.expect(episodes.support)
        path = inner_loop(loss, theta, episodes, rates)
        query, v = loss.gradient(path.prompts[-1], episodes.query)
        slope = torch.zeros_like(v[..., :1])  # dL/dα [M, P, 1]
        steps = zip(path.prompts[:-1], path.gradients, episodes.support, strict=True)
        for phi, gradient, batch in reversed(list(steps)):
            slope = slope - (gradient * v).sum(-1, keepdim=True)
            v = v - loss.hvp(phi, batch, rates * v)
        logs = {"support": float(path.losses[0].mean()), "query": float(query.mean())}
        return {THETA: v.mean(0), LOG_RATES: slope.mean(0) * rates}, logs
