"""What console, page and files share: the cells of a comparison, their names and their order."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from softstart.analysis import CELL, compare_methods, with_defaults
from softstart.report.style import MethodStyles

Grid = tuple[list[str], list[list[str]]]
"""Header and rows of a table, as text."""

NEAR_ZERO = 0.05
"""Below this score of the baseline a relative gain is large whatever happens: at a score of .05 on 200 rows,
one more right answer is a tenth of it. What is said of a comparison then rests on points."""

GROUP = [column for column in CELL if column != "method"]


@dataclass(frozen=True)
class Score:
    """Test scores of one method on one task over ``n`` runs that have one (``n_nan`` have none): fractions.

    ``mean`` is NaN without a score, ``std`` (of the runs) with fewer than two; ``runs`` are all keys.
    """

    mean: float
    std: float
    n: int
    n_nan: int
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Interval:
    """The two ends of an interval; both NaN where there is none."""

    low: float = math.nan
    high: float = math.nan

    @property
    def excludes_zero(self) -> bool:
        """Whether all of it lies on one side of zero."""
        return self.low > 0 or self.high < 0

    @property
    def known(self) -> bool:
        """Whether there is one."""
        return not (math.isnan(self.low) or math.isnan(self.high))


@dataclass(frozen=True)
class Gain:
    """One row of ``softstart.analysis.arg_table``, with the paired tests where the row has them.

    ``arg``, ``median`` and ``symmetric`` are in percent, ``mean_points`` is in points; each has its interval.
    ``record`` counts tasks above, level with and below the baseline; ``p`` and ``p_holm`` are NaN if unknown.
    """

    arg: float
    arg_interval: Interval
    median: float
    median_interval: Interval
    mean_points: float
    points_interval: Interval
    symmetric: float
    symmetric_interval: Interval
    n_tasks: int
    n_undefined: int
    n_missing: int
    record: tuple[int, int, int]
    complete: bool
    p: float
    p_holm: float


@dataclass(frozen=True)
class Pair:
    """One method against another over the tasks both have: the mean difference in points, and its test."""

    difference_points: float
    n_tasks: int
    p_holm: float


@dataclass(frozen=True)
class TaskFacts:
    """What a task's scores are: its metric ("" if unknown) and its shots k (0 if unknown)."""

    metric: str
    shots: int


@dataclass(frozen=True)
class Comparison:
    """One group of cells: what is compared under one setting, backbone, prompt length, budget and variant.

    ``key`` holds the values of ``GROUP``; ``scores`` is by (task, method), ``arg`` by method, ``gains`` by
    (task, method) in percent, ``baseline`` by task: the baseline's mean test score (a fraction) on the runs
    compared, the highest where those differ.
    """

    key: tuple[object, ...]
    name: str
    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    scores: Mapping[tuple[str, str], Score]
    arg: Mapping[str, Gain]
    gains: Mapping[tuple[str, str], float]
    baseline: Mapping[str, float]
    blind: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """By task, what its classes score without reading: (chance, majority), fractions, where known."""
    facts: Mapping[str, TaskFacts] = field(default_factory=dict)
    """By task, its metric and shots."""
    pairs: Mapping[tuple[str, str], Pair] = field(default_factory=dict)
    """By (method, other), in both directions, how far they are apart."""

    def mean(self, method: str) -> float:
        """The mean over tasks of a method's mean test scores (a fraction); NaN where a task is missing."""
        means = [s.mean for task in self.tasks if (s := self.scores.get((task, method)))]
        return sum(means) / len(means) if len(means) == len(self.tasks) else math.nan

    def at_chance(self) -> list[tuple[str, str, float]]:
        """(method, task, the better of chance and majority) where a mean score is not above that."""
        return [
            (method, task, max(self.blind[task]))
            for method in self.methods
            for task in self.tasks
            if task in self.blind
            and (s := self.scores.get((task, method)))
            and s.mean <= max(self.blind[task])
        ]

    @property
    def near_zero(self) -> tuple[str, ...]:
        """The tasks whose baseline is so low that a relative gain says nothing."""
        return tuple(sorted(task for task, score in self.baseline.items() if score < NEAR_ZERO))

    def is_best(self, task: str, method: str) -> bool:
        """Whether no method has a higher mean on this task."""
        means = [s.mean for m in self.methods if (s := self.scores.get((task, m))) and s.n]
        return bool(means) and self.scores[task, method].mean >= max(means) - 1e-11


