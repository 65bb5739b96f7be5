"""Average relative gain (ARG): how much better than plain prompt tuning, averaged over target tasks.

For one cell (a setting, method, backbone, prompt length and variant), with S(method, task) the mean test
score over samples,

    gain(task) = 100 (S(method, task) - S(baseline, task)) / S(baseline, task)
    ARG        = mean of gain over tasks

Scores are averaged over samples first: a gain per sample explodes where one baseline score is near zero.
A relative gain needs a positive baseline; where it is zero or negative the gain is NaN, left out of the
means and counted in ``n_undefined``. Near a baseline of zero it has a pole: one more right answer moves it by
thousands of percent. Two gains without a pole stand beside it: the difference in points, and the symmetric
gain, the difference relative to the mean of both scores,

    symmetric gain = 200 (S(method, task) - S(baseline, task)) / (|S(method, task)| + |S(baseline, task)|),

which lies between -200 and 200 percent, is 0 where both are 0, changes its sign when the two are swapped, and
for small gains is the relative gain. Törnqvist, Vartia and Vartia (1985) compare such indicators of relative
change; Davis, Haltiwanger and Schuh (1996) use this one for growth from and to zero.

Functions take a table of results, one row per adapted and tested prompt (the learning rate already
selected on dev), with the columns ``method``, ``task``, ``sample`` and ``test`` (a fraction); ``setting``,
``backbone``, ``prompt_length``, ``budget`` (steps of adaptation allowed; 0, or none, is the full budget),
``variant`` and ``seed`` (of meta-training and of the baseline's start) where they vary; any others are
ignored. The baseline has to be run under the same setting, backbone, prompt length, budget and seeds;
fine-tuning carries the prompt length of the study it belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

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
from softstart.analysis.units import percent, points
from softstart.errors import SoftstartError

CELL = ["setting", "method", "backbone", "prompt_length", "budget", "variant"]
"""The columns that name one cell of a comparison: a method under one protocol, over all target tasks."""

_GROUP = [column for column in CELL if column != "method"]
_RUN = ["sample", "seed"]
_DEFAULTS: dict[str, str | int] = {
    "setting": "custom",
    "backbone": "",
    "prompt_length": 0,
    "budget": 0,
    "variant": "main",
    "seed": 0,
}

Planned = tuple[int, int] | Mapping[str, tuple[int, int]] | Mapping[tuple[str, str], tuple[int, int]]
"""How many tasks a cell should hold and how many runs (samples times meta seeds) a task: for all cells, by
setting, or by setting and variant."""

LIMITS = [
    "low", "high", "median_low", "median_high", "abs_low", "abs_high", "symmetric_low", "symmetric_high",
]  # fmt: skip
"""The limits that ``bootstrap_interval`` gives: of ARG, of the median gain, of the mean gain in points and of
the mean symmetric gain."""

KEPT_ASIDE = ("yelp_onlybs8_backup",)
"""Variants of the published study that are not cells: rows that its author kept out of the tables."""


def relative_gains(rows: pd.DataFrame, baseline: str = "pt") -> pd.DataFrame:
    """The gain of every cell over the baseline, task by task.

    Only runs (sample and meta seed) with a score of both the method and the baseline are averaged.

    >>> import pandas as pd
    >>> from softstart.analysis import relative_gains
    >>> tests = [("pt", "emo", 0.5), ("pt", "trec", 0.4), ("maml", "emo", 0.6), ("maml", "trec", 0.5)]
    >>> rows = pd.DataFrame(tests, columns=["method", "task", "test"]).assign(sample=13)
    >>> gains = relative_gains(rows)
    >>> gains.loc[gains["method"] == "maml", ["task", "gain", "abs_gain"]].round(6)
       task  gain  abs_gain
    0   emo  20.0      10.0
    1  trec  25.0      10.0

    Returns:
        One row per cell and task: the columns of ``CELL``, ``task``, ``score`` and ``baseline`` (mean
        test), ``gain`` (percent, NaN where undefined), ``abs_gain`` (points, 100 times the difference),
        ``symmetric_gain`` (percent), ``tie`` (points: a difference below it is a tie), ``n_samples`` and
        ``n_runs`` (samples, and runs, that were averaged; with 0 all values are NaN).

    Raises:
        SoftstartError: for a missing column, two rows for one run, or no row of the baseline.
    """
    pairs = paired(rows, baseline)
    pairs["sample"] = pairs["sample"].where(pairs["test"].notna())
    by_task = pairs.groupby([*CELL, "task"])
    gains = by_task[["test", "baseline"]].mean()
    gains["n_samples"] = by_task["sample"].nunique()
    gains["n_runs"] = by_task["test"].count()
    difference = gains["test"] - gains["baseline"]
    gains["gain"] = percent(difference / gains["baseline"]).where(gains["baseline"] > 0)
    gains["abs_gain"] = points(difference)
    gains["symmetric_gain"] = symmetric(gains["test"].to_numpy(), gains["baseline"].to_numpy())
    gains["tie"] = points(1 / by_task["test_rows"].min()).fillna(0.0)
    columns = ["score", "baseline", "gain", "abs_gain", "symmetric_gain", "tie", "n_samples", "n_runs"]
    return gains.rename(columns={"test": "score"})[columns].reset_index()


def symmetric(method: Floats, baseline: Floats) -> Floats:
    """Differences relative to the mean of both scores, in percent, element by element; 0 where both are 0."""
    with np.errstate(invalid="ignore"):
        size = (np.abs(method) + np.abs(baseline)) / 2
        ratio = np.where(size == 0, 0.0, (method - baseline) / np.where(size == 0, 1.0, size))
    return np.asarray(percent(ratio), dtype=np.float64)


def average_relative_gain(
    rows: pd.DataFrame, baseline: str = "pt", *, planned: Planned | None = None
) -> pd.DataFrame:
    """ARG of every cell, with what is needed to judge it.

    Args:
        rows: the result table.
        baseline: the method that gains are relative to.
        planned: how complete a cell has to be. By default it is judged by its peers: all tasks that any
            method or the baseline has under the same setting, backbone, prompt length, budget and variant,
            each with as many runs as the best covered.

    Returns:
        One row per cell: the columns of ``CELL``; ``arg``, ``median_relgain`` and ``mean_symmetric_gain``
        (percent), ``mean_abs_gain`` (points); ``n_tasks`` (with a defined gain), ``n_undefined`` (baseline
        not positive), ``n_missing`` (no run in common with the baseline, or no run at all); ``wins``,
        ``ties``, ``losses`` (tasks above, level with, below the baseline; level is a mean difference of less
        than one test row, or of nothing where ``test_rows`` is not known); ``n_samples_min`` and
        ``n_runs_min`` over the
        tasks compared; ``complete`` (False if a task or a run is missing; a gain that is undefined is not).

    Raises:
        SoftstartError: as ``relative_gains``.
    """
    table = canonical(rows)
    gains = relative_gains(table, baseline)
    paired = gains[gains["n_samples"] > 0]
    cells = gains.groupby(CELL)
    size = paired["abs_gain"].abs()
    difference = paired["abs_gain"].where((size > 1e-9) & (size >= paired["tie"] - 1e-9), 0.0)
    summary = pd.DataFrame(
        {
            "arg": cells["gain"].mean(),
            "median_relgain": cells["gain"].median(),
            "mean_abs_gain": cells["abs_gain"].mean(),
            "mean_symmetric_gain": cells["symmetric_gain"].mean(),
            "n_tasks": cells["gain"].count(),
            "n_undefined": paired["gain"].isna().groupby([paired[c] for c in CELL]).sum(),
            "wins": (difference > 0).groupby([paired[c] for c in CELL]).sum(),
            "ties": (difference == 0).groupby([paired[c] for c in CELL]).sum(),
            "losses": (difference < 0).groupby([paired[c] for c in CELL]).sum(),
            "n_samples_min": paired.groupby(CELL)["n_samples"].min(),
            "n_runs_min": paired.groupby(CELL)["n_runs"].min(),
        }
    ).reset_index()
    counts = ["n_undefined", "wins", "ties", "losses", "n_samples_min", "n_runs_min"]
    summary[counts] = summary[counts].fillna(0).astype(int)
    plan = summary.merge(_coverage(table, baseline), on=_GROUP, how="left")
    tasks, runs = plan["tasks"], plan["runs"]
    if isinstance(planned, Mapping):
        by_key: Mapping[Any, tuple[int, int]] = planned
        keys = zip(plan["setting"], plan["variant"], strict=True)
        sizes = [by_key.get(key, by_key.get(key[0], (np.nan, np.nan))) for key in keys]
        known = pd.DataFrame(sizes, plan.index, ["tasks", "runs"])
        tasks, runs = known["tasks"].fillna(tasks), known["runs"].fillna(runs)
    elif planned is not None:
        tasks, runs = (plan["setting"].map(lambda _, n=n: n) for n in planned)
    summary["n_missing"] = (tasks - summary["n_tasks"] - summary["n_undefined"]).astype(int)
    summary["complete"] = (summary["n_missing"] == 0) & (summary["n_runs_min"] == runs)
    return summary


def bootstrap_interval(
    rows: pd.DataFrame,
    baseline: str = "pt",
    *,
    interval: str = DEFAULT_INTERVAL,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Bootstrap intervals of ARG, resampling tasks and, within every task drawn, its samples.

    Method and baseline stay paired. Where there are several meta seeds they are resampled too, once for
    all tasks of a resample, since one meta-learned start serves all of them; with a single meta seed the
    interval says nothing about another. A cell's interval does not depend on the other cells. How often
    intervals hold the truth is in docs/concepts/intervals.md.

    Args:
        rows: the result table.
        baseline: the method that gains are relative to.
        interval: how ends are made from the draws, a name in ``softstart.analysis.INTERVALS`` or an import
            path.
        level: the share of cases in which an interval should hold the truth.
        resamples: how many times results are drawn.
        seed: of the draws.

    Returns:
        One row per cell: the columns of ``CELL`` and ``LIMITS``: ``low`` and ``high`` of ARG (percent),
        ``median_low`` and ``median_high`` of the median gain (percent), ``abs_low`` and ``abs_high`` of the
        mean gain in points, ``symmetric_low`` and ``symmetric_high`` of the mean symmetric gain (percent);
        NaN where the interval says nothing (too few tasks or runs) or no gain is defined.

    Raises:
        SoftstartError: as ``relative_gains``, or for an unknown ``interval``.
    """
    pairs = paired(rows, baseline)
    limits = []
    for cell, runs in pairs.groupby(CELL):
        scores = dense(runs.dropna(subset=["test", "baseline"]), ["test", "baseline"])
        options: dict[str, Any] = {
            "interval": interval,
            "level": level,
            "resamples": resamples,
            "seed": seed,
        }
        ends = intervals(scores, gain_statistics, **options)
        defined = task_means(scores)[1] > 0
        if not defined.all():
            # Relative gains are a mean over fewer tasks, and as uncertain as one.
            ends[:2] = (
                intervals(scores[:, defined], gain_statistics, **options)[:2] if defined.any() else np.nan
            )
        limits.append((*cell, *ends.ravel()))
    return pd.DataFrame(limits, columns=[*CELL, *LIMITS])


