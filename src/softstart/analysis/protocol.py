"""Numbers of different protocols must not be compared."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from softstart.analysis.arg import CELL, with_defaults, with_main_baseline
from softstart.errors import SoftstartError

PROTOCOL = ("protocol", "metric", "shots")
"""Columns, where a table has them, that say how a number was measured, besides those of ``CELL``."""


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