def comparisons(
    rows: pd.DataFrame, arg: pd.DataFrame, styles: MethodStyles, gains: pd.DataFrame | None = None
) -> Iterator[Comparison]:
    """Split result rows, ARG table and gains into groups of comparable cells, in order of appearance."""
    rows = with_defaults(rows)
    tests = compare_methods(rows, styles.baseline)
    if "run" not in rows:
        rows = rows.assign(run="")
    rows = rows.assign(test=pd.to_numeric(rows["test"]))
    names = group_names(rows)
    for key, group in rows.groupby(GROUP, sort=False):
        no_gains = pd.DataFrame(columns=["task", "method", "gain", "baseline"])
        group_gains = no_gains if gains is None or gains.empty else _of_group(gains, key)
        yield Comparison(
            key,
            names[key],
            styles.in_order(group["method"]),
            tuple(sorted(map(str, group["task"].unique()))),
            {(str(t), str(m)): _score(cell) for (t, m), cell in group.groupby(["task", "method"])},
            {str(row["method"]): gain_of(row) for row in _of_group(arg, key).to_dict("records")},
            {
                (str(row["task"]), str(row["method"])): float(row["gain"])
                for row in group_gains.to_dict("records")
            },
            {
                str(task): float(score)
                for task, score in group_gains.groupby("task")["baseline"].max().items()
            },
            blind=_blind(group),
            facts=_facts(group),
            pairs=_pairs(_of_group(tests, key)),
        )


def _pairs(tests: pd.DataFrame) -> dict[tuple[str, str], Pair]:
    """Every pair of a group by its methods, in both directions."""
    pairs = {}
    for row in tests.to_dict("records"):
        method, other = str(row["method"]), str(row["other"])
        apart, n, p = float(row["difference_points"]), int(row["n_tasks"]), float(row["p_holm"])
        pairs[method, other], pairs[other, method] = Pair(apart, n, p), Pair(-apart, n, p)
    return pairs


def _facts(group: pd.DataFrame) -> dict[str, TaskFacts]:
    """Metric and shots of every task, where the rows have them."""
    group = group.reindex(columns=["task", "metric", "shots"])
    metric, shots = group["metric"].astype(object).fillna(""), group["shots"].astype(float).fillna(0)
    first = group.assign(metric=metric, shots=shots)
    return {
        str(row["task"]): TaskFacts(str(row["metric"]), int(row["shots"]))
        for row in first.drop_duplicates("task").to_dict("records")
    }


def gain_of(row: Mapping[Hashable, Any]) -> Gain:
    """A row of the ARG table; intervals and p-values that it lacks are NaN."""

    def ends(prefix: str) -> Interval:
        return Interval(*(float(row.get(f"{prefix}{end}", math.nan)) for end in ("low", "high")))

    return Gain(
        arg=float(row["arg"]),
        arg_interval=ends(""),
        median=float(row["median_relgain"]),
        median_interval=ends("median_"),
        mean_points=float(row["mean_abs_gain"]),
        points_interval=ends("abs_"),
        symmetric=float(row.get("mean_symmetric_gain", math.nan)),
        symmetric_interval=ends("symmetric_"),
        n_tasks=int(row["n_tasks"]),
        n_undefined=int(row["n_undefined"]),
        n_missing=int(row["n_missing"]),
        record=(int(row["wins"]), int(row["ties"]), int(row["losses"])),
        complete=bool(row["complete"]),
        p=float(row.get("p", math.nan)),
        p_holm=float(row.get("p_holm", math.nan)),
    )


def group_names(rows: pd.DataFrame) -> dict[tuple[object, ...], str]:
    """A title for every group of cells; prompt length, budget and variant where groups differ in them."""
    groups = rows[GROUP].drop_duplicates()
    varies = {column: groups[column].nunique() > 1 for column in GROUP}
    names: dict[tuple[object, ...], str] = {}
    for key in groups.itertuples(index=False, name=None):
        setting, backbone, length, budget, variant = key
        parts = [str(setting), str(backbone)]
        if varies["prompt_length"]:
            parts.append(f"prompt length {length}")
        if varies["budget"]:
            parts.append(f"{budget} steps" if budget else "full budget")
        if varies["variant"] and variant != "main":
            parts.append(str(variant))
        names[key] = " · ".join(part for part in parts if part)
    return names


def by_group(table: pd.DataFrame, *, without: str | None = None) -> Iterator[tuple[str, pd.DataFrame]]:
    """The groups of a table that holds the columns of ``CELL``, each under its title, in order of appearance.

    Args:
        table: one row per cell, or more.
        without: a column that does not separate groups.
    """
    joined = table if without is None else table.assign(**{without: table[without].iloc[0]})
    names = group_names(joined)
    for key, part in joined.groupby(GROUP, sort=False):
        yield names[key], table.loc[part.index]


def _score(cell: pd.DataFrame) -> Score:
    n = int(cell["test"].count())
    runs = tuple(str(run) for run in cell["run"])
    return Score(float(cell["test"].mean()), float(cell["test"].std()), n, len(cell) - n, runs)


def _blind(group: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Chance and majority of every task that has both."""
    if not {"chance", "majority"} <= set(group):
        return {}
    known = group.groupby("task")[["chance", "majority"]].first().dropna()
    return {str(task): (float(row["chance"]), float(row["majority"])) for task, row in known.iterrows()}


def _of_group(table: pd.DataFrame, key: tuple[object, ...]) -> pd.DataFrame:
    """The rows of one group; a table without group columns belongs to every group."""
    for column, value in zip(GROUP, key, strict=True):
        if column in table:
            table = table[table[column] == value]
    return table
