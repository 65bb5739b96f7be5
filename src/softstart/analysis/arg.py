"""Average relative gain (ARG): how much better than plain prompt tuning, averaged over target tasks.

For one cell (a setting, method, backbone, prompt length and variant), with S(method, task) the mean test
score over samples,

    gain(task) = 100 (S(method, task) - S(baseline, task)) / S(baseline, task)
    ARG        = mean of gain over tasks

Scores are averaged over samples first: a gain per sample explodes where one baseline score is near zero.
A relative gain needs a positive baseline; where it is zero or negative the gain is NaN, left out of the
means and counted in ``n_undefined``.

Functions take a table of results, one row per adapted and tested prompt (the learning rate already
selected on dev), with the columns ``method``, ``task``, ``sample`` and ``test`` (a fraction); ``setting``,
``backbone``, ``prompt_length``, ``variant`` and ``seed`` (of meta-training and of the baseline's start)
where they vary; any others are ignored. The baseline has to be run under the same setting, backbone, prompt
length and seeds; fine-tuning carries the prompt length of the study it belongs to.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from softstart.errors import SoftstartError

Floats = npt.NDArray[np.float64]

CELL = ["setting", "method", "backbone", "prompt_length", "variant"]
"""The columns that name one cell of a comparison: a method under one protocol, over all target tasks."""

_GROUP = [column for column in CELL if column != "method"]
_RUN = ["sample", "seed"]
_DEFAULTS: dict[str, str | int] = {
    "setting": "custom",
    "backbone": "",
    "prompt_length": 0,
    "variant": "main",
    "seed": 0,
}

KEPT_ASIDE = ("yelp_onlybs8_backup",)
"""Variants of the published study that are no cells: rows which its author kept beside the tables."""


def relative_gains(rows: pd.DataFrame, baseline: str = "pt") -> pd.DataFrame:
    """The gain of every cell over the baseline, task by task.

    Only runs (sample and meta seed) that have a score on both sides are averaged.

    Returns:
        One row per cell and task: the columns of ``CELL``, ``task``, ``score`` and ``baseline`` (mean
        test), ``gain`` (percent, NaN where undefined), ``abs_gain`` (points, 100 times the difference),
        ``n_samples`` and ``n_runs`` (samples, and runs, that were averaged; with 0 all values are NaN).

    Raises:
        SoftstartError: for a missing column, two rows for one run, or no row of the baseline.
    """
    pairs = _pairs(_canonical(rows), baseline)
    pairs["sample"] = pairs["sample"].where(pairs["test"].notna())
    by_task = pairs.groupby([*CELL, "task"])
    gains = by_task[["test", "baseline"]].mean()
    gains["n_samples"] = by_task["sample"].nunique()
    gains["n_runs"] = by_task["test"].count()
    difference = gains["test"] - gains["baseline"]
    gains["gain"] = (difference / gains["baseline"] * 100).where(gains["baseline"] > 0)
    gains["abs_gain"] = difference * 100
    columns = ["score", "baseline", "gain", "abs_gain", "n_samples", "n_runs"]
    return gains.rename(columns={"test": "score"})[columns].reset_index()


def average_relative_gain(
    rows: pd.DataFrame, baseline: str = "pt", *, planned: tuple[int, int] | None = None
) -> pd.DataFrame:
    """ARG of every cell, with what one needs to know to trust it.

    Args:
        rows: the result table.
        baseline: the method that gains are relative to.
        planned: how many tasks a cell should hold, and how many runs (samples times meta seeds) a task. By
            default a cell is judged by its peers: all tasks that any method or the baseline has under the
            same setting, backbone, prompt length and variant, each with as many runs as the best covered.

    Returns:
        One row per cell: the columns of ``CELL``; ``arg`` and ``median_relgain`` (percent),
        ``mean_abs_gain`` (points); ``n_tasks`` (with a defined gain), ``n_undefined`` (baseline not
        positive), ``n_missing`` (no run in common with the baseline, or no run at all); ``wins``, ``ties``,
        ``losses`` (tasks above, equal to, below the baseline); ``n_samples_min`` and ``n_runs_min`` over the
        tasks compared; ``complete`` (False if a task or a run is missing; a gain that is undefined is not).

    Raises:
        SoftstartError: as ``relative_gains``.
    """
    table = _canonical(rows)
    gains = relative_gains(table, baseline)
    paired = gains[gains["n_samples"] > 0]
    cells = gains.groupby(CELL)
    difference = paired["abs_gain"].where(paired["abs_gain"].abs() > 1e-9, 0.0)
    summary = pd.DataFrame(
        {
            "arg": cells["gain"].mean(),
            "median_relgain": cells["gain"].median(),
            "mean_abs_gain": cells["abs_gain"].mean(),
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
    tasks, runs = (plan["tasks"], plan["runs"]) if planned is None else planned
    summary["n_missing"] = tasks - summary["n_tasks"] - summary["n_undefined"]
    summary["complete"] = (summary["n_missing"] == 0) & (summary["n_runs_min"] == runs)
    return summary


def bootstrap_interval(
    rows: pd.DataFrame,
    baseline: str = "pt",
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Percentile intervals of ARG, resampling tasks and, within every task drawn, its samples.

    Method and baseline stay paired. Where there are several meta seeds they are resampled too, once for
    all tasks of a resample, since one meta-learned start serves all of them; with a single meta seed the
    interval says nothing about another. A cell's interval does not depend on the other cells.

    Returns:
        One row per cell: the columns of ``CELL``, ``low`` and ``high`` (percent; NaN with fewer than two
        runs or no defined gain).

    Raises:
        SoftstartError: as ``relative_gains``.
    """
    pairs = _pairs(_canonical(rows), baseline)
    tails = [(1 - level) / 2 * 100, (1 + level) / 2 * 100]
    intervals = []
    for cell, runs in pairs.groupby(CELL):
        scores = _dense(runs.dropna())
        low = high = np.nan
        if scores.shape[1] * scores.shape[2] > 1:
            args = _resampled_args(scores, resamples, np.random.default_rng(seed))
            if np.isfinite(args).any():
                low, high = np.nanpercentile(args, tails)
        intervals.append((*cell, low, high))
    return pd.DataFrame(intervals, columns=[*CELL, "low", "high"])


