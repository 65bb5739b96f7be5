"""How long meta-training is: in steps, or in a measure of work that all methods share."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from softstart.algorithms import work_of
from softstart.training.configs import MetaConfig

LIMITS = frozenset({"steps", "epochs", "examples", "gradients"})
"""Ways to say how long; a method that sets one of them drops those it would inherit."""

_INSTEAD = ("epochs", "examples", "gradients")

HVP_COST = 2.1
"""A Hessian-vector product relative to a gradient of the same row, unless it is computed from the data."""


@dataclass(frozen=True)
class MetaBudget(MetaConfig):
    """The outer loop as a study declares it.

    At most one of ``epochs``, ``examples`` and ``gradients`` may be given; it replaces ``steps``: methods
    that do different work in a step can be compared at equal cost.
    """

    epochs: float | None = None
    """Passes over the source data: over the samples of all tasks, or for a mixture over all their rows."""
    examples: int | None = None
    """Rows read, those of support and query sets together."""
    gradients: int | None = None
    """Compute, in gradients of a row; a Hessian-vector product counts by the backbone's FLOPs. Every
    row counts as if it were read whole, also where a causal model reads prompts or texts once;
    ``computed_flops`` in a study's tables says what that left to compute."""
    max_epochs: float | None = None
    """Upper bound on passes, whatever the other limits say: 120 as published."""

    @property
    def limit(self) -> str:
        """The one of ``LIMITS`` that decides."""
        return next((name for name in _INSTEAD if getattr(self, name) is not None), "steps")

    def __post_init__(self) -> None:
        given = [name for name in _INSTEAD if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both say how long meta-training is; keep one")
        for name in (*given, *(["max_epochs"] if self.max_epochs is not None else [])):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0")

    def resolved(self, algorithm: Any, sources: int, items: int, rows: int, hvp_cost: float) -> MetaConfig:
        """The outer loop with its number of steps.

        Args:
            algorithm: what a step does.
            sources: number of source tasks.
            items: number of samples of all of them.
            rows: number of their train and dev rows; 0 where it is not known, for a plan without data.
            hvp_cost: a Hessian-vector product, in gradients of the same row.
        """
        tasks = tasks_of(algorithm, self.meta_batch, sources)
        query = tasks * algorithm.query_size
        support = tasks * algorithm.inner_steps * algorithm.support_size
        per_epoch = math.ceil(items / tasks if algorithm.data == "episodes" else rows / query)
        steps = float(self.steps)
        if self.epochs is not None and per_epoch:
            steps = self.epochs * per_epoch
        elif self.examples is not None:
            steps = self.examples / (support + query)
        elif self.gradients is not None:
            steps = self.gradients / step_cost(algorithm, tasks, hvp_cost)
        if self.max_epochs is not None and per_epoch:
            steps = min(steps, self.max_epochs * per_epoch)
        values = {f.name: getattr(self, f.name) for f in fields(MetaConfig)}
        return MetaConfig(**{**values, "steps": max(1, round(steps))})


def tasks_of(algorithm: Any, meta_batch: int, sources: int) -> int:
    """Tasks of an outer step: one for a mixture, all source tasks or those of a meta-batch."""
    return {"mixture": 1, "tasks": sources}.get(algorithm.data, meta_batch)


def step_cost(algorithm: Any, tasks: int, hvp_cost: float = HVP_COST) -> float:
    """Work of an outer step, in gradients of a row.

    A Hessian-vector product differentiates a gradient, whose graph may be kept for it. The graph of one batch
    counts as kept, as by default, and all others as computed again. ``MetaConfig.memory_budget`` changes
    what is kept and no number, so it does not change how long methods of equal work are either.

    Args:
        algorithm: declares its ``StepWork``; one that declares none is taken as first order.
        tasks: tasks of the step.
        hvp_cost: a Hessian-vector product, in gradients of the same row.

    >>> from softstart.algorithms import MAML, FoMAML
    >>> step_cost(FoMAML(inner_steps=5, support_size=2, query_size=2), tasks=1)
    12.0
    >>> step_cost(MAML(inner_steps=5, support_size=2, query_size=2), tasks=1)
    31.0
    """
    work, support = work_of(algorithm), tasks * algorithm.support_size
    gradients = work.gradients - min(1, work.keepable)
    return float(support * gradients + support * work.hvps * hvp_cost + tasks * algorithm.query_size)
