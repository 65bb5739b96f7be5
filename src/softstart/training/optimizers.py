"""Optimizers over stacked runs: every run has its own learning rate, state, clock and clipping.

A library optimizer on the stack would mix runs (Adafactor clips the RMS of the whole tensor) and would move
runs that have finished. Here row r of ``[R, P, d]`` behaves exactly as if it were alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from softstart.errors import SoftstartError

Name = Literal["adafactor", "adamw", "sgd"]


@dataclass(frozen=True)
class OptimizerConfig:
    """Which optimizer, without its learning rates.

    The defaults are those of Qin et al. (2023), released files: Adafactor without relative steps or parameter
    scaling, update clip 1.0, weight decay 1e-5, no schedule.
    """

    name: Name = "adafactor"
    """adafactor, adamw or sgd."""
    weight_decay: float = 1e-5
    """Decoupled: times the learning rate, off the prompt."""
    clip_threshold: float = 1.0
    """Adafactor: bound on the RMS of a run's update."""
    decay_rate: float = -0.8
    """Adafactor: exponent of the second-moment schedule."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW: moment decays."""
    max_grad_norm: float | None = None
    """Clip each run's gradient to this norm first."""


class StackedOptimizer(ABC):
    """Updates prompts [R, P, d] in place.

    Args:
        prompts: the stack, for its shape, dtype and device.
        lr: learning rates [R], or one for every row of a prompt [R, P].
        config: hyper-parameters.
    """

    state_keys: ClassVar[tuple[str, ...]] = ()

    def __init__(self, prompts: Tensor, lr: Tensor, config: OptimizerConfig) -> None:
        self.config = config
        self.lr = lr.to(prompts)
        self.clock = torch.zeros(len(prompts), dtype=torch.long, device=prompts.device)  # [R] steps taken
        self.state = self.init_state(prompts)

    @abstractmethod
    def init_state(self, prompts: Tensor) -> dict[str, Tensor]:
        """Zeroed state tensors [R, …]."""

    @abstractmethod
    def update(self, prompts: Tensor, gradient: Tensor, state: dict[str, Tensor], clock: Tensor) -> Tensor:
        """The step direction [A, P, d] of the active runs before their learning rates; ``state`` in place."""

    @torch.no_grad()
    def step(self, prompts: Tensor, gradient: Tensor, active: Tensor | None = None) -> None:
        """Move the active runs one step.

        Args:
            prompts: [R, P, d], changed in place.
            gradient: [R, P, d].
            active: [R] bool; the other runs and their state stay as they are. None: all.
        """
        rows = slice(None) if active is None else active.nonzero().squeeze(1)
        part, g = prompts[rows], gradient[rows]
        if self.config.max_grad_norm is not None:
            norms = g.flatten(1).norm(dim=1).clamp_min(1e-12)
            g = g * (self.config.max_grad_norm / norms).clamp_max(1.0)[:, None, None]
        self.clock[rows] += 1
        state = {key: value[rows] for key, value in self.state.items()}
        direction = self.update(part, g, state, self.clock[rows])
        lr = self.lr[rows]
        lr = lr[(..., *[None] * (3 - lr.ndim))]  # [A, 1, 1] or [A, P, 1]
        prompts[rows] = part - lr * (direction + self.config.weight_decay * part)
        for key, value in state.items():
            self.state[key][rows] = value

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to go on: state tensors and the clocks."""
        return {**self.state, "clock": self.clock}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        self.clock.copy_(tensors["clock"])
        for key, value in self.state.items():
            value.copy_(tensors[key])


class SGD(StackedOptimizer):
    """Plain gradient descent (Robbins & Monro, 1951)."""

    def init_state(self, prompts: Tensor) -> dict[str, Tensor]:
        """No state, whatever the prompts [R, P, d]."""
        return {}

    def update(self, prompts: Tensor, gradient: Tensor, state: dict[str, Tensor], clock: Tensor) -> Tensor:
        """The gradient itself, [A, P, d]."""
        return gradient


class AdamW(StackedOptimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019)."""

    def init_state(self, prompts: Tensor) -> dict[str, Tensor]:
        """First and second moments [R, P, d]."""
        return {"mean": torch.zeros_like(prompts), "square": torch.zeros_like(prompts)}

    def update(self, prompts: Tensor, gradient: Tensor, state: dict[str, Tensor], clock: Tensor) -> Tensor:
        """Bias-corrected m / (sqrt(v) + 1e-8), [A, P, d]."""
        b1, b2 = self.config.betas
        state["mean"].lerp_(gradient, 1 - b1)
        state["square"].lerp_(gradient.square(), 1 - b2)
        t = clock.to(prompts.dtype)[:, None, None]
        mean, square = state["mean"] / (1 - b1**t), state["square"] / (1 - b2**t)
        return mean / (square.sqrt() + 1e-8)


class Adafactor(StackedOptimizer):
    """Adafactor (Shazeer & Stern, 2018) with a given learning rate, as transformers' ``Adafactor`` with
    ``scale_parameter=False, relative_step=False`` and no first moment."""

    EPS = 1e-30

    def init_state(self, prompts: Tensor) -> dict[str, Tensor]:
        """Factored second moments: row means [R, P] and column means [R, d]."""
        return {"row": prompts.new_zeros(prompts.shape[:2]), "column": prompts.new_zeros(prompts[:, 0].shape)}

    def update(self, prompts: Tensor, gradient: Tensor, state: dict[str, Tensor], clock: Tensor) -> Tensor:
        """g / sqrt(row x column / mean row), [A, P, d], each run's RMS clipped to ``clip_threshold``."""
        square = gradient.square() + self.EPS
        keep = 1.0 - clock.to(prompts.dtype).pow(self.config.decay_rate)[:, None]  # [A, 1]
        state["row"].mul_(keep).add_((1 - keep) * square.mean(2))
        state["column"].mul_(keep).add_((1 - keep) * square.mean(1))
        row = (state["row"] / state["row"].mean(1, keepdim=True)).rsqrt()
        direction = row[:, :, None] * state["column"].rsqrt()[:, None, :] * gradient
        rms = direction.square().mean((1, 2)).sqrt()
        return direction / (rms / self.config.clip_threshold).clamp_min(1.0)[:, None, None]


OPTIMIZERS: dict[str, type[StackedOptimizer]] = {"adafactor": Adafactor, "adamw": AdamW, "sgd": SGD}


def make_optimizer(prompts: Tensor, lr: Tensor, config: OptimizerConfig) -> StackedOptimizer:
    """The configured optimizer for a stack of prompts [R, P, d] with learning rates [R].

    Raises:
        SoftstartError: unknown optimizer name.
    """
    try:
        return OPTIMIZERS[config.name](prompts, lr, config)
    except KeyError:
        raise SoftstartError(
            f"unknown optimizer '{config.name}'", fix=f"Use one of {', '.join(OPTIMIZERS)}."
        ) from None
