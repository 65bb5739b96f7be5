"""What console and page share: the cells of a comparison, their order, and how numbers are written."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from softstart.analysis import CELL, with_defaults

Grid = tuple[list[str], list[list[str]]]
"""Header and rows of a table, as text."""

GROUP = [column for column in CELL if column != "method"]

LABELS = {
    "pt": "PT",
    "ft": "FT",
    "multitask": "Multi-task",
    "multi": "Multi-task",
    "maml": "MAML",
    "fomaml": "FoMAML",
    "reptile": "Reptile",
    "anil": "ANIL",
    "imaml": "iMAML",
    "metasgd": "Meta-SGD",
    "spot": "SPoT",
}
"""How methods are written; others keep their own name. The order is the order of every table and figure."""


@dataclass(frozen=True)
class Score:
    """Test of one method on one task, in points, over ``n`` runs that have a score (``n_nan`` have none).

    ``mean`` is NaN without a score, ``std`` (of the runs) with fewer than two; ``runs`` are all keys.
    """

    mean: float
    std: float
    n: int
    n_nan: int
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Gain:
    """One row of ``softstart.analysis.arg_table``; gains in percent, ``abs_gain`` in points."""

    arg: float
    low: float
    high: float
    median: float
    abs_gain: float
    n_tasks: int
    n_undefined: int
    n_missing: int
    record: tuple[int, int, int]
    complete: bool
    p: float = math.nan
    """Of the paired test against the baseline, corrected for the methods compared; NaN if unknown."""

    @property
    def sure(self) -> bool:
        """Whether the interval of ARG excludes zero."""
        return self.low > 0 or self.high < 0

    @property
    def marks(self) -> str:
        """* for an incomplete cell, † for one with undefined gains."""
        return ("" if self.complete else "*") + ("†" if self.n_undefined else "")


@dataclass(frozen=True)
class Comparison:
    """One group of cells: what is compared under one setting, backbone, prompt length and variant.

    ``key`` holds the values of ``GROUP``; ``scores`` is by (task, method), ``arg`` by method, ``gains`` by
    (task, method) in percent, ``baseline`` by task: the baseline's mean test (a fraction) on the runs
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

    def is_best(self, task: str, method: str) -> bool:
        """Whether no method has a higher mean on this task."""
        means = [s.mean for m in self.methods if (s := self.scores.get((task, m))) and s.n]
        return bool(means) and self.scores[task, method].mean >= max(means) - 1e-9


def comparisons(
    rows: pd.DataFrame, arg: pd.DataFrame, gains: pd.DataFrame | None = None
) -> Iterator[Comparison]:
    """Split result rows, ARG table and gains into groups of comparable cells, in order of appearance."""
    rows = with_defaults(rows)
    if "run" not in rows:
        rows = rows.assign(run="")
    rows = rows.assign(test=pd.to_numeric(rows["test"]) * 100)
    names = group_names(rows)
    for key, group in rows.groupby(GROUP, sort=False):
        of_arg = _part(arg, key).to_dict("records")
        none = pd.DataFrame(columns=["task", "baseline"])
        part = none if gains is None or gains.empty else _part(gains, key)
        of_gains = part.to_dict("records")
        yield Comparison(
            key,
            names[key],
            in_order(group["method"]),
            tuple(sorted(map(str, group["task"].unique()))),
            {(str(t), str(m)): _score(cell) for (t, m), cell in group.groupby(["task", "method"])},
            {str(row["method"]): _gain(row) for row in of_arg},
            {(str(row["task"]), str(row["method"])): float(row["gain"]) for row in of_gains},
            {str(task): float(score) for task, score in part.groupby("task")["baseline"].max().items()},
        )


def group_names(rows: pd.DataFrame) -> dict[tuple[object, ...], str]:
    """A title for every group of cells; prompt length, budget and variant where they tell groups apart."""
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
        without: a column that is to stay together in one group.
    """
    joined = table if without is None else table.assign(**{without: table[without].iloc[0]})
    names = group_names(joined)
    for key, part in joined.groupby(GROUP, sort=False):
        yield names[key], table.loc[part.index]


def in_order(methods: pd.Series | Sequence[str]) -> tuple[str, ...]:
    """Distinct methods, known ones first in their usual order, then the others by name."""
    known = list(LABELS)
    distinct = {str(method) for method in methods}
    return tuple(sorted(distinct, key=lambda m: (known.index(m) if m in known else len(known), m)))


def label(method: str) -> str:
    """How a method is written in tables and figures."""
    return LABELS.get(method, method)


def points(value: float, digits: int = 1) -> str:
    """A score in points; an en dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float, digits: int = 1) -> str:
    """A difference with its sign (a true minus); an en dash for NaN, no sign on zero."""
    if math.isnan(value):
        return "–"
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "\u2212")


def interval(low: float, high: float, digits: int = 1) -> str:
    """An interval of differences in brackets; empty if there is none."""
    return "" if math.isnan(low) or math.isnan(high) else f"[{signed(low, digits)}, {signed(high, digits)}]"


AGREEMENT_HEADER = ["setting", "method", "ARG %, ours", "published", "tasks", "same sign", "rank correlation"]
AGREEMENT_NOTE = (
    "Relative gains of T5-large as published, on the tasks that both have: how many have the same sign, and "
    "the correlation of the ranks of the gains over tasks."
)


def agreement_cells(table: pd.DataFrame) -> list[list[str]]:
    """The rows of ``softstart.analysis.reference.agreement`` as text, under ``AGREEMENT_HEADER``."""
    return [
        [
            str(row["setting"]), label(str(row["method"])), signed(row["arg"]), signed(row["arg_published"]),
            str(row["n_tasks"]), f"{100 * row['same_sign']:.0f} %", signed(row["rank"], 2),
        ]
        for row in table.to_dict("records")
    ]  # fmt: skip


def p_value(value: float) -> str:
    """A p-value for tables: "<.001", ".023", an en dash for NaN."""
    return "–" if math.isnan(value) else "<.001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def steps_or_never(value: float) -> str:
    """A number of steps; "never" for infinity (censored), an en dash for NaN."""
    return "–" if math.isnan(value) else "never" if math.isinf(value) else f"{value:g}"


def duration(seconds: float) -> str:
    """Seconds for people: "0.8 s", "3 min 12 s", "2 h 05 min"."""
    if math.isnan(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _score(cell: pd.DataFrame) -> Score:
    n = int(cell["test"].count())
    runs = tuple(str(run) for run in cell["run"])
    return Score(float(cell["test"].mean()), float(cell["test"].std()), n, len(cell) - n, runs)


def _gain(row: Mapping[Hashable, Any]) -> Gain:
    return Gain(
        arg=float(row["arg"]),
        low=float(row.get("low", math.nan)),
        high=float(row.get("high", math.nan)),
        median=float(row["median_relgain"]),
        abs_gain=float(row["mean_abs_gain"]),
        n_tasks=int(row["n_tasks"]),
        n_undefined=int(row["n_undefined"]),
        n_missing=int(row["n_missing"]),
        record=(int(row["wins"]), int(row["ties"]), int(row["losses"])),
        complete=bool(row["complete"]),
        p=float(row.get("p_holm", math.nan)),
    )


def _part(table: pd.DataFrame, key: tuple[object, ...]) -> pd.DataFrame:
    """The rows of one group; a table without group columns belongs to every group."""
    for column, value in zip(GROUP, key, strict=True):
        if column in table:
            table = table[table[column] == value]
    return table
