"""The comparison as one Markdown file, with its figure beside it: for a repository to keep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from softstart.analysis import (
    CELL,
    arg_table,
    largest_budget,
    speed_table,
    with_defaults,
    with_tests,
)
from softstart.analysis.reference import agreement
from softstart.errors import SoftstartError
from softstart.report.caveats import caveats, headline
from softstart.report.sections import budget_panels, departures, recommendation, speed_cells
from softstart.report.style import standalone
from softstart.report.tables import (
    AGREEMENT_HEADER,
    AGREEMENT_NOTE,
    Grid,
    agreement_cells,
    by_group,
    comparisons,
    in_order,
    interval,
    label,
    p_value,
    points,
    signed,
)
from softstart.report.views import cost_table
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
    protocol: Sequence[Mapping[str, str]] = (),
    similarity: Mapping[str, Any] | None = None,
) -> None:
    """Write the comparison as Markdown, and ``NAME-budget.svg`` beside it where there are several budgets.

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
        protocol: ``what``, ``published`` and ``here`` of every value of the published protocol.
        similarity: what ``softstart similarity`` wrote; its recommendation is judged.

    Raises:
        SoftstartError: if there is no row yet, a column is missing or a file cannot be written.
    """
    path, rows = Path(path), with_defaults(rows)
    if rows.empty:
        raise SoftstartError("there is no result to report yet", fix="Run the study first.")
    top = largest_budget(rows)
    arg, figure, every = _ordered(top, arg, baseline), None, None
    if rows["budget"].nunique() > 1:
        every = _ordered(rows, arg_table(rows, baseline), baseline)
        figure = path.with_name(f"{path.stem}-budget.svg")
        with atomic(figure) as temporary:
            temporary.write_text(budget_figure(every, baseline), encoding="utf-8")
    followed = recommendation((similarity or {}).get("followed", []))
    header, body = cost_table({} if costs is None else costs)
    lines = [
        *_opening(study, rows, commands),
        *(text for note in notes for text in (f"**{_escaped(note)}**", "")),
        *_largest(rows, arg, gains, baseline),
        *(_budgets(every, baseline, figure) if every is not None and figure else ()),
        *_speed(rows, curves, baseline),
        *_tasks(rows, arg, gains),
        *_published(gains, baseline),
        *_section("Would it have helped to choose the start by similarity?", followed),
        *_section("Cost", (header, [[text for text, _ in row] for row in body])),
        *_protocol(departures(protocol)),
        *_closing(rows, arg, gains, baseline, environment),
    ]
    with atomic(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def budget_figure(arg: pd.DataFrame, baseline: str = "pt") -> str:
    """Gain in points against budget, one panel a group of cells, as a self-contained SVG.

    Args:
        arg: ``softstart.analysis.arg_table`` of a study with several budgets.
        baseline: left out, since its gain is zero by definition.
    """
    numbers = {method: i for i, method in enumerate(in_order(arg["method"]))}
    title = f"Mean gain over {label(baseline)} in points, by steps of adaptation"
    series = {label(method): i for method, i in numbers.items() if method != baseline}
    return standalone(title, budget_panels(arg, numbers, baseline), series)


def _ordered(rows: pd.DataFrame, arg: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """The ARG table in the order of the rows, with the tests against the baseline."""
    return rows[CELL].drop_duplicates().merge(with_tests(rows, arg, baseline), on=CELL)


def _opening(study: Mapping[str, Any], rows: pd.DataFrame, commands: Sequence[str]) -> Iterator[str]:
    yield f"# {study.get('name', 'Study')}"
    yield ""
    if commands:
        yield from ("Made with", "", "```bash", *commands, "```", "")
    counts = [
        _count(rows["setting"].nunique(), "setting"),
        _count(rows["method"].nunique(), "method"),
        _count(rows["task"].nunique(), "target task"),
        _count(rows["sample"].nunique(), "sample"),
        _count(rows["seed"].nunique(), "meta-training seed"),
        _count(rows["budget"].nunique(), "budget"),
        _count(len(rows), "tested result"),
    ]
    yield f"{', '.join(counts)}. Scores and gains in points are 100 × the task's metric, on test sets."
    yield ""


def _count(n: int, name: str) -> str:
    return f"{n:,} {name}{'' if n == 1 else 's'}"


def _largest(rows: pd.DataFrame, arg: pd.DataFrame, gains: pd.DataFrame, baseline: str) -> Iterator[str]:
    yield f"## What was found, at the {'largest' if rows['budget'].nunique() > 1 else 'full'} budget"
    yield ""
    for group in comparisons(largest_budget(rows), arg, gains):
        yield f"* **{group.name}**: {headline(group, baseline)}"
    yield ""
    yield from _table(["", "method", *_COLUMNS], _gain_rows(arg, baseline))


_COLUMNS = ["ARG %", "median gain %", "gain, points", "W/T/L", "p", "p (Holm)"]


def _gain_rows(arg: pd.DataFrame, baseline: str) -> Iterator[list[str]]:
    for name, of_group in by_group(arg):
        for method in in_order(of_group["method"]):
            row = of_group[of_group["method"] == method].iloc[0]
            if method != baseline:
                yield [name, label(method), *_gain(row)]
                name = ""


def _gain(row: pd.Series) -> list[str]:
    marks = ("" if row["complete"] else "*") + ("†" if row["n_undefined"] else "")
    return [
        f"{signed(row['arg'])}{marks} {interval(row['low'], row['high'])}",
        f"{signed(row['median_relgain'])} {interval(row['median_low'], row['median_high'])}",
        f"{signed(row['mean_abs_gain'])} {interval(row['abs_low'], row['abs_high'])}",
        f"{row['wins']}/{row['ties']}/{row['losses']}",
        p_value(row["p"]),
        p_value(row["p_holm"]),
    ]


def _budgets(arg: pd.DataFrame, baseline: str, figure: Path) -> Iterator[str]:
    yield "## Gain against the steps of adaptation"
    yield ""
    yield f"![Gain over {label(baseline)} in points, by budget and method]({figure.name})"
    yield ""
    yield from (
        f"Mean gain over {label(baseline)} in points, with 95 % intervals, when both may adapt for so many "
        "steps; learning rate and step are selected on dev among those steps.",
        "",
    )
    for name, of_group in by_group(arg, without="budget"):
        yield from (f"### {name}", "")
        budgets = sorted(of_group["budget"].unique(), key=lambda b: b or math.inf)
        body = [
            [label(method), f"{budget} steps" if budget else "full", *_gain(row)]
            for method in in_order(of_group["method"])
            if method != baseline
            for budget in budgets
            for _, row in of_group[(of_group["method"] == method) & (of_group["budget"] == budget)].iterrows()
        ]
        yield from _table(["method", "budget", *_COLUMNS], body)


def _speed(rows: pd.DataFrame, curves: pd.DataFrame, baseline: str) -> Iterator[str]:
    if curves.empty:
        return
    table, name = speed_table(largest_budget(rows), curves, baseline), label(baseline)
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
        for method in in_order(of_group["method"]):
            row = of_group[of_group["method"] == method].iloc[0]
            body.append([title, label(method), *speed_cells(row.to_dict(), method == baseline)])
            title = ""
    header = ["", "method", "area", "area gain", f"steps to {name}'s best", "reached"]
    yield from _table(header, body)


def _tasks(rows: pd.DataFrame, arg: pd.DataFrame, gains: pd.DataFrame) -> Iterator[str]:
    yield from ("## Test scores by task, at the largest budget", "")
    yield from ("Mean ± standard deviation over runs, in points.", "")
    for group in comparisons(largest_budget(rows), arg, gains):
        yield from ("<details>", f"<summary>{_escaped(group.name)}</summary>", "")
        body = []
        for task in group.tasks:
            cells = [task]
            for method in group.methods:
                score = group.scores.get((task, method))
                text = "" if score is None else points(score.mean)
                text += f" ± {points(score.std)}" if score and score.n > 1 else ""
                cells.append(f"**{text}**" if score and group.is_best(task, method) else text)
            body.append(cells)
        yield from _table(["task", *map(label, group.methods)], body)
        yield from ("</details>", "")


def _published(gains: pd.DataFrame, baseline: str) -> Iterator[str]:
    table = agreement(gains, baseline)
    if table.empty:
        return
    yield from ("## Beside the published study", "", AGREEMENT_NOTE, "")
    yield from _table(AGREEMENT_HEADER, agreement_cells(table))


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


def _closing(
    rows: pd.DataFrame,
    arg: pd.DataFrame,
    gains: pd.DataFrame,
    baseline: str,
    environment: Mapping[str, Any] | None,
) -> Iterator[str]:
    yield from ("## How to read this, and how far to trust it", "")
    groups = list(comparisons(largest_budget(rows), arg, gains))
    for caveat in caveats(rows, groups, baseline):
        yield f"* {_escaped(caveat)}"
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