def arg_table(
    rows: pd.DataFrame, baseline: str = "pt", *, planned: tuple[int, int] | None = None, seed: int = 0
) -> pd.DataFrame:
    """``average_relative_gain`` with the 95 % interval of ``bootstrap_interval`` beside ``arg``."""
    summary = average_relative_gain(rows, baseline, planned=planned)
    table = summary.merge(bootstrap_interval(rows, baseline, seed=seed), on=CELL)
    front = [*CELL, "arg", "low", "high"]
    return table[[*front, *(column for column in table if column not in front)]]


def with_defaults(rows: pd.DataFrame) -> pd.DataFrame:
    """The table with every column that names a run, under our names: those it lacks get a constant.

    Raises:
        SoftstartError: for a missing ``method``, ``task``, ``sample`` (or ``split_seed``) or ``test``.
    """
    if "sample" not in rows and "split_seed" in rows:
        rows = rows.rename(columns={"split_seed": "sample"})
    if missing := [column for column in ("method", "task", "sample", "test") if column not in rows]:
        raise SoftstartError(
            f"result table lacks the columns {', '.join(missing)}",
            mend="It needs one row per run with method, task, sample (or split_seed) and test.",
        )
    rows = rows.assign(**{column: value for column, value in _DEFAULTS.items() if column not in rows})
    return rows.fillna(_DEFAULTS)


