"""Numbers of different protocols do not belong into one comparison."""

from __future__ import annotations

import pandas as pd

from softstart.analysis.arg import CELL, with_defaults
from softstart.errors import SoftstartError

PROTOCOL = ("protocol", "metric", "shots")
"""Columns, where a table has them, that say how a number was measured beyond what names its cell."""


def refuse_mixed(rows: pd.DataFrame) -> None:
    """Check that within a setting, backbone, prompt length and variant each task was measured in one way.

    Raises:
        SoftstartError: a task whose runs differ in a column of ``PROTOCOL``, with the methods concerned.
    """
    table = with_defaults(rows)
    group = [column for column in CELL if column not in ("method", "budget")]
    for column in (column for column in PROTOCOL if column in table):
        known = table[table[column].notna()]
        ways = known.groupby([*group, "task"])[column].nunique()
        if not (ways > 1).any():
            continue
        first = ways[ways > 1].index[0]
        of_task = known.set_index([*group, "task"]).loc[[first]]
        values = of_task.groupby(column)["method"].unique()
        shown = "; ".join(f"{value} ({', '.join(sorted(methods))})" for value, methods in values.items())
        raise SoftstartError(
            f"{first[-1]} was measured under different protocols, {column}: {shown}",
            where=f"setting '{first[0]}'",
            mend="Give them a variant each, or ask for a mixed table (--mixed).",
        )
