"""Two more ways to make intervals, for comparison: a calibrated bootstrap and a hierarchical model.

Both can be named by their import path wherever an interval is named, such as
``softstart arg --interval experiments.intervals.others.calibrated``.
"""

from __future__ import annotations

import numpy as np

from softstart.analysis.resampling import Floats, Statistic, resampled
from softstart.analysis.student import t_quantile

OUTER, INNER = 100, 200
"""Studies drawn from the results, and draws of each of them."""
LEVELS = np.array([0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 1.0])


def calibrated(values: Floats, statistic: Statistic, *, level: float, resamples: int, seed: int) -> Floats:
    """Percentiles at the level whose intervals held the observed value in enough studies drawn from the
    results (the double bootstrap of Loh, 1987, and Hall, 1986): [K, 2].
    """
    _, tasks, samples, seeds = values.shape
    observed = statistic(values[:, None])[:, 0]
    rng = np.random.default_rng(seed)
    held = np.zeros((len(observed), len(LEVELS)))
    for study in range(OUTER):
        task = rng.integers(tasks, size=tasks)
        sample = rng.integers(samples, size=(tasks, samples))
        drawn = values[:, task[:, None, None], sample[..., None], rng.integers(seeds, size=seeds)]
        draws = resampled(drawn, statistic, INNER, study)
        low, high = _ends(draws, LEVELS)
        held += (low <= observed[:, None]) & (observed[:, None] <= high)
    first = [
        int(np.argmax(of_one >= level * OUTER)) if of_one[-1] >= level * OUTER else -1 for of_one in held
    ]
    low, high = _ends(resampled(values, statistic, resamples, seed), LEVELS)
    return np.array([(low[k, at], high[k, at]) for k, at in enumerate(first)])


def hierarchical(values: Floats, statistic: Statistic, *, level: float, resamples: int, seed: int) -> Floats:
    """A random-effects model: the value of a task is normal around a mean, and its samples around it: [K, 2].

    The variance between tasks is that of Paule and Mandel (1982), the error that of Hartung and Knapp (2001).
    The variance within a task is a jackknife over its samples. Meta seeds are averaged.
    """
    tasks, samples = values.shape[1:3]
    one = [values[:, None, [task]] for task in range(tasks)]
    means = np.stack([statistic(of_task)[:, 0] for of_task in one])  # [T, K]
    without = np.stack(
        [[statistic(np.delete(of_task, i, axis=3))[:, 0] for i in range(samples)] for of_task in one]
    )
    within = (samples - 1) * without.var(axis=1)  # [T, K]
    ends = []
    for k in range(means.shape[1]):
        between = _between(means[:, k], within[:, k])
        weights = 1 / (between + within[:, k]).clip(1e-9)
        mean = float((weights * means[:, k]).sum() / weights.sum())
        spread = (weights * (means[:, k] - mean) ** 2).sum() / weights.sum() / (tasks - 1)
        reach = t_quantile((1 + level) / 2, tasks - 1) * np.sqrt(spread)
        ends.append((mean - reach, mean + reach))
    return np.array(ends)


def _ends(draws: Floats, levels: Floats) -> tuple[Floats, Floats]:
    """Percentiles of draws [K, B] at every level: [K, L] and [K, L]."""
    tails = 50 * (1 - levels)
    return np.percentile(draws, tails, axis=1).T, np.percentile(draws, 100 - tails, axis=1).T


def _between(means: Floats, within: Floats) -> float:
    """The variance between tasks at which the weighted squares are as large as expected, by bisection."""

    def excess(between: float) -> float:
        weights = 1 / (between + within).clip(1e-9)
        center = (weights * means).sum() / weights.sum()
        return float((weights * (means - center) ** 2).sum() - (len(means) - 1))

    low, high = 0.0, float(np.ptp(means) ** 2) + 1.0
    if excess(low) <= 0:
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2