def _canonical(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns that gains need, validated; numeric test scores; no rows kept aside."""
    table = with_defaults(rows)[[*CELL, "task", *_RUN, "test"]]
    table = table[~table["variant"].isin(KEPT_ASIDE)]
    try:
        table = table.assign(test=pd.to_numeric(table["test"]).astype(float))
    except (ValueError, TypeError) as error:
        raise SoftstartError(f"column test holds something that is no number ({error})") from None
    repeated = table[table.duplicated([*CELL, "task", *_RUN])]
    if len(repeated):
        first = repeated.iloc[0]
        raise SoftstartError(
            f"several rows for one run: {first['method']} on {first['task']}, sample {first['sample']}",
            mend="Keep the row whose learning rate was selected on dev.",
        )
    return table


def _pairs(table: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Every run beside the baseline's run on the same task, sample and meta seed; NaN where it has none."""
    base = table[table["method"] == baseline]
    if base.empty:
        methods = ", ".join(sorted(map(str, table["method"].unique())))
        raise SoftstartError(f"no rows of the baseline '{baseline}'", mend=f"The table has: {methods}.")
    base = base.rename(columns={"variant": "baseline_variant", "test": "baseline"}).drop(columns="method")
    table = table.assign(baseline_variant=_baseline_variant(table, base))
    keys = [*(c for c in _GROUP if c != "variant"), "baseline_variant", "task", *_RUN]
    pairs = table.merge(base, on=keys, how="left").drop(columns="baseline_variant")
    both = pairs["test"].notna() & pairs["baseline"].notna()
    return pairs.assign(test=pairs["test"].where(both), baseline=pairs["baseline"].where(both))


def _baseline_variant(table: pd.DataFrame, base: pd.DataFrame) -> pd.Series:
    """Which variant of the baseline each row is held against: its own if that was run, else "main".

    An ablation of the target side (fewer shots, another prompt length) changes the baseline too and has
    its own; one of the source side (which tasks, how many rows) does not. This gives the published choice.
    """
    own = pd.MultiIndex.from_frame(table[_GROUP])
    run = pd.MultiIndex.from_frame(base[[*_GROUP[:-1], "baseline_variant"]])
    return table["variant"].where(own.isin(run), "main")


def _coverage(table: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """For each group of cells: how many tasks, and at most runs a task, any method or the baseline has."""
    base = table[table["method"] == baseline]
    main = base[base["variant"] == "main"].drop(columns="variant")
    groups = table[_GROUP].drop_duplicates()
    own = pd.MultiIndex.from_frame(groups).isin(pd.MultiIndex.from_frame(base[_GROUP]))
    everything = pd.concat([table, groups[~own].merge(main, on=_GROUP[:-1])])
    runs = everything.groupby([*_GROUP, "method", "task"]).size()
    tasks = everything.groupby(_GROUP)["task"].nunique()
    return pd.DataFrame({"tasks": tasks, "runs": runs.groupby(level=_GROUP).max()}).reset_index()


def _dense(runs: pd.DataFrame) -> Floats:
    """The scores of one cell as [2, tasks, samples, seeds], method and baseline; NaN where there is no run.

    Samples are ranked within each task, so that the first ones are those it has.
    """
    task = runs["task"].astype("category").cat.codes.to_numpy()
    sample = runs.groupby("task")["sample"].rank(method="dense").astype(int).to_numpy() - 1
    seed = runs["seed"].astype("category").cat.codes.to_numpy()
    shape = tuple(int(index.max(initial=-1)) + 1 for index in (task, sample, seed))
    scores: Floats = np.full((2, *shape), np.nan)
    scores[:, task, sample, seed] = runs[["test", "baseline"]].to_numpy().T
    return scores


def _resampled_args(scores: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """ARG of every resample of ``scores`` [2, T, I, S], as [resamples]."""
    _, tasks, samples, seeds = scores.shape
    available = (~np.isnan(scores[0])).any(axis=-1).sum(axis=-1)
    task = rng.integers(tasks, size=(resamples, tasks))
    sample = (rng.random((resamples, tasks, samples)) * available[task][..., None]).astype(int)
    seed = rng.integers(seeds, size=(resamples, seeds))
    # Drawing as many samples as the best covered task has would make the others look better measured.
    counted = np.arange(samples) < available[task][..., None]
    drawn = scores[:, task[..., None, None], sample[..., None], seed[:, None, None, :]]
    drawn = np.where(counted[..., None], drawn, np.nan)
    n = (~np.isnan(drawn[0])).sum(axis=(-1, -2))
    with np.errstate(divide="ignore", invalid="ignore"):
        method, baseline = np.nansum(drawn, axis=(-1, -2)) / n
        gain = np.where(baseline > 0, (method - baseline) / baseline * 100, np.nan)
        defined = ~np.isnan(gain)
        return np.asarray(np.nansum(gain, axis=-1) / defined.sum(axis=-1), dtype=np.float64)
