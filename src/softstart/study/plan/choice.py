"""The run, and its prompt, that dev scores select for a cell at a budget of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from softstart.study.declare.spec import Study
from softstart.study.plan.plan import Cell, RunNode
from softstart.training.methods import Method


@dataclass(frozen=True)
class Choice:
    """The run chosen for a cell at a budget: its best dev score up to there, the step of that score, and the
    step of the prompt that is tested (another one under ``select: last``).
    """

    run: RunNode
    dev: float
    best_step: int
    tested_step: int


def budgets_of(study: Study, method: Method) -> tuple[int, ...]:
    """The budgets, in steps, at which a method is compared: as declared, or all its steps; 0: it has none."""
    if method.unpacked:
        return method.unpacked.budgets
    return study.adaptation.budgets or (study.adaptation.steps,)


def choose(cell: Cell, study: Study, done: Mapping[str, Mapping[str, Any]], budget: int) -> Choice | None:
    """The run with the best dev score up to a budget; ties go to the first learning rate of the grid.

    None while a run of the cell is missing, or if all of them diverged before the first dev score.
    """
    if any(run.key not in done for run in cell.runs):
        return None
    last = cell.method.unpacked is None and study.adaptation.select == "last"
    chosen: Choice | None = None
    for run in cell.runs:
        row = done[run.key]
        best = best_up_to(row["curve"], budget)
        if best is None or (chosen is not None and best[0] <= chosen.dev):
            continue
        dev, step = best
        # A diverged run has no last prompt beyond its last finite step.
        keeps_last = last and not (row["status"] == "diverged" and budget > row["steps"])
        chosen = Choice(run, dev, step, min(budget, row["steps"]) if keeps_last else step)
    return chosen


def best_up_to(curve: list[list[Any]], budget: int) -> tuple[float, int] | None:
    """(dev, step) of the first best evaluation at steps up to a budget; NaN counts as none."""
    best: tuple[float, int] | None = None
    for step, dev, _ in curve:
        if step <= budget and not math.isnan(dev) and (best is None or dev > best[0]):
            best = (dev, step)
    return best
