"""Bootstrap intervals.

The hierarchical one draws tasks, samples within each task drawn, and meta seeds once for all tasks;
``score_interval`` draws the examples of one test set.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from softstart.gym.metrics import F1Labels, References, score

Floats = npt.NDArray[np.float64]

Statistic = Callable[[Floats], Floats]
"""From drawn values [V, B, T, I, S] of B resamples to K numbers for each, [K, B]."""

_CHUNK = 1_000
"""Resamples held in memory at a time."""


def dense(runs: pd.DataFrame, values: Sequence[str]) -> Floats:
    """The values of one cell's runs as [V, tasks, samples, seeds]; NaN where there is no run.

    Samples are ranked within each task, so that the first ones are those it has.

    Args:
        runs: one row per run: ``task``, ``sample``, ``seed`` and the columns ``values``.
        values: the columns to lay out.
    """
    task = runs["task"].astype("category").cat.codes.to_numpy()
    sample = runs.groupby("task")["sample"].rank(method="dense").astype(int).to_numpy() - 1
    seed = runs["seed"].astype("category").cat.codes.to_numpy()
    shape = tuple(int(index.max(initial=0)) + 1 for index in (task, sample, seed))
    laid: Floats = np.full((len(values), *shape), np.nan)
    laid[:, task, sample, seed] = runs[list(values)].to_numpy(dtype=np.float64).T
    return laid


def percentile_intervals(
    values: Floats, statistic: Statistic, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Floats:
    """Percentile intervals [K, 2] of a statistic over resamples of ``values`` [V, T, I, S].

    Tasks are drawn with replacement; within every task drawn its samples; the S meta seeds once for all
    tasks of a resample, since one meta-learned start serves all of them. NaN with fewer than two runs a
    statistic can vary over, or where no resample has a value.
    """
    _, _, samples, seeds = values.shape
    rng = np.random.default_rng(seed)
    draws = [statistic(_draw(values, n, rng)) for n in _chunks(resamples)]
    found = np.concatenate(draws, axis=1)
    if samples * seeds < 2:
        return np.full((len(found), 2), np.nan)
    return np.array([_percentiles(row[~np.isnan(row)], level) for row in found])


def score_interval(
    metric: str,
    predictions: Sequence[str],
    references: References,
    *,
    f1_labels: F1Labels = "union",
    labels: Sequence[str] = (),
    resamples: int = 500,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of ``score`` over examples (Efron & Tibshirani, 1993, chapter 13).

    It is about other examples of the same task, not about another training.

    Raises:
        SoftstartError: as ``softstart.gym.metrics.score``.
    """
    rng, scores = random.Random(seed), []
    for _ in range(resamples):
        rows = rng.choices(range(len(predictions)), k=len(predictions))
        drawn = [predictions[i] for i in rows], [references[i] for i in rows]
        scores.append(score(metric, *drawn, f1_labels=f1_labels, labels=labels))
    scores.sort()
    cut = round(0.025 * (resamples - 1))
    return scores[cut], scores[-1 - cut]


def task_means(drawn: Floats) -> Floats:
    """Means over the runs of each task: [V, B, T, I, S] to [V, B, T]; NaN for a task without a run."""
    return mean(drawn.reshape(*drawn.shape[:-2], -1))


def mean(values: Floats) -> Floats:
    """Mean over the last axis of the values that are numbers; NaN where none is."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(values, axis=-1) / (~np.isnan(values)).sum(axis=-1), dtype=np.float64)


def median(values: Floats) -> Floats:
    """Median over the last axis of the values that are numbers (infinity is one); NaN where none is."""
    ordered, n = np.sort(values, axis=-1), (~np.isnan(values)).sum(axis=-1)  # NaN is sorted last
    middle = np.stack([np.maximum(n - 1, 0) // 2, n // 2], axis=-1).clip(max=values.shape[-1] - 1)
    return np.asarray(np.take_along_axis(ordered, middle, axis=-1).mean(axis=-1), dtype=np.float64)


def _percentiles(row: Floats, level: float) -> tuple[float, float]:
    if not len(row):
        return np.nan, np.nan
    tails = [(1 - level) / 2 * 100, (1 + level) / 2 * 100]
    # Linear interpolation between a step and "never" (infinity) would be no number.
    finite = np.isfinite(row).all()
    low, high = np.percentile(row, tails) if finite else np.percentile(row, tails, method="nearest")
    return float(low), float(high)


def _chunks(total: int) -> list[int]:
    full, rest = divmod(total, _CHUNK)
    return [_CHUNK] * full + [rest] * bool(rest)


def _draw(values: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """``values`` [V, T, I, S] drawn anew as [V, resamples, T, I, S]."""
    _, tasks, samples, seeds = values.shape
    available = (~np.isnan(values[0])).any(axis=-1).sum(axis=-1)
    task = rng.integers(tasks, size=(resamples, tasks))
    sample = (rng.random((resamples, tasks, samples)) * available[task][..., None]).astype(int)
    seed = rng.integers(seeds, size=(resamples, seeds))
    drawn = values[:, task[..., None, None], sample[..., None], seed[:, None, None, :]]
    # Drawing as many samples as the best covered task has would make the others look better measured.
    counted = np.arange(samples) < available[task][..., None]
    return np.where(counted[..., None], drawn, np.nan)
