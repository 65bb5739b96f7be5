"""Implicit MAML (Rajeswaran et al., 2019, Algorithms 1 and 2): the gradient of a regularized inner problem.

    inner   φ* = argmin_φ L_support(φ) + λ/2 ‖φ - θ‖², approached by K steps of gradient descent
    outer   dL_query(φ*)/dθ = (I + H/λ)⁻¹ ∇L_query(φ*),  H = ∇²L_support(φ*)

The system is solved by conjugate gradient with one Hessian-vector product per iteration, so neither memory
nor the formula depends on how φ* was reached. The result is exact if the inner loop has converged and I + H/λ
is positive definite. For a task with a direction in which it is not, conjugate gradient stops there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from softstart.algorithms.base import Data, Episodes, Logs, Loss, StepWork


@dataclass(frozen=True)
class IMAML:
    """iMAML; K, λ and the number of iterations are of the order of the paper's few-shot experiments."""

    inner_lr: float = 0.1
    """α, the step size of the inner loop."""
    inner_steps: int = 5
    """K."""
    strength: float = 2.0
    """λ, the weight of the proximal term."""
    iterations: int = 5
    """Of conjugate gradient."""
    support_size: int = 4
    """Rows of a task in one inner step."""
    query_size: int = 4
    """Rows of a task in the batch of the outer loop."""

    data: ClassVar[Data] = "episodes"
    label: ClassVar[str] = "iMAML"
    color: ClassVar[str] = "#211a22"

    @property
    def work(self) -> StepWork:
        """A gradient in each inner step; a Hessian-vector product at φ* in each iteration."""
        return StepWork(self.inner_steps, hvps=self.iterations)

    def meta_gradient(self, loss: Loss, theta: Tensor, episodes: Episodes) -> tuple[Tensor, Logs]:
        """Mean over tasks of (I + H/λ)⁻¹ ∇L_query(φ*), [P, d]; H is that of the last support batch."""
        phi = theta.expand(episodes.tasks, *theta.shape).clone()
        support = []
        # The last gradient and the Hessian get the same dropout masks. Its graph, at another φ, is not kept.
        loss.expect(episodes.support[-1:])
        for batch in episodes.support:
            value, gradient = loss.gradient(phi, batch)
            phi = phi - self.inner_lr * (gradient + self.strength * (phi - theta))
            support.append(float(value.mean()))
        loss.expect(())
        query, gradient = loss.gradient(phi, episodes.query)

        def product(v: Tensor) -> Tensor:
            return v + loss.hvp(phi, episodes.support[-1], v) / self.strength

        v = conjugate_gradient(product, gradient, self.iterations)
        return v.mean(0), {"support": support[0], "query": float(query.mean())}


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """Solve A x = b for M symmetric systems at once (Hestenes & Stiefel, 1952), from x = 0: b [M, P, d] → x.

    A task whose residual has vanished, or whose direction has no positive curvature, keeps its x; if that is
    so from the beginning, x = b.
    """

    def dot(a: Tensor, c: Tensor) -> Tensor:
        return (a * c).sum((1, 2), keepdim=True)

    x, residual = torch.zeros_like(b), b.clone()
    direction, square = residual, dot(residual, residual)
    going, floor = torch.ones_like(square, dtype=torch.bool), square * 1e-20
    for _ in range(iterations):
        image = product(direction)
        curvature = dot(direction, image)
        going = going & (curvature > 0) & (square > floor)
        step = torch.where(going, square / curvature.where(going, torch.ones_like(curvature)), 0.0)
        x, residual = x + step * direction, residual - step * image
        renewed = dot(residual, residual)
        ratio = torch.where(going, renewed / square.clamp_min(1e-300), 0.0)
        direction, square = residual + ratio * direction, renewed
    return torch.where(x.flatten(1).any(1)[:, None, None], x, b)
