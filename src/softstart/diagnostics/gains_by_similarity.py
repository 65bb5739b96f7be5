"""Whether the similarity of tasks predicts gains, and whether choosing a start by it would have paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from softstart.analysis.similarity import affinity, follow, follow_p, rank_correlation
from softstart.study.plan.inputs import Part


def similarity_and_gain(
    measures: Mapping[str, pd.DataFrame], parts: Sequence[Part], gains: pd.DataFrame
) -> pd.DataFrame:
    """Every target's similarity to the sources of its setting, with the gain of every learned start.

    Args:
        measures: tables of similarity, tasks by tasks.
        parts: the settings.
        gains: of the methods that learn (``StudiedTasks.gains``).

    Returns:
        One row per setting, method, measure and target: ``setting``, ``method``, ``measure``, ``task``,
        ``similarity``, ``gain`` (points).
    """
    rows = []
    for part in parts:
        for method, of_method in gains[gains["setting"] == part.setting].groupby("method"):
            gain = of_method.set_index("task")["abs_gain"].reindex(part.target)
            for measure, values in _affinities(measures, part).items():
                rows += [(part.setting, method, measure, t, values[t], gain[t]) for t in part.target]
    return pd.DataFrame(rows, columns=["setting", "method", "measure", "task", "similarity", "gain"])


def correlations(points: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of similarity and gain over targets: ``rho``, ``p`` and ``n_tasks``.

    One row per setting, method and measure of ``similarity_and_gain``.
    """
    rows = []
    for key, part in points.groupby(["setting", "method", "measure"], sort=False):
        rho, p = rank_correlation(part["similarity"], part["gain"])
        rows.append((*key, rho, p, int(part["gain"].notna().sum())))
    return pd.DataFrame(rows, columns=["setting", "method", "measure", "rho", "p", "n_tasks"])


def followed(
    measures: Mapping[str, pd.DataFrame], parts: Sequence[Part], gains: pd.DataFrame
) -> pd.DataFrame:
    """What targets would have gained that several settings share, had similarity chosen their start.

    Arguments as in ``similarity_and_gain``; see ``softstart.analysis.similarity`` for the rows
    (``follow``) and ``p`` of a method (``follow_p``).
    """
    parts = [part for part in parts if part.source]
    sizes = {part.setting: len(part.source) for part in parts}
    by_setting = {part.setting: _affinities(measures, part) for part in parts}
    tables = {measure: pd.DataFrame({s: by_setting[s][measure] for s in by_setting}) for measure in measures}
    rows = []
    for method, of_method in gains.groupby("method"):
        wide = of_method.pivot(index="task", columns="setting", values="abs_gain")
        shared = wide[wide.notna().sum(axis=1) >= 2].dropna(axis=1, how="all")
        if len(shared) > 1:
            of_shared = {measure: table.reindex(shared.index) for measure, table in tables.items()}
            choices = follow(shared, of_shared, sizes)
            settings, p = ", ".join(shared.columns), follow_p(shared, of_shared)
            rows.append(choices.assign(method=method, settings=settings, p=p))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def _affinities(measures: Mapping[str, pd.DataFrame], part: Part) -> dict[str, pd.Series]:
    return {measure: affinity(table, part.source, part.target) for measure, table in measures.items()}
