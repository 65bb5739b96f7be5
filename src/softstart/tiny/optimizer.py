"""AdamW whose step is proportional to the size of what it changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class ScaledAdam:
    """Adam with the step of each tensor multiplied by the tensor's RMS (at least ``floor``); no weight decay.

    One learning rate then suits embeddings of size 1 and projections of size 0.02 alike.
    """

    def __init__(
        self, parameters: Sequence[Tensor], *, betas: tuple[float, float] = (0.9, 0.99), floor: float = 0.05
    ) -> None:
        self.parameters, self.betas, self.floor, self.steps = list(parameters), betas, floor, 0
        self.mean = [torch.zeros_like(p) for p in self.parameters]
        self.square = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, lr: float, clip: float = 1.0) -> None:
        """Clip the gradients to a joint norm, update the parameters, drop the gradients."""
        used = [p for p in self.parameters if p.grad is not None]
        torch.nn.utils.clip_grad_norm_(used, clip)
        self.steps += 1
        fast, slow = self.betas
        correction = (1 - slow**self.steps) ** 0.5 / (1 - fast**self.steps)
        for p, mean, square in zip(self.parameters, self.mean, self.square, strict=True):
            if p.grad is None:
                continue
            mean.lerp_(p.grad, 1 - fast)
            square.mul_(slow).addcmul_(p.grad, p.grad, value=1 - slow)
            size = max(self.floor, float(p.square().mean().sqrt()))
            p.addcdiv_(mean, square.sqrt().add_(1e-8), value=-lr * size * correction)
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """The moments, named by position."""
        names = {"mean": self.mean, "square": self.square}
        return {f"{name}.{i}": t for name, tensors in names.items() for i, t in enumerate(tensors)}

    def load(self, state: dict[str, Tensor], steps: int) -> None:
        """Restore what ``state`` returned."""
        self.steps = steps
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
