"""The comparison as one Markdown file, with its figure next to it: for a repository to keep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from softstart.analysis import (
    CELL,
    DEFAULT_INTERVAL,
    arg_table,
    largest_budget,
    speed_table,
    with_defaults,
    with_tests,
)
from softstart.errors import SoftstartError
from softstart.report import sections
from softstart.report.caveats import caveats
from softstart.report.standalone import in_panels
from softstart.report.style import Appearance, MethodStyles
from softstart.report.tables import Comparison, Grid, by_group, comparisons, gain_of
from softstart.report.verdict import headline
from softstart.report.views import against, cost_table, sizes
from softstart.report.words import count, gain_words, in_points
from softstart.storage.files import atomic


def write_markdown(
    path: str | Path,
    study: Mapping[str, Any],
    rows: pd.DataFrame,
    curves: pd.DataFrame,
    arg: pd.DataFrame,
    gains: pd.DataFrame,
    *,
    baseline: str = "pt",
    commands: Sequence[str] = (),
    environment: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    costs: pd.DataFrame | None = None,
    footing: pd.DataFrame | None = None,
    protocol: Sequence[Mapping[str, str]] = (),
    similarity: Mapping[str, Any] | None = None,
    appearance: Mapping[str, Appearance] | None = None,
    interval: str = DEFAULT_INTERVAL,
) -> None:
    """Write the comparison as Markdown and, with several budgets, ``NAME-budget.svg`` next to it.

    Args:
        path: the file to write.
        study: the resolved study, of plain types.
        rows: one row per selected run (see ``softstart.analysis.arg``) with its key ``run``.
        curves: dev scores by step (see ``softstart.analysis.speed_by_run``); may be empty.
        arg: ``softstart.analysis.arg_table`` of ``softstart.analysis.largest_budget(rows)``.
        gains: ``softstart.analysis.relative_gains`` of the same.
        baseline: the method gains are relative to.
        commands: what made the results and this file; shown on top.
        environment: versions and machine.
        notes: what one has to know before all else, a sentence each.
        costs: one row per method (see ``softstart.report.write_report``).
        footing: as of ``softstart.report.write_report``.
        protocol: ``what``, ``published`` and ``here`` of every value of the published protocol.
        similarity: what ``softstart similarity`` wrote; its recommendation is judged.
        appearance: label and color of methods by name (see ``softstart.report.write_report``).
        interval: how ``arg`` got its intervals (see ``softstart.report.write_report``).

    Raises:
        SoftstartError: if there is no row yet, a column is missing or a file cannot be written.
    """
    path, rows = Path(path), with_defaults(rows)
    if rows.empty:
        raise SoftstartError("there is no result to report yet", fix="Run the study first.")
    styles = MethodStyles(rows["method"], appearance, baseline)
    top = largest_budget(rows)
    arg, by_budget, figure = _ordered(top, arg, baseline), None, None
    if sections.compares_budgets(rows, styles):
        by_budget = _ordered(rows, arg_table(rows, baseline, interval=interval), baseline)
        figure = path.with_name(f"{path.stem}-budget.svg")
        with atomic(figure) as temporary:
            temporary.write_text(budget_figure(by_budget, styles), encoding="utf-8")
    groups = list(comparisons(top, arg, styles, gains))
    followed = sections.recommendation((similarity or {}).get("followed", []), styles)
    header, body = cost_table({} if costs is None else costs, styles)
    lines = [
        *_opening(study, rows, commands),
        *(text for note in notes for text in (f"**{_escaped(note)}**", "")),
        *_largest(rows, groups, arg, styles),
        *(_budgets(by_budget, styles, figure) if by_budget is not None and figure else ()),
        *_speed(top, curves, styles, interval),
        *_tasks(groups, styles),
        *_against(groups, styles),
        *_published(gains, styles),
        *_noted("Do the probabilities hold?", sections.calibration(top, styles, interval)),
        *_noted("On equal footing?", sections.footing(footing, styles)),
        *_section("Would it have helped to choose the start by similarity?", followed),
        *_section("Cost", (header, [[text for text, _ in row] for row in body])),
        *_protocol(sections.departures(protocol)),
        *_closing(caveats(rows, groups, styles, interval), environment),
    ]
    with atomic(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def budget_figure(arg: pd.DataFrame, styles: MethodStyles) -> str:
    """Gain in points against budget, one panel a group of cells, as a self-contained SVG.

    Args:
        arg: ``softstart.analysis.arg_table`` of a study with several budgets.
        styles: its methods; the baseline is left out, since its gain is zero by definition.
    """
    title = f"Mean gain over {styles.baseline_label} in points, by steps of adaptation"
    return in_panels(title, sections.budget_panels(arg, styles), styles, styles.others)


def _ordered(rows: pd.DataFrame, arg: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """The ARG table in the order of the rows, with the tests against the baseline."""
    return rows[CELL].drop_duplicates().merge(with_tests(rows, arg, baseline), on=CELL)


def _opening(study: Mapping[str, Any], rows: pd.DataFrame, commands: Sequence[str]) -> Iterator[str]:
    yield f"# {study.get('name', 'Study')}"
    yield ""
    if commands:
        yield from ("Made with", "", "```bash", *commands, "```", "")
    counts = [count(n, name) for name, n in sizes(rows).items()]
    counts.append(count(len(rows), "tested result"))
    yield f"{', '.join(counts)}. Scores and gains in points are 100 × the task's metric, on test sets."
    yield ""


def _largest(
    rows: pd.DataFrame, groups: Sequence[Comparison], arg: pd.DataFrame, styles: MethodStyles
) -> Iterator[str]:
    yield f"## Results, at the {'largest' if rows['budget'].nunique() > 1 else 'full'} budget"
    yield ""
    for group in groups:
        yield f"* **{group.name}**: {headline(group, styles)}"
    yield ""
    yield from _table(["", "method", *_COLUMNS], _gain_rows(arg, styles))


_COLUMNS = ["ARG %", "median gain %", "gain, points", "symmetric gain %", "W/T/L", "p", "p (Holm)"]


def _gain_rows(arg: pd.DataFrame, styles: MethodStyles) -> Iterator[list[str]]:
    for name, of_group in by_group(arg):
        for method in styles.in_order(of_group["method"]):
            row = of_group[of_group["method"] == method].iloc[0]
            if method != styles.baseline:
                yield [name, styles.label(method), *_gain_cells(row)]
                name = ""


def _gain_cells(row: pd.Series) -> list[str]:
    """A row of the ARG table under ``_COLUMNS``."""
    words = gain_words(gain_of(row.to_dict()))
    gains = [words.arg_full, words.median_full, words.points_full, words.symmetric_full]
    return [*gains, words.record, words.p, words.p_holm]


def _budgets(arg: pd.DataFrame, styles: MethodStyles, figure: Path) -> Iterator[str]:
    name = styles.baseline_label
    yield "## Gain against the steps of adaptation"
    yield ""
    yield f"![Gain over {name} in points, by budget and method]({figure.name})"
    yield ""
    yield from (
        f"Mean gain over {name} in points, with 95 % intervals, when both adapt for at most the steps given; "
        "learning rate and step are selected on dev among those steps.",
        "",
    )
    for title, of_group in by_group(arg, without="budget"):
        yield from (f"### {title}", "")
        budgets = sorted(of_group["budget"].unique(), key=lambda b: b or math.inf)
        body = [
            [styles.label(method), f"{budget} steps" if budget else "full", *_gain_cells(row)]
            for method in styles.in_order(of_group["method"])
            if method != styles.baseline
            for budget in budgets
            for _, row in of_group[(of_group["method"] == method) & (of_group["budget"] == budget)].iterrows()
        ]
        yield from _table(["method", "budget", *_COLUMNS], body)


def _speed(rows: pd.DataFrame, curves: pd.DataFrame, styles: MethodStyles, interval: str) -> Iterator[str]:
    if curves.empty:
        return
    table = speed_table(rows, curves, styles.baseline, interval=interval)
    name = styles.baseline_label
    table = rows[CELL].drop_duplicates().merge(table, on=CELL)
    yield from (
        "## Does a learned start also start faster?",
        "",
        f"Area: mean dev score on the way through the budget (trapezoids from step 0), in points, and its "
        f"difference to {name}'s. Steps to {name}'s best: when a run first reaches the best dev score that "
        f"{name}'s run on the same task, sample and seed has within the budget; the median over runs, and "
        "the share of runs that ever do. A median of “never” is censored at the budget.",
        "",
    )
    body = []
    for title, of_group in by_group(table):
        for method in styles.in_order(of_group["method"]):
            row = of_group[of_group["method"] == method].iloc[0]
            cells = sections.speed_cells(row.to_dict(), method == styles.baseline)
            body.append([title, styles.label(method), *cells])
            title = ""
    yield from _table(["", "method", *sections.speed_header(styles)], body)


def _tasks(groups: Sequence[Comparison], styles: MethodStyles) -> Iterator[str]:
    yield from ("## Test scores by task, at the largest budget", "")
    yield from ("Mean ± standard deviation over runs, in points. Bold: the highest, told apart or not.", "")
    for group in groups:
        yield from ("<details>", f"<summary>{_escaped(group.name)}</summary>", "")
        body = []
        for task in group.tasks:
            cells = [task, *(in_points(value) for value in group.blind.get(task, ()))]
            cells += [""] * (2 - len(group.blind.get(task, ()))) if group.blind else []
            for method in group.methods:
                score = group.scores.get((task, method))
                text = "" if score is None else in_points(score.mean)
                text += f" ± {in_points(score.std)}" if score and score.n > 1 else ""
                cells.append(f"**{text}**" if score and group.is_best(task, method) else text)
            body.append(cells)
        known = ["chance", "majority"] if group.blind else []
        body.append(["mean", *[""] * len(known), *(in_points(group.mean(m)) for m in group.methods)])
        yield from _table(["task", *known, *map(styles.label, group.methods)], body)
        yield from ("</details>", "")


def _against(groups: Sequence[Comparison], styles: MethodStyles) -> Iterator[str]:
    """Method against method, where there are three or more."""
    several = [group for group in groups if len(group.methods) > 2]
    if not several:
        return
    yield from ("## Method against method", "")
    name = styles.baseline_label
    yield from (
        "Row minus column: mean difference in points over the tasks both have (p of paired sign flips, "
        f"corrected by Holm for the comparisons with {name}, and for those between the others). Bold: told "
        "apart.",
        "",
    )
    for group in several:
        header, rows = against(group, styles)
        body = [
            [
                row[0][0],
                *(f"**{d}** ({p})" if apart else f"{d} ({p})" if p else "" for d, p, apart in row[1:]),
            ]
            for row in rows
        ]
        yield from (f"### {_escaped(group.name)}", "")
        yield from _table(header, body)


def _published(gains: pd.DataFrame, styles: MethodStyles) -> Iterator[str]:
    yield from _noted("Compared with the published study", sections.published(gains, styles))


def _noted(title: str, part: tuple[Grid, str] | None) -> Iterator[str]:
    """A table under its title, with how to read it; nothing without one."""
    if part:
        yield from (f"## {title}", "", part[1], "")
        yield from _table(*part[0])


def _section(title: str, grid: Grid | None) -> Iterator[str]:
    """A table under its title; nothing without one."""
    if grid and grid[1]:
        yield from (f"## {title}", "")
        yield from _table(*grid)


def _protocol(values: Mapping[str, Any] | None) -> Iterator[str]:
    if values:
        yield from ("## Protocol", "")
        changed, n = values["changed"], len(values["changed"]) + len(values["kept"])
        yield from (f"{len(changed)} of {n} values differ from those of the published study.", "")
        yield from _table(values["header"], changed)


def _closing(doubts: Sequence[str], environment: Mapping[str, Any] | None) -> Iterator[str]:
    yield from ("## How to read this, and how far to trust it", "")
    for doubt in doubts:
        yield f"* {_escaped(doubt)}"
    yield ""
    if environment:
        yield from ("## Environment", "")
        yield from _table(["", ""], [[key, str(value)] for key, value in environment.items()])


def _table(header: Sequence[str], body: Iterable[Sequence[str]]) -> Iterator[str]:
    yield _row(header)
    yield _row(["---" if i == 0 or title == "method" else "---:" for i, title in enumerate(header)])
    for cells in body:
        yield _row(cells)
    yield ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _escaped(text: str) -> str:
    """Text as it is, within a Markdown table: bars and angle brackets are no syntax."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
