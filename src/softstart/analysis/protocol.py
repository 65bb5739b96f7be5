"""Numbers of different protocols must not be compared."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from softstart.analysis.arg import CELL, with_defaults, with_main_baseline
from softstart.errors import SoftstartError

PROTOCOL = ("protocol", "metric", "shots")
"""Columns, where a table has them, that say how a number was measured, besides those of ``CELL``."""


def check_scores(rows: pd.DataFrame, where: str) -> None:
    """Check that test scores, where there are any, are fractions: finite and not above 1.

    Scores in points next to fractions, as from two files, would make gains of a hundred times.

    Args:
        rows: the result table.
        where: its file, for errors.

    Raises:
        SoftstartError: naming the first row that is otherwise.
    """
    if "test" not in rows:
        return
    scores = pd.to_numeric(rows["test"], errors="coerce")
    fix = "Leave the cell empty for a run that was not tested."
    for wrong, what in (
        (scores.isna() & rows["test"].notna(), "no number"),
        (np.isinf(scores), "not finite"),
        (scores.abs() > 1, "not a fraction"),
    ):
        if wrong.any():
            row = rows[wrong].iloc[0]
            of = ", ".join(str(row[name]) for name in ("method", "task", "sample") if name in row)
            if what == "not a fraction":
                fix = "Give fractions from 0 to 1: divide points by 100."
            raise SoftstartError(
                f"the test score {row['test']} ({of}) is {what}, as are {wrong.sum()} of {len(rows)}",
                where=where,
                fix=fix,
            )


def refuse_mixed(rows: pd.DataFrame, baseline: str = "pt") -> None:
    """Check that within a setting, backbone, prompt length and variant each task was measured alike.

    A variant without runs of the ``baseline`` is compared with main's, which must be measured alike.

    Args:
        rows: the result table (see ``softstart.analysis.arg``).
        baseline: the method that gains are relative to.

    Raises:
        SoftstartError: a task whose runs differ in a column of ``PROTOCOL``, with the methods concerned.
    """
    group = [column for column in CELL if column not in ("method", "budget")]
    table = with_main_baseline(with_defaults(rows), baseline, group)
    for column in (column for column in PROTOCOL if column in table):
        known = table[table[column].notna()]
        protocols = known.groupby([*group, "task"])[column].nunique()
        if not (protocols > 1).any():
            continue
        first = protocols[protocols > 1].index[0]
        of_task = known.set_index([*group, "task"]).loc[[first]]
        values = of_task.groupby(column)["method"].unique()
        shown = "; ".join(
            f"{protocol} ({', '.join(sorted(methods))})"
            for protocol, methods in zip(_differences(values.index), values, strict=True)
        )
        raise SoftstartError(
            f"{first[-1]} was measured under different protocols, {column}: {shown}",
            where=f"setting '{first[0]}'",
            fix=f"Give each a variant with runs of {baseline}, or ask for a mixed table (--mixed).",
        )


def _differences(values: Iterable[object]) -> list[str]:
    """Each value without the parts, separated by "; ", that all of them share."""
    split = [str(value).split("; ") for value in values]
    shared = set.intersection(*map(set, split))
    return [", ".join(part for part in parts if part not in shared) or "nothing more" for parts in split]
