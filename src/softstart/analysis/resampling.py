"""Bootstrap intervals.

The hierarchical bootstrap draws tasks, samples within each task drawn, and meta seeds once for all tasks;
``score_interval`` draws the examples of one test set. ``softstart.analysis.coverage`` measures how often the
intervals hold the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from softstart.analysis.student import expanded_level, t_quantile
from softstart.gym.metrics import F1Labels, References, score
from softstart.registry import Registry

Floats = npt.NDArray[np.float64]

Statistic = Callable[[Floats], Floats]
"""From drawn values [V, B, T, I, S] of B resamples to K numbers for each, [K, B]; see ``numbers``."""

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


class IntervalMethod(Protocol):
    """How intervals are made from results: an entry of ``INTERVALS``."""

    def __call__(
        self, values: Floats, statistic: Statistic, /, *, level: float, resamples: int, seed: int
    ) -> Floats:
        """The ends [K, 2] of the intervals of K statistics; NaN where there is none.

        Args:
            values: the results [V, T, I, S]: V values of T tasks, I samples and S meta seeds, NaN where there
                is no run; at least two runs of a task.
            statistic: what the intervals are of; ``resampled`` gives its draws, and
                ``statistic(values[:, None])`` [K, 1] its value on the results themselves.
            level: the share of cases in which an interval should hold the truth, such as 0.95.
            resamples: how many times results are drawn.
            seed: of the draws; equal seeds give equal intervals.
        """


Kind = Literal["mean", "ratio", "quantile"]
"""Of a number of a statistic: a ``mean`` over tasks, a mean of ``ratio``s, which a few tasks with small
denominators may dominate, or a ``quantile`` or share, of which the jackknife does not estimate the variance
(Efron, 1982, section 3.4)."""


def numbers(*kinds: Kind) -> Callable[[Statistic], Statistic]:
    """Name the kind of every number of a statistic; without it all are means."""

    def mark(statistic: Statistic) -> Statistic:
        statistic.__dict__["kinds"] = kinds
        return statistic

    return mark


INTERVALS: Registry[IntervalMethod] = Registry("interval", accepts=callable)
"""Methods that make intervals, by the name that tables and reports are given."""

DEFAULT_INTERVAL = "studentized"

FEWEST_TASKS = 4
"""With fewer tasks, but more than one, ``studentized`` gives no interval (docs/concepts/intervals.md)."""

_FEWEST_RUNS = 3
_PIVOTS = 2_000
"""Studentized draws: each takes the statistic once more per task and meta seed."""

_HEAVY_TAILS = 0.2
"""How much lighter the tails are whose bootstrap-t quantile a mean of ratios takes. The theory says 1, which
held the truth too rarely with four to ten heavy ratios; this value was chosen in the simulated world
``heavy`` of ``coverage``, so its table flatters it. Worlds it was not chosen in are in
experiments/intervals."""


def intervals(
    values: Floats,
    statistic: Statistic,
    *,
    interval: str = DEFAULT_INTERVAL,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Floats:
    """Intervals [K, 2] of a statistic of ``values`` [V, T, I, S]; NaN with fewer than two runs of a task.

    Args:
        values: see ``IntervalMethod``.
        statistic: see ``IntervalMethod``.
        interval: a name in ``INTERVALS``, or the import path of a function like those.
        level: see ``IntervalMethod``.
        resamples: see ``IntervalMethod``.
        seed: see ``IntervalMethod``.

    Raises:
        SoftstartError: there is no such interval.
    """
    method = INTERVALS.find(interval)
    _, _, samples, seeds = values.shape
    if samples * seeds < 2:
        return np.full((len(statistic(values[:, None])), 2), np.nan)
    return method(values, statistic, level=level, resamples=resamples, seed=seed)


@INTERVALS.register("percentile")
def percentile_intervals(
    values: Floats, statistic: Statistic, *, level: float, resamples: int, seed: int
) -> Floats:
    """Percentiles of the draws (Efron and Tibshirani, 1993, chapter 13); NaN where no draw has a value.

    Too narrow with few tasks: under ten, a nominal 95 % is 84 to 91 % for a mean.
    """
    draws = resampled(values, statistic, resamples, seed)
    return np.array([_percentiles(of_one[~np.isnan(of_one)], level) for of_one in draws])


@INTERVALS.register("expanded")
def expanded_intervals(
    values: Floats, statistic: Statistic, *, level: float, resamples: int, seed: int
) -> Floats:
    """Percentiles further out, as wide as a t interval would be (see ``student.expanded_level``).

    What is counted are tasks; samples, or examples, where there is a single task.
    """
    _, tasks, samples, seeds = values.shape
    units = next(n for n in (tasks, samples, seeds) if n > 1)
    return percentile_intervals(
        values, statistic, level=expanded_level(level, units), resamples=resamples, seed=seed
    )


@INTERVALS.register("studentized")
def studentized_intervals(
    values: Floats, statistic: Statistic, *, level: float, resamples: int, seed: int
) -> Floats:
    """The wider ends of the expanded percentiles and of a t interval; for ratios, of bootstrap-t too.

    The standard error is that of the jackknife over tasks (samples where there is a single task) plus, where
    there are several, over meta seeds; the degrees of freedom are Satterthwaite's. A mean of ratios is
    uncertain on one side, so its t quantile is no smaller than that of a studentized bootstrap (bootstrap-t;
    Efron and Tibshirani, 1993, section 12.5), which takes the same error of every draw. With few skewed
    values that quantile is too small itself; it is the one of a level whose tails are a fifth as heavy, a
    share that was chosen by simulation (``_HEAVY_TAILS``).
    Quantiles and shares (see ``numbers``) have the expanded percentiles alone.

    There is no interval (NaN) with two or three tasks, nor with one task and fewer than three runs.
    """
    _, tasks, samples, seeds = values.shape
    expanded = expanded_intervals(values, statistic, level=level, resamples=resamples, seed=seed)
    if 1 < tasks < FEWEST_TASKS or (tasks == 1 and samples * seeds < _FEWEST_RUNS):
        return np.full_like(expanded, np.nan)
    kinds: Sequence[Kind] = getattr(statistic, "kinds", None) or ["mean"] * len(expanded)
    observed = statistic(values[:, None])[:, 0]
    errors, freedoms = standard_error(values, statistic)
    pivots = _pivots(values, statistic, min(resamples, _PIVOTS), seed) if "ratio" in kinds else None
    for i, kind in enumerate(kinds):
        error, freedom = float(errors[i]), float(freedoms[i])
        if kind == "quantile" or not error > 0 or np.isnan(expanded[i]).any():
            continue
        down = up = t_quantile((1 + level) / 2, freedom)
        if kind == "ratio" and pivots is not None:
            low, high = _percentiles(pivots[i][~np.isnan(pivots[i])], 1 - _HEAVY_TAILS * (1 - level))
            down, up = np.fmax(down, high), np.fmax(up, -low)
        expanded[i] = (
            np.fmin(expanded[i, 0], observed[i] - error * down),
            np.fmax(expanded[i, 1], observed[i] + error * up),
        )
    return expanded


def _pivots(values: Floats, statistic: Statistic, resamples: int, seed: int) -> Floats:
    """Studentized draws [K, resamples]: their distance from the observed value in their own errors."""
    rng, observed, pivots = np.random.default_rng(seed), statistic(values[:, None]), []
    for n in _chunks(resamples):
        drawn = _draw(values, n, rng)
        error = np.sqrt(_variances(drawn, statistic)[0].sum(axis=0))
        # A draw of one task, or one meta seed, again and again has no error and says nothing.
        error[~(error > 0)] = np.nan
        pivots.append((statistic(drawn) - observed) / error)
    return np.concatenate(pivots, axis=1)


def standard_error(values: Floats, statistic: Statistic) -> tuple[Floats, Floats]:
    """Standard errors [K] of a statistic of ``values`` [V, T, I, S] and their degrees of freedom [K].

    Jackknife variances over tasks and, where there are several, over meta seeds, added; the freedom is
    Satterthwaite's.
    """
    parts, freedoms = _variances(values[:, None], statistic)
    of = parts[:, :, 0]  # [axes, K]
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = of.sum(axis=0) ** 2 / (of**2 / freedoms[:, None]).sum(axis=0)
    return np.sqrt(of.sum(axis=0)), np.maximum(1.0, np.round(freedom, 1))


def _variances(drawn: Floats, statistic: Statistic) -> tuple[Floats, Floats]:
    """Jackknife variances [axes, K, B] of a statistic of ``drawn`` [V, B, T, I, S]; their freedoms [axes].

    Axes are tasks (or the samples of a single task) and, where there are several, meta seeds.
    """
    tasks = drawn.shape[2]
    axes = [axis for axis in (2 if tasks > 1 else 3, 4) if drawn.shape[axis] > 1]
    variances = []
    for axis in axes:
        n = drawn.shape[axis]
        without = np.stack([statistic(np.delete(drawn, i, axis=axis)) for i in range(n)])
        with np.errstate(invalid="ignore"):  # a median may be infinite
            variances.append((n - 1) * without.var(axis=0))
    return np.stack(variances), np.array([drawn.shape[axis] - 1.0 for axis in axes])


def resampled(values: Floats, statistic: Statistic, resamples: int, seed: int) -> Floats:
    """Draws [K, resamples] of a statistic of ``values`` [V, T, I, S].

    Tasks are drawn with replacement; within every task drawn its samples; the S meta seeds once for all
    tasks of a resample, since one meta-learned start serves all of them.
    """
    rng = np.random.default_rng(seed)
    return np.concatenate([statistic(_draw(values, n, rng)) for n in _chunks(resamples)], axis=1)


def score_interval(
    metric: str,
    predictions: Sequence[str],
    references: References,
    *,
    f1_labels: F1Labels = "union",
    labels: Sequence[str] = (),
    interval: str = "expanded",
    resamples: int = 500,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of ``softstart.gym.metrics.score`` over examples, in fractions.

    It is about other examples of the same task, not about another training. With a single example both ends
    are its score.

    Raises:
        SoftstartError: as ``softstart.gym.metrics.score`` and ``intervals``.
    """

    def scores(drawn: Floats) -> Floats:
        """Scores [1, B] of drawn examples, given by their numbers [1, B, 1, examples, 1]."""
        return np.array(
            [
                [
                    score(
                        metric,
                        [predictions[i] for i in examples],
                        [references[i] for i in examples],
                        f1_labels=f1_labels,
                        labels=labels,
                    )
                    for examples in drawn[0, :, 0, :, 0].astype(int)
                ]
            ]
        )

    if len(predictions) == 1:
        return (only := score(metric, predictions, references, f1_labels=f1_labels, labels=labels)), only
    # To the bootstrap, examples are the samples of one task.
    which = np.arange(len(predictions), dtype=np.float64)[None, None, :, None]
    ((low, high),) = intervals(which, scores, interval=interval, resamples=resamples, seed=seed)
    return float(low), float(high)


