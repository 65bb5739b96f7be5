"""How far the probabilities of ranked labels hold: means over target tasks, with intervals."""

from __future__ import annotations

from typing import Any

import pandas as pd

from softstart.analysis.arg import CELL, with_defaults
from softstart.analysis.resampling import (
    DEFAULT_INTERVAL,
    Floats,
    dense,
    intervals,
    mean,
    task_means,
)

CALIBRATION = ("ece", "accuracy", "accuracy_at_half")
"""Columns of results that say how probabilities hold; empty where labels were not ranked."""


def _means(drawn: Floats) -> Floats:
    """Means over tasks of means over runs: [V, B, T, I, S] to [V, B]."""
    return mean(task_means(drawn))


def calibration_table(rows: pd.DataFrame, *, interval: str = DEFAULT_INTERVAL) -> pd.DataFrame:
    """Expected calibration error and accuracies of every cell, over the tasks whose labels were ranked.

    Args:
        rows: the result table, with the columns of ``CALIBRATION``.
        interval: a name in ``softstart.analysis.INTERVALS``.

    Returns:
        One row per cell: the columns of ``CELL``, those of ``CALIBRATION`` (fractions), each with ``_low``
        and ``_high`` of its 95 % interval, and ``n_tasks``. Empty where nothing was ranked.

    Raises:
        SoftstartError: no such interval.
    """
    rows = with_defaults(rows)
    known = [name for name in CALIBRATION if name in rows]
    ranked = rows.dropna(subset=list(CALIBRATION)) if len(known) == len(CALIBRATION) else rows.iloc[:0]
    table: list[dict[str, Any]] = []
    for cell, runs in ranked.groupby(CELL, sort=False):
        values = dense(runs, CALIBRATION)
        bands = intervals(values, _means, interval=interval, resamples=2_000)
        row: dict[str, Any] = dict(zip(CELL, cell, strict=True))
        for name, value, (low, high) in zip(CALIBRATION, _means(values[:, None])[:, 0], bands, strict=True):
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        table.append({**row, "n_tasks": runs["task"].nunique()})
    columns = [column for name in CALIBRATION for column in (name, f"{name}_low", f"{name}_high")]
    return pd.DataFrame(table, columns=[*CELL, *columns, "n_tasks"])
