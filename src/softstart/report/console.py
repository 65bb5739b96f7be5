"""The comparison in a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from softstart.analysis import largest_budget, with_defaults
from softstart.analysis.resampling import FEWEST_TASKS
from softstart.report.style import Appearance, MethodStyles
from softstart.report.tables import Comparison, comparisons
from softstart.report.verdict import headline, overall, warnings, without_zero_shot
from softstart.report.words import gain_words, in_points

_FEW_TASKS = 4
"""Up to this many target tasks fit as columns, next to the gains, into a terminal of 100 columns."""


def comparison_table(
    rows: pd.DataFrame,
    arg: pd.DataFrame,
    width: int = 100,
    *,
    baseline: str = "pt",
    appearance: Mapping[str, Appearance] | None = None,
) -> Table:
    """Mean and standard deviation of test scores (points) by method and target task, with ARG and interval.

    At the largest budget, where there are several. Few target tasks are columns; with more, or several
    settings, tasks are rows and methods columns. The best mean of a task is bold; * marks an incomplete cell,
    † one with an undefined gain.

    Args:
        rows: one row per selected run (see ``softstart.analysis.arg``).
        arg: the table of ``softstart.analysis.arg_table`` on the same rows.
        width: columns of the terminal; where they are too few, deviations are left out.
        baseline: the method gains are relative to.
        appearance: labels of methods by name.
    """
    styles = MethodStyles(rows["method"], appearance, baseline)
    groups = list(comparisons(largest_budget(with_defaults(rows)), arg, styles))
    if len(groups) == 1 and len(groups[0].tasks) <= _FEW_TASKS:
        table = _methods_as_rows(groups[0], styles)
    else:
        table = _tasks_as_rows(groups, styles)
    compact = Console(width=10_000).measure(table).maximum > width
    if compact:
        table = _tasks_as_rows(groups, styles, compact=True)
    elif any(group.blind for group in groups):
        leveled = _tasks_as_rows(groups, styles, levels=True)
        if Console(width=10_000).measure(leveled).maximum <= width:
            table = leveled
    table.caption = _caption(groups, styles, compact, rows["seed"].nunique() if "seed" in rows else 1)
    return table


def findings(
    rows: pd.DataFrame,
    arg: pd.DataFrame,
    *,
    baseline: str = "pt",
    appearance: Mapping[str, Appearance] | None = None,
) -> list[str]:
    """What can be told apart, and what to know before the numbers, a line each; arguments as above."""
    styles = MethodStyles(rows["method"], appearance, baseline)
    groups = list(comparisons(largest_budget(with_defaults(rows)), arg, styles))
    result = headline(groups[0], styles) if len(groups) == 1 else overall(groups, styles)
    return [result, *(text for group in groups for text in warnings(group, styles))]


def _methods_as_rows(group: Comparison, styles: MethodStyles) -> Table:
    table = _table(group.name)
    table.add_column("")
    for task in group.tasks:
        table.add_column(Text(task), justify="right", overflow="fold", min_width=10)
    for title in ("ARG %  [95 %]", "median", "W/T/L"):
        table.add_column(title, justify="right", no_wrap=True)
    for method in group.methods:
        scores = [_score(group, task, method) for task in group.tasks]
        gain = gain_words(group.arg.get(method))
        table.add_row(Text(styles.label(method)), *scores, gain.arg_full, gain.median, gain.record)
    return table


def _tasks_as_rows(
    groups: Sequence[Comparison], styles: MethodStyles, compact: bool = False, levels: bool = False
) -> Table:
    """Tasks as rows; ``levels`` puts chance and the majority answer before the methods."""
    known = ("chance", "majority") if levels else ()
    table = _table(groups[0].name if len(groups) == 1 else None)
    methods = list(dict.fromkeys(method for group in groups for method in group.methods))
    longest = max(len(task) for group in groups for task in group.tasks)
    table.add_column("", overflow="fold", min_width=min(longest, 14))
    for name in known:
        table.add_column(Text(name, style="dim"), justify="right", no_wrap=True)
    for method in methods:
        table.add_column(Text(styles.label(method)), justify="right", no_wrap=True)
    for group in groups:
        if len(groups) > 1:
            table.add_row(Text(group.name, style="bold"))
        for task in group.tasks:
            blind = (
                [Text(in_points(level), style="dim") for level in group.blind.get(task, ())] if known else []
            )
            blind += [Text("")] * (len(known) - len(blind))
            scores = (_score(group, task, method, compact) for method in methods)
            table.add_row(Text(task), *blind, *scores)
        table.add_section()
        means = [in_points(group.mean(method)) if method in group.methods else "" for method in methods]
        for title, cells in [("mean", means), *_gain_rows(group, methods, compact)]:
            table.add_row(Text(title), *[""] * len(known), *cells)
        table.add_section()
    return table


def _gain_rows(group: Comparison, methods: Sequence[str], compact: bool) -> list[tuple[str, list[str]]]:
    """The rows below the scores: a title, and a text per method; the ends of intervals apart if compact."""
    gains = [gain_words(group.arg.get(method), interval_digits=0) for method in methods]
    intervals = [("95 % interval", [gain.arg_interval for gain in gains])]
    if not any(gain.arg_interval for gain in gains):
        intervals = []
    elif compact:
        ends = [tuple(gain.arg_interval.strip("[]").split(", ")) for gain in gains]
        lows, highs = zip(*(pair if len(pair) == 2 else ("", "") for pair in ends), strict=True)
        intervals = [("95 % from", list(lows)), ("95 % to", list(highs))]
    return [
        ("ARG %", [gain.arg for gain in gains]),
        *intervals,
        ("median %", [gain.median for gain in gains]),
        ("points", [gain.points for gain in gains]),
        ("symmetric %", [gain.symmetric for gain in gains]),
        ("W/T/L", [gain.record for gain in gains]),
    ]


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
    text = Text(in_points(score.mean), style="bold" if group.is_best(task, method) else "")
    return text.append(f" ±{in_points(score.std)}", style="dim") if score.n > 1 and not compact else text


def _caption(groups: Sequence[Comparison], styles: MethodStyles, compact: bool, seeds: int) -> Text:
    gains = [gain for group in groups for gain in group.arg.values()]
    spread = "mean" if compact else "mean ± standard deviation"
    name = styles.baseline_label
    notes = [f"Test in points, {spread} over runs; ARG: mean gain over {name} in percent."]
    if seeds == 1 and any(gain.arg_interval.known for gain in gains):
        notes.append("Intervals: of one meta-training seed.")
    judged = [
        gain
        for group in groups
        for method, gain in group.arg.items()
        if method != styles.baseline and not math.isnan(gain.mean_points)
    ]
    if judged and not any(gain.arg_interval.known for gain in judged):
        notes.append(f"No intervals: they take {FEWEST_TASKS} tasks and two runs of each.")
    if not all(gain.complete for gain in gains):
        notes.append("* tasks or runs are missing.")
    if any(gain.n_undefined for gain in gains):
        notes.append(f"† without the tasks where {name} is not above 0.")
    if missing := without_zero_shot(groups, styles):
        notes.append(missing)
    return Text(" ".join(notes), style="dim")
