"""The uncertainty of the gain on each single task."""

from __future__ import annotations

import pandas as pd

from softstart.analysis.arg import CELL, gain_statistics, paired
from softstart.analysis.resampling import DEFAULT_INTERVAL, dense, intervals


def task_intervals(
    rows: pd.DataFrame,
    baseline: str = "pt",
    *,
    interval: str = DEFAULT_INTERVAL,
    resamples: int = 2_000,
    seed: int = 0,
) -> pd.DataFrame:
    """95 % intervals of the gain on every task, resampling its samples and the meta seeds.

    Returns:
        One row per cell and task: the columns of ``CELL``, ``task``, ``low`` and ``high`` (percent),
        ``abs_low`` and ``abs_high`` (points); NaN with fewer than three runs.

    Raises:
        SoftstartError: as ``bootstrap_interval``.
    """
    limits = []
    for key, runs in paired(rows, baseline).groupby([*CELL, "task"]):
        scores = dense(runs.dropna(subset=["test", "baseline"]), ["test", "baseline"])
        (low, high), _, (abs_low, abs_high), _ = intervals(
            scores, gain_statistics, interval=interval, resamples=resamples, seed=seed
        )
        limits.append((*key, low, high, abs_low, abs_high))
    return pd.DataFrame(limits, columns=[*CELL, "task", "low", "high", "abs_low", "abs_high"])
