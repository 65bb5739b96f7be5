"""Is one method better than another over tasks? Paired tests, corrected by Holm.

For two methods and their mean tests on the tasks both have, d(task) is the difference in points. If the
methods were exchangeable, every d would be as likely with the other sign: the p-value is the share of the
2^T sign patterns whose mean is at least as far from zero as the one observed (two-sided). Differences are in
points because a relative gain does not just change its sign when the two methods are swapped. The smallest
p-value that T tasks can give is 2 / 2^T.

The test is exact where differences are symmetric and tasks are all that varies. It rejects too often where
differences are skewed (at .05 in .10 to .16 of studies without a mean difference), and far too often where a
meta seed moves a method on all tasks alike (.09 to .45): flipping signs of tasks knows nothing of seeds.
Dividing by a standard error first changes nothing, as all sign patterns have the same squares. So there is a
second p-value, of a t test whose error holds tasks and meta seeds (``resampling.standard_error``). It keeps
its size under a seed effect if there are three seeds; with one seed no test can.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from softstart.analysis.arg import CELL, canonical, with_baseline
from softstart.analysis.resampling import FEWEST_TASKS, Floats, dense, mean, standard_error, task_means
from softstart.analysis.student import t_p
from softstart.analysis.units import points

EXACT_UP_TO = 16
"""Up to this many tasks (65,536 patterns) every pattern is counted; with more, a random sample of them."""

_GROUP = [column for column in CELL if column != "method"]
_TOLERANCE = 1e-12


def sign_flip_p(
    differences: Sequence[float] | npt.NDArray[np.float64], *, patterns: int = 20_000, seed: int = 0
) -> float:
    """Two-sided p-value of a mean difference over tasks; NaN without any.

    Args:
        differences: one a task, [T]; none may be NaN.
        patterns: how many random sign patterns stand for all of them with more than ``EXACT_UP_TO`` tasks.
            The observed one is counted among them, so that p is never 0.
        seed: of the random patterns.
    """
    d = np.asarray(differences, dtype=np.float64)
    if not len(d):
        return float("nan")
    if len(d) <= EXACT_UP_TO:
        # Bit i of a pattern's number is the sign of task i.
        signs = 1.0 - 2.0 * (np.arange(2 ** len(d))[:, None] >> np.arange(len(d)) & 1)
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(patterns, len(d)))
        signs[0] = 1.0
    return float(np.mean(np.abs(signs @ d) >= abs(d.sum()) - _TOLERANCE))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of one family of p-values; NaN stays NaN and is no member."""
    order = sorted((i for i, value in enumerate(p) if not np.isnan(value)), key=lambda i: p[i])
    adjusted, largest = [float("nan")] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted


def compare_methods(rows: pd.DataFrame, baseline: str = "pt", *, seed: int = 0) -> pd.DataFrame:
    """Every method against the baseline, and every pair of the others, within each group of cells.

    Only runs (sample and meta seed) that both methods have are compared.

    Returns:
        One row per pair and group (setting, backbone, prompt length, budget, variant): these columns;
        ``method``, ``other``; ``difference_points`` (mean over tasks, positive where ``method`` is better);
        ``n_tasks``; ``p`` of the sign flips; ``p_holm``, adjusted within the group among the comparisons with
        the baseline, and among those between methods; ``p_t`` and ``p_t_holm``, the same of a t test over
        tasks and meta seeds, NaN with fewer than four tasks.

    Raises:
        SoftstartError: as ``relative_gains``.
    """
    table = canonical(rows)
    names = sorted(table["method"].unique(), key=lambda name: (name != baseline, name))
    comparisons = []
    for i, other in enumerate(names):
        pairs = with_baseline(table[table["method"].isin(names[i:])], other, ["test"])
        pairs = pairs[pairs["method"] != other]
        pairs = pairs.assign(difference_points=points(pairs["test"] - pairs["test_baseline"]))
        of_cell = dict(iter(pairs.groupby(CELL)))
        for cell, d in pairs.groupby([*CELL, "task"])["difference_points"].mean().dropna().groupby(CELL):
            named = dict(zip(CELL, cell, strict=True))
            p, p_t = sign_flip_p(d.to_numpy(), seed=seed), seeds_t_p(of_cell[cell])
            comparisons.append(
                (*(named[c] for c in _GROUP), named["method"], other, d.mean(), len(d), p, p_t)
            )
    columns = [*_GROUP, "method", "other", "difference_points", "n_tasks", "p", "p_t"]
    result = pd.DataFrame(comparisons, columns=columns)
    family = [*_GROUP, result["other"] == baseline]
    for name in ("p", "p_t"):
        result[f"{name}_holm"] = result.groupby(family)[name].transform(lambda p: holm(list(p)))
    return result


def best_of_tasks(rows: pd.DataFrame) -> pd.DataFrame:
    """The method with the highest mean test score on each task, and whether the runs tell it apart.

    Returns:
        One row per group of cells and task: the columns of the group, ``task``, ``method``, and ``p``: of
        paired sign flips over the runs (sample and meta seed) that two methods share, against every other
        method, adjusted by Holm, the largest of them. NaN without another method.

    Raises:
        SoftstartError: as ``relative_gains``.
    """
    table = canonical(rows).dropna(subset="test")
    means = table.groupby([*_GROUP, "task", "method"], as_index=False)["test"].mean()
    best = means.loc[means.groupby([*_GROUP, "task"])["test"].idxmax(), [*_GROUP, "task", "method"]]
    found = []
    for method, of_best in best.groupby("method"):
        pairs = with_baseline(table, str(method), ["test"])
        pairs = pairs[pairs["method"] != method].dropna(subset="test_baseline")
        pairs = pairs.assign(ahead=points(pairs["test_baseline"] - pairs["test"]))
        others = dict(iter(pairs.groupby([*_GROUP, "task"])))
        for row in of_best.itertuples(index=False, name=None):
            key = row[:-1]
            against = others[key].groupby("method")["ahead"] if key in others else ()
            p = [sign_flip_p(ahead.to_numpy()) for _, ahead in against]
            found.append((*row, max(holm(p), default=float("nan"))))
    return pd.DataFrame(found, columns=[*_GROUP, "task", "method", "p"])


def seeds_t_p(runs: pd.DataFrame) -> float:
    """Two-sided p of a t test of the mean difference over tasks, with meta seeds in its error where there are
    several.

    Args:
        runs: ``task``, ``sample``, ``seed`` and ``difference_points`` of every run.

    Returns:
        p; NaN with fewer than four tasks, or where nothing varies.
    """
    known = runs.dropna(subset="difference_points")
    if known["task"].nunique() < FEWEST_TASKS:
        return float("nan")
    values = dense(known, ["difference_points"])
    (error,), (freedom,) = standard_error(values, _mean_difference)
    observed = float(_mean_difference(values[:, None])[0, 0])
    return t_p(observed / error, float(freedom)) if error > 0 else float("nan")


def _mean_difference(drawn: Floats) -> Floats:
    """Mean over tasks of differences [1, B, T, I, S], as [1, B]."""
    return mean(task_means(drawn))


def with_tests(rows: pd.DataFrame, arg: pd.DataFrame, baseline: str = "pt") -> pd.DataFrame:
    """An ARG table of these rows with the p-values of ``compare_methods`` for every method."""
    tests = compare_methods(rows, baseline)
    tests = tests.loc[tests["other"] == baseline, [*CELL, "p", "p_holm", "p_t", "p_t_holm"]]
    return arg.merge(tests, on=CELL, how="left")
