"""What an optimizer is: a rule with its settings, applied to every run of a stack on its own.

A library optimizer on the stack would mix runs (Adafactor clips the RMS of the whole tensor) and would move
runs that have finished. Here row r of ``[R, P, d]`` behaves exactly as if it were alone: every run has its
own learning rate, state, clock and clipping.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from softstart.registry import Registry
from softstart.training.declared import Declared, is_declared


@dataclass(frozen=True)
class Optimizer(Declared, ABC):
    """An update rule and its settings, without learning rates.

    A subclass is a frozen dataclass whose fields are its own settings. It is stateless: the state of a stack
    is in ``StackedOptimizer``.

    >>> from softstart.training.optimizers import AdamW
    >>> Optimizer.declared({"name": "adamw", "betas": [0.9, 0.95]})
    AdamW(weight_decay=1e-05, max_grad_norm=None, betas=(0.9, 0.95))
    """

    weight_decay: float = field(default=1e-5, kw_only=True)
    """Decoupled: times the learning rate, subtracted from the prompt."""
    max_grad_norm: float | None = field(default=None, kw_only=True)
    """Clip each run's gradient to this norm first."""

    def init_state(self, prompts: Tensor) -> dict[str, Tensor]:
        """State tensors [R, …] of prompts [R, P, d] before the first step: none by default."""
        return {}

    @abstractmethod
    def update(self, prompts: Tensor, gradient: Tensor, state: dict[str, Tensor], clock: Tensor) -> Tensor:
        """The step direction of the active runs before their learning rates.

        Args:
            prompts: [A, P, d], not to be changed.
            gradient: [A, P, d].
            state: their part of the state [A, …], updated in place.
            clock: [A], the steps taken, this one included.

        Returns:
            [A, P, d]; prompts move by ``-lr * (direction + weight_decay * prompts)``.
        """


OPTIMIZERS: Registry[type[Optimizer]] = Registry("optimizer", is_declared(Optimizer))
Optimizer.registry = OPTIMIZERS

FORMERLY = {"clip_threshold": 1.0, "decay_rate": -0.8, "betas": (0.9, 0.999)}
"""The settings that Adafactor, AdamW and SGD shared until version 0.2, in study files and keys."""


class StackedOptimizer:
    """Updates prompts [R, P, d] in place, each run by its own state and learning rate.

    Args:
        prompts: the stack, for its shape, dtype and device.
        lr: learning rates [R], or one for every row of a prompt [R, P].
        rule: the update rule.

    >>> import torch
    >>> from softstart.training.optimizers import SGD
    >>> prompts = torch.ones(2, 1, 3)
    >>> StackedOptimizer(prompts, torch.tensor([0.5, 0.1]), SGD()).step(prompts, torch.ones(2, 1, 3))
    >>> prompts[:, 0, 0].tolist()
    [0.49999499320983887, 0.8999990224838257]
    """

    def __init__(self, prompts: Tensor, lr: Tensor, rule: Optimizer) -> None:
        self.rule = rule
        self.lr = lr.to(prompts, copy=True)
        self.clock = torch.zeros(len(prompts), dtype=torch.long, device=prompts.device)  # [R] steps taken
        self.state = rule.init_state(prompts)

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
        if self.rule.max_grad_norm is not None:
            norms = g.flatten(1).norm(dim=1).clamp_min(1e-12)
            g = g * (self.rule.max_grad_norm / norms).clamp_max(1.0)[:, None, None]
        self.clock[rows] += 1
        state = {key: value[rows] for key, value in self.state.items()}
        direction = self.rule.update(part, g, state, self.clock[rows])
        lr = self.lr[rows]
        lr = lr[(..., *[None] * (3 - lr.ndim))]  # [A, 1, 1] or [A, P, 1]
        prompts[rows] = part - lr * (direction + self.rule.weight_decay * part)
        for key, value in state.items():
            self.state[key][rows] = value

    def begin(self, prompts: Tensor, rows: Sequence[int], lr: Tensor) -> None:
        """Start some rows over, as those of other runs.

        Args:
            prompts: [R, P, d]; these rows are already those of the new runs.
            rows: A of them.
            lr: their learning rates, of the form of the first ones: [A], …
        """
        at = torch.tensor(rows, dtype=torch.long, device=prompts.device)
        self.lr[at] = lr.to(self.lr)
        self.clock[at] = 0
        for key, value in self.rule.init_state(prompts[at]).items():
            self.state[key][at] = value

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to go on: state tensors and the clocks."""
        return {**self.state, "clock": self.clock}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        self.clock.copy_(tensors["clock"])
        for key, value in self.state.items():
            value.copy_(tensors[key])