def arg_table(
    rows: pd.DataFrame,
    baseline: str = "pt",
    *,
    planned: Planned | None = None,
    interval: str = DEFAULT_INTERVAL,
    seed: int = 0,
) -> pd.DataFrame:
    """``average_relative_gain``, joined with the 95 % intervals of ``bootstrap_interval``.

    With fewer than four tasks there is no interval (see ``softstart.analysis.resampling``):

    >>> import pandas as pd
    >>> from softstart.analysis import arg_table
    >>> tests = [("pt", "emo", 0.5), ("pt", "trec", 0.4), ("maml", "emo", 0.6), ("maml", "trec", 0.5)]
    >>> rows = pd.DataFrame(tests, columns=["method", "task", "test"])
    >>> table = arg_table(pd.concat([rows.assign(sample=13), rows.assign(sample=21)]))
    >>> table.loc[table["method"] == "maml", ["method", "arg", "low", "high", "wins", "losses"]].round(6)
      method   arg  low  high  wins  losses
    0   maml  22.5  NaN   NaN     2       0

    Raises:
        SoftstartError: as ``relative_gains``.
    """
    summary = average_relative_gain(rows, baseline, planned=planned)
    table = summary.merge(bootstrap_interval(rows, baseline, interval=interval, seed=seed), on=CELL)
    front = [*CELL, "arg", "low", "high"]
    return table[[*front, *(column for column in table if column not in front)]]


