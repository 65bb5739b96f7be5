"""Learning curves of adaptation: does a learned start also get there sooner?

For one run, with dev(s) its dev score at step s (evaluated every few steps, linear in between) and S the
budget it is measured over,

    area          = 1/S · ∫ dev(s) ds over 0..S, by trapezoids: the mean dev score over S (a fraction)
    steps to best = the first evaluated step with dev(s) >= the best dev score of the baseline's run on the
                    same task, sample and seed within S; infinity if no step up to S has it ("never")

Where a run's first evaluation comes after step 0 (fine-tuning has none of its start), its area and that of
the baseline's run it is compared with begin there. A run that stopped before S stays at its last score. Dev
sets are as small as training sets, and learning rates are selected on them: these measures say how fast, and
test scores alone say how well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from softstart.analysis.arg import CELL, with_baseline, with_defaults
from softstart.analysis.resampling import (
    DEFAULT_INTERVAL,
    Floats,
    dense,
    intervals,
    mean,
    median,
    numbers,
    task_means,
)
from softstart.analysis.units import points

_RUN = ["method", "task", "sample", "lr"]
_PAIRED = ["area", "area_baseline", "steps", "steps_baseline"]
_TIE = 1e-9

SPEED = ["area_points", "area_gain_points", "reached", "steps"]
"""What ``speed_table`` gives an interval for."""


def adaptation_area(curves: pd.DataFrame, *, until: int | None = None) -> pd.DataFrame:
    """The area under every run's dev curve, divided by its length in steps: a mean dev score over time.

    Args:
        curves: one row per evaluation: ``method``, ``task``, ``sample``, ``lr``, ``step``, ``dev``, and
            ``seed`` (of meta-training) where there are several.
        until: measure up to this step; by default the last step of any run. Later steps are left out.

    Returns:
        One row per run: its columns, ``area``, and ``steps`` (first to last step it was measured on).
        NaN for a run with a NaN score or a single evaluation at ``until``.
    """
    if curves.empty:
        return pd.DataFrame(columns=[*_RUN, "area", "steps"])
    run = [*_RUN, *(["seed"] if "seed" in curves else [])]
    end = float(curves["step"].max()) if until is None else float(until)
    areas = []
    for key, curve in curves.sort_values("step").groupby(run, dropna=False):
        area, length = _area(curve[["step", "dev"]].to_numpy(dtype=np.float64), end)
        areas.append((*key, area, int(length)))
    return pd.DataFrame(areas, columns=[*run, "area", "steps"])


def speed_by_run(rows: pd.DataFrame, curves: pd.DataFrame, baseline: str = "pt") -> pd.DataFrame:
    """Area and steps to the baseline's best for every selected run, joined with the baseline's.

    Args:
        rows: one row per selected run with its key ``run`` (see ``softstart.analysis.arg``).
        curves: one row per evaluation of a run: ``run``, ``step``, ``dev``; other columns are ignored. The
            budget S is the row's, or the last step of any of these runs where that is 0.
        baseline: the method to be as good as.

    Returns:
        One row per run whose curve and whose baseline's curve are known: the columns of ``CELL``, ``task``,
        ``sample``, ``seed``; ``area``, ``area_baseline`` (fractions), ``steps``, ``steps_baseline``.

    Raises:
        SoftstartError: as ``relative_gains``.
    """
    rows = with_defaults(rows)
    known = curves[curves["run"].isin(rows["run"])].drop_duplicates(["run", "step"]).sort_values("step")
    of_run = {key: curve.to_numpy(dtype=np.float64) for key, curve in known.groupby("run")[["step", "dev"]]}
    table = rows[rows["run"].isin(list(of_run))][[*CELL, "task", "sample", "seed", "run"]]
    until = table["budget"].where(table["budget"] > 0, known["step"].max()).astype(float)
    run_curves = [of_run[key] for key in table["run"]]
    table = table.assign(
        area=[_area(curve, end)[0] for curve, end in zip(run_curves, until, strict=True)],
        best=[_best(curve, end) for curve, end in zip(run_curves, until, strict=True)],
        curve=pd.Series(run_curves, index=table.index, dtype=object),
        until=until,
    )
    table = with_baseline(table, baseline, ["area", "best", "curve"])
    table = table.dropna(subset=["area", "area_baseline"])
    # Both areas begin where both curves do.
    first = [max(a[0, 0], b[0, 0]) for a, b in zip(table["curve"], table["curve_baseline"], strict=True)]
    for of in ("", "_baseline"):
        parts = zip(table[f"curve{of}"], first, table["until"], strict=True)
        table[f"area{of}"] = [_area(curve[curve[:, 0] >= start], end)[0] for curve, start, end in parts]
        goals = zip(table[f"curve{of}"], table["best_baseline"], table["until"], strict=True)
        table[f"steps{of}"] = [_first(*goal) for goal in goals]
    return table[[*CELL, "task", "sample", "seed", *_PAIRED]].reset_index(drop=True)


def speed_table(
    rows: pd.DataFrame,
    curves: pd.DataFrame,
    baseline: str = "pt",
    *,
    interval: str = DEFAULT_INTERVAL,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """How fast each cell adapts, against the baseline; intervals as in ``bootstrap_interval``.

    Returns:
        One row per cell: the columns of ``CELL``; ``area_points`` (mean over tasks of means over runs),
        ``area_gain_points`` (over the baseline's), ``reached`` (share of runs that reach the baseline's
        best within the budget), ``steps`` (median over runs to get there; infinity: the median run never
        does), each with ``_low`` and ``_high``; ``steps_baseline`` (median over the runs compared);
        ``n_tasks`` and ``n_runs`` behind them.

    Raises:
        SoftstartError: as ``relative_gains``.
    """
    speeds = []
    for cell, runs in speed_by_run(rows, curves, baseline).groupby(CELL):
        values = dense(runs, _PAIRED)
        bands = intervals(values, _speed, interval=interval, level=level, resamples=resamples, seed=seed)
        row: dict[str, Any] = dict(zip(CELL, cell, strict=True))
        for name, value, (low, high) in zip(SPEED, _speed(values[:, None])[:, 0], bands, strict=True):
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        row["steps_baseline"] = float(runs["steps_baseline"].median())
        speeds.append({**row, "n_tasks": runs["task"].nunique(), "n_runs": len(runs)})
    columns = [c for name in SPEED for c in (name, f"{name}_low", f"{name}_high")]
    return pd.DataFrame(speeds, columns=[*CELL, *columns, "steps_baseline", "n_tasks", "n_runs"])


@numbers("mean", "mean", "quantile", "quantile")
def _speed(drawn: Floats) -> Floats:
    """The numbers of ``SPEED`` for drawn values [4, B, T, I, S], as [4, B]."""
    area, area_baseline = task_means(drawn[:2])
    steps = drawn[2].reshape(len(drawn[2]), -1)
    reached = np.where(np.isnan(steps), np.nan, np.isfinite(steps))
    return np.stack([points(mean(area)), points(mean(area - area_baseline)), mean(reached), median(steps)])


def _area(curve: Floats, end: float) -> tuple[float, float]:
    """The area under a curve [evaluations, (step, dev)] up to ``end``, and the steps it was measured over."""
    step, dev = curve[curve[:, 0] <= end].T
    if len(step) and step[-1] < end:
        step, dev = np.append(step, end), np.append(dev, dev[-1])
    length = float(step[-1] - step[0]) if len(step) else 0.0
    return (float(np.trapezoid(dev, step)) / length if length else np.nan), length


def _best(curve: Floats, end: float) -> float:
    dev = curve[curve[:, 0] <= end, 1]
    return float(dev.max()) if len(dev) else np.nan


def _first(curve: Floats, goal: float, end: float) -> float:
    """The first step up to ``end`` at which a curve has reached ``goal``; infinity: none."""
    reached = curve[(curve[:, 0] <= end) & (curve[:, 1] >= goal - _TIE), 0]
    return float(reached[0]) if len(reached) else np.inf