def difference_interval(
    metric: str,
    ours: Sequence[Sequence[str]],
    theirs: Sequence[Sequence[str]],
    references: References,
    *,
    f1_labels: F1Labels = "union",
    labels: Sequence[str] = (),
    resamples: int = 300,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval over examples of the mean difference of two scores of the same test set, in fractions.

    Args:
        metric: a name of ``softstart.gym.metrics``.
        ours: predictions of the examples, once for every training.
        theirs: those they are compared with, training by training.
        references: of the examples.
        f1_labels: as in ``softstart.gym.metrics.score``.
        labels: as in ``softstart.gym.metrics.score``.
        resamples: how many times examples are drawn; each serves all trainings.
        seed: of the draws.

    Returns:
        The expanded percentiles. They are about other examples of the task, not about other trainings.

    Raises:
        SoftstartError: as ``softstart.gym.metrics.score``.
    """

    def differences(drawn: Floats) -> Floats:
        found = []
        for examples in drawn[0, :, 0, :, 0].astype(int):
            answers = [references[i] for i in examples]
            by_training = [
                score(metric, [a[i] for i in examples], answers, f1_labels=f1_labels, labels=labels)
                - score(metric, [b[i] for i in examples], answers, f1_labels=f1_labels, labels=labels)
                for a, b in zip(ours, theirs, strict=True)
            ]
            found.append(sum(by_training) / len(by_training))
        return np.array([found])

    which = np.arange(len(references), dtype=np.float64)[None, None, :, None]
    ((low, high),) = intervals(which, differences, interval="expanded", resamples=resamples, seed=seed)
    return float(low), float(high)


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