def influence(gains: pd.DataFrame) -> pd.DataFrame:
    """How much each task carries: ARG of its cell without it.

    Args:
        gains: what ``relative_gains`` returns.

    Returns:
        One row per cell and task with a defined gain: the columns of ``CELL``, ``task``, ``gain``,
        ``arg_without`` (percent; NaN for the only task) and ``change`` (``arg_without`` minus ARG).
    """
    table = gains.loc[gains["gain"].notna(), [*CELL, "task", "gain"]].reset_index(drop=True)
    cells = table.groupby(CELL)["gain"]
    total, n = cells.transform("sum"), cells.transform("count")
    without = (total - table["gain"]) / (n - 1).where(n > 1)
    return table.assign(arg_without=without, change=without - total / n)


def largest_budget(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of every method at its largest budget (0: full), under the largest of their group.

    So methods with other budgets than the baseline's (fine-tuning) stay in the comparison.
    """
    table = table.reset_index(drop=True)
    order = table["budget"].where(table["budget"] > 0, np.inf)
    group = [table[column] for column in _GROUP if column != "budget"]
    kept = table[order == order.groupby([*group, table["method"]]).transform("max")]
    common = order.groupby(group).transform("max").loc[kept.index]
    return kept.assign(budget=common.where(np.isfinite(common), 0).astype(int))


def with_defaults(rows: pd.DataFrame) -> pd.DataFrame:
    """The table with every column that names a run, under our names: those it lacks get a constant.

    Raises:
        SoftstartError: for a missing ``method``, ``task``, ``sample`` (or ``split_seed``) or ``test``, or a
            row that names no method, task or sample.
    """
    if "sample" not in rows and "split_seed" in rows:
        rows = rows.rename(columns={"split_seed": "sample"})
    if missing := [column for column in ("method", "task", "sample", "test") if column not in rows]:
        raise SoftstartError(
            f"result table lacks the columns {', '.join(missing)}",
            fix="It needs one row per run with method, task, sample (or split_seed) and test.",
        )
    unnamed = rows[["method", "task", "sample"]].isna().to_numpy()
    if unnamed.any():
        row, column = np.argwhere(unnamed)[0]
        raise SoftstartError(
            f"row {row + 1} of the result table names no {('method', 'task', 'sample')[column]}",
            fix="Fix the row, or delete it.",
        )
    rows = rows.assign(**{column: value for column, value in _DEFAULTS.items() if column not in rows})
    try:
        return rows.fillna(_DEFAULTS).astype({"budget": int})
    except (ValueError, TypeError, OverflowError) as error:
        raise SoftstartError(
            f"column budget holds something that is no number of steps ({error})", fix="Fix those rows."
        ) from None


def canonical(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns that gains need, validated, with numeric test scores and without ``KEPT_ASIDE``.

    Raises:
        SoftstartError: for a missing column, two rows for one run, or a score that is no finite number.
    """
    table = with_defaults(rows)
    # The size of the test set, where it is known, says what a tie is.
    table = table.assign(test_rows=pd.to_numeric(table["test_rows"]) if "test_rows" in table else np.nan)
    table = table[[*CELL, "task", *_RUN, "test", "test_rows"]]
    table = table[~table["variant"].isin(KEPT_ASIDE)]
    try:
        table = table.assign(test=pd.to_numeric(table["test"]).astype(float))
    except (ValueError, TypeError) as error:
        raise SoftstartError(f"column test holds something that is not a number ({error})") from None
    if infinite := np.isinf(table["test"]).sum():
        raise SoftstartError(
            f"column test holds {infinite} scores that are not finite",
            fix="Fix those rows, or leave them empty where there is no score.",
        )
    repeated = table[table.duplicated([*CELL, "task", *_RUN])]
    if len(repeated):
        first = repeated.iloc[0]
        raise SoftstartError(
            f"several rows for one run: {first['method']} on {first['task']}, sample {first['sample']}",
            fix="Keep the row whose learning rate was selected on dev.",
        )
    return table


def paired(rows: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Every run's ``test`` joined with the ``baseline``'s; both NaN where one has none.

    Raises:
        SoftstartError: as ``relative_gains``.
    """
    pairs = with_baseline(canonical(rows), baseline, ["test"]).rename(columns={"test_baseline": "baseline"})
    both = pairs["test"].notna() & pairs["baseline"].notna()
    return pairs.assign(test=pairs["test"].where(both), baseline=pairs["baseline"].where(both))


def with_baseline(table: pd.DataFrame, baseline: str, values: Sequence[str]) -> pd.DataFrame:
    """Every run joined with the baseline's run of the same cell, task, sample and meta seed.

    Args:
        table: one row per run, with every column that ``with_defaults`` gives and the columns ``values``.
        baseline: the method that runs are compared with.
        values: the columns to take from its run, with ``_baseline`` added to their names; NaN without a run.

    Raises:
        SoftstartError: no row of the baseline.
    """
    base = table[table["method"] == baseline]
    if base.empty:
        methods = ", ".join(sorted(map(str, table["method"].unique())))
        raise SoftstartError(f"no rows of the baseline '{baseline}'", fix=f"The table has: {methods}.")
    base = base.rename(columns={**_COMPARED, **{value: f"{value}_baseline" for value in values}})
    table = table.assign(baseline_variant=_same_or(table, base, "variant", "main"))
    table = table.assign(baseline_budget=_same_or(table, base, "budget", _largest(base)))
    keys = [*_FIXED, *_COMPARED.values(), "task", *_RUN]
    columns = [*keys, *(f"{value}_baseline" for value in values)]
    return table.merge(base[columns], on=keys, how="left").drop(columns=[*_COMPARED.values()])


_FIXED = ["setting", "backbone", "prompt_length"]
_COMPARED = {"variant": "baseline_variant", "budget": "baseline_budget"}


def _same_or(table: pd.DataFrame, base: pd.DataFrame, column: str, other: object) -> pd.Series:
    """The value of ``column`` in the baseline's runs that each row is compared with.

    It is the row's own value if the baseline was run with it, else ``other``. Variants: an ablation of the
    target side (fewer shots, another prompt length) changes the baseline too, so the baseline is run again;
    one of the source side (which tasks, how many rows) does not and is compared with "main". This is the
    published choice. Budgets: a method with other budgets (fine-tuning) is compared with the baseline's
    largest.
    """
    of_rows = pd.MultiIndex.from_frame(table[[*_FIXED, column]])
    of_baseline = pd.MultiIndex.from_frame(base[[*_FIXED, _COMPARED[column]]])
    return table[column].where(of_rows.isin(of_baseline), other)


def _largest(base: pd.DataFrame) -> int:
    budgets = base["baseline_budget"]
    return 0 if (budgets == 0).any() else int(budgets.max())


def with_main_baseline(table: pd.DataFrame, baseline: str, group: list[str]) -> pd.DataFrame:
    """The table with the ``baseline`` of main repeated under every variant without runs of the baseline.

    Args:
        table: one row per run, with the columns ``group`` and ``method``.
        baseline: the method.
        group: the columns within which methods are compared, ``variant`` among them.
    """
    base = table[table["method"] == baseline]
    main = base[base["variant"] == "main"].drop(columns="variant")
    groups = table[group].drop_duplicates()
    has_baseline = pd.MultiIndex.from_frame(groups).isin(pd.MultiIndex.from_frame(base[group]))
    return pd.concat([table, groups[~has_baseline].merge(main, on=[c for c in group if c != "variant"])])


def _coverage(table: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """For each group of cells the tasks of any method or the baseline, and the most runs that a task has."""
    everything = with_main_baseline(table, baseline, _GROUP)
    runs = everything.groupby([*_GROUP, "method", "task"]).size()
    tasks = everything.groupby(_GROUP)["task"].nunique()
    return pd.DataFrame({"tasks": tasks, "runs": runs.groupby(level=_GROUP).max()}).reset_index()


@numbers("ratio", "quantile", "mean", "mean")
def gain_statistics(drawn: Floats) -> Floats:
    """ARG and median gain (percent), mean gain (points) and mean symmetric gain (percent) of drawn scores
    [2, B, T, I, S], as [4, B].
    """
    method, baseline = task_means(drawn)
    difference_points = points(method - baseline)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain_percent = np.where(baseline > 0, difference_points / baseline, np.nan)
    bounded = symmetric(method, baseline)
    return np.stack([mean(gain_percent), median(gain_percent), mean(difference_points), mean(bounded)])
