"""How long a meta-training is: so many steps, or as many as a common measure of work comes to."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from softstart.errors import SoftstartError
from softstart.training.configs import MetaConfig

LIMITS = frozenset({"steps", "epochs", "examples", "gradients"})
"""Ways to say how long; a method that names one for itself replaces those it inherits."""

_INSTEAD = ("epochs", "examples", "gradients")

HVP_COST = 2.1
"""A Hessian-vector product against a gradient of the same row, where it is not worked out from the data."""


@dataclass(frozen=True)
class MetaBudget(MetaConfig):
    """The outer loop as a study declares it.

    ``epochs``, ``examples`` or ``gradients``, of which one may be given, replace ``steps``: methods that do
    different work in a step can be compared at equal cost.
    """

    epochs: float | None = None
    """Passes over the source data: over the samples of all tasks, or for a mixture over all their rows."""
    examples: int | None = None
    """Rows read, those of support and query sets together."""
    gradients: int | None = None
    """Compute, in gradients of a row; a Hessian-vector product is some of them, by the backbone's FLOPs."""
    max_epochs: float | None = None
    """No more passes than these, however long the rest makes it: 120 as published."""

    @property
    def limit(self) -> str:
        """Which of ``LIMITS`` decides."""
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
            sources: source tasks.
            items: samples of all of them.
            rows: train and dev rows of them; 0 where that is not known, for a plan without data.
            hvp_cost: a Hessian-vector product, in gradients of the same row.

        Raises:
            SoftstartError: ``gradients`` for an algorithm whose work is not known.
        """
        tasks = {"mixture": 1, "tasks": sources}.get(algorithm.data, self.meta_batch)
        query = tasks * algorithm.query_size
        support = tasks * algorithm.inner_steps * algorithm.support_size
        per_epoch = math.ceil(items / tasks if algorithm.data == "episodes" else rows / query)
        steps = float(self.steps)
        if self.epochs is not None and per_epoch:
            steps = self.epochs * per_epoch
        elif self.examples is not None:
            steps = self.examples / (support + query)
        elif self.gradients is not None:
            steps = self.gradients / (support * _support_cost(algorithm, hvp_cost) + query)
        if self.max_epochs is not None and per_epoch:
            steps = min(steps, self.max_epochs * per_epoch)
        own = {f.name: getattr(self, f.name) for f in fields(MetaConfig)}
        return MetaConfig(**{**own, "steps": max(1, round(steps))})


def _support_cost(algorithm: Any, hvp_cost: float) -> float:
    """Gradients of a row that an inner step costs, graphs that are computed again not counted."""
    name = type(algorithm).__name__
    costs = {
        "MultiTask": 0.0, "SPoT": 0.0, "FoMAML": 1.0, "Reptile": 1.0,
        "MAML": hvp_cost, "ANIL": hvp_cost, "MetaSGD": hvp_cost,
    }  # fmt: skip
    if name not in costs:
        raise SoftstartError(
            f"the compute of {name} cannot be planned",
            fix="Declare its steps or examples in place of gradients.",
        )
    return costs[name]
