"""Learning curves of adaptation: does a learned start also get there sooner?"""

from __future__ import annotations

import numpy as np
import pandas as pd

_RUN = ["method", "task", "sample", "lr"]


def adaptation_area(curves: pd.DataFrame, *, until: int | None = None) -> pd.DataFrame:
    """The area under every run's dev curve, divided by its length in steps: a mean dev score over time.

    Trapezoids between evaluations; scores in [0, 1] give areas in [0, 1]. Runs stopped early are carried
    on at their last score, so that all are measured over the same steps.

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
    end = int(curves["step"].max()) if until is None else until
    areas = []
    for key, curve in curves.groupby(run, dropna=False):
        within = curve[curve["step"] <= end].sort_values("step")
        step, dev = (within[c].to_numpy(dtype=np.float64) for c in ("step", "dev"))
        if len(step) and step[-1] < end:
            step, dev = np.append(step, end), np.append(dev, dev[-1])
        length = step[-1] - step[0] if len(step) else 0.0
        area = np.trapezoid(dev, step) / length if length else np.nan
        areas.append((*key, area, int(length)))
    return pd.DataFrame(areas, columns=[*run, "area", "steps"])
