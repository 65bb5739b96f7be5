"""The comparison in a terminal."""

from __future__ import annotations

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from softstart.analysis import largest_budget, with_defaults
from softstart.report.tables import Comparison, comparisons, interval, label, points, signed

_WIDE = 4
"""Up to so many target tasks fit as columns, beside the gains, into a terminal of 100 columns."""


def comparison_table(rows: pd.DataFrame, arg: pd.DataFrame, width: int = 100) -> Table:
    """Mean and standard deviation of test (points) by method and target task, with ARG and its interval.

    At the largest budget, where there are several. Few target tasks are columns; with more, or several
    settings, tasks are rows and methods columns. The best mean of a task is bold; * marks an incomplete cell,
    † one with an undefined gain.

    Args:
        rows: one row per selected run (see ``softstart.analysis.arg``).
        arg: the table of ``softstart.analysis.arg_table`` on the same rows.
        width: columns of the terminal; where they are too few, deviations are left out.
    """
    groups = list(comparisons(largest_budget(with_defaults(rows)), arg))
    if len(groups) == 1 and len(groups[0].tasks) <= _WIDE:
        table = _methods_as_rows(groups[0])
    else:
        table = _tasks_as_rows(groups)
    compact = Console(width=10_000).measure(table).maximum > width
    if compact:
        table = _tasks_as_rows(groups, compact=True)
    table.caption = _caption(groups, compact)
    return table


def _methods_as_rows(group: Comparison) -> Table:
    table = _table(group.name)
    table.add_column("")
    for task in group.tasks:
        table.add_column(Text(task), justify="right", overflow="fold", min_width=10)
    for title in ("ARG %  [95 %]", "median", "W/T/L"):
        table.add_column(title, justify="right", no_wrap=True)
    for method in group.methods:
        scores = [_score(group, task, method) for task in group.tasks]
        arg, band, median, wins = _gains(group, method)
        table.add_row(Text(label(method)), *scores, f"{arg} {band}".strip(), median, wins)
    return table


def _tasks_as_rows(groups: list[Comparison], compact: bool = False) -> Table:
    table = _table(groups[0].name if len(groups) == 1 else None)
    methods = list(dict.fromkeys(method for group in groups for method in group.methods))
    longest = max(len(task) for group in groups for task in group.tasks)
    table.add_column("", overflow="fold", min_width=min(longest, 14))
    for method in methods:
        table.add_column(Text(label(method)), justify="right", no_wrap=True)
    for group in groups:
        if len(groups) > 1:
            table.add_row(Text(group.name, style="bold"))
        for task in group.tasks:
            table.add_row(Text(task), *(_score(group, task, method, compact) for method in methods))
        table.add_section()
        gains = [_gains(group, method, digits=0) for method in methods]
        titles = ("ARG %", "95 % interval", "median %", "W/T/L")
        for i, title in enumerate(titles):
            cells = [gain[i] for gain in gains]
            if compact and i == 1:
                ends = [cell.strip("[]").split(", ") if cell else ["", ""] for cell in cells]
                table.add_row(Text("95 % from"), *(low for low, _ in ends))
                table.add_row(Text("95 % to"), *(high for _, high in ends))
                continue
            table.add_row(Text(title), *cells)
        table.add_section()
    return table


def _table(title: str | None) -> Table:
    return Table(
        title=None if title is None else Text(title, style="bold"),
        box=box.SIMPLE,
        caption_justify="left",
        title_justify="left",
        pad_edge=False,
        collapse_padding=True,
    )


def _score(group: Comparison, task: str, method: str, compact: bool = False) -> Text:
    score = group.scores.get((task, method))
    if score is None:
        return Text("")
    text = Text(points(score.mean), style="bold" if group.is_best(task, method) else "")
    return text.append(f" ±{points(score.std)}", style="dim") if score.n > 1 and not compact else text


def _gains(group: Comparison, method: str, digits: int = 1) -> tuple[str, str, str, str]:
    """ARG, its interval (to ``digits``), the median gain, and wins/ties/losses of one method, as text."""
    gain = group.arg.get(method)
    if gain is None:
        return "", "", "", ""
    band = interval(gain.low, gain.high, digits)
    return signed(gain.arg) + gain.marks, band, signed(gain.median), "/".join(map(str, gain.record))


def _caption(groups: list[Comparison], compact: bool) -> Text:
    gains = [gain for group in groups for gain in group.arg.values()]
    spread = "mean" if compact else "mean ± standard deviation"
    notes = [f"Test in points, {spread} over runs; ARG: mean gain over PT in percent."]
    if not all(gain.complete for gain in gains):
        notes.append("* tasks or runs are missing.")
    if any(gain.n_undefined for gain in gains):
        notes.append("† without the tasks where PT is not above 0.")
    return Text(" ".join(notes), style="dim")
