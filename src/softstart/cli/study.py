"""Commands that look at a study: where it stands, what came out, how it departs from what was published."""

from __future__ import annotations

import shlex
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softstart.cli.opening import existing
from softstart.cli.options import Interval, Overrides, StudyFile, StudyFolder
from softstart.cli.outcome import show_outcome
from softstart.cli.terminal import console, new_table, say, say_data, show_table
from softstart.errors import SoftstartError
from softstart.storage.csv_files import csv_text
from softstart.storage.files import atomic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from softstart.study.plan.departures import Value
    from softstart.study.run.status import Status


class Format(StrEnum):
    """How rows are written."""

    csv = "csv"
    json = "json"
    parquet = "parquet"


class Shown(StrEnum):
    """How a table is shown."""

    table = "table"
    markdown = "markdown"
    csv = "csv"


class Rows(StrEnum):
    """Which rows."""

    results = "results"
    runs = "runs"
    curves = "curves"


def status(
    folder: StudyFolder,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep showing it until the study has ended.")
    ] = False,
) -> None:
    """Show where a study stands, also while it runs.

    \b
    Examples:
      softstart status runs/mine
      softstart status runs/mine --watch
    """
    from softstart.study.run.status import read_status

    existing(folder)
    now = read_status(folder)
    if watch and console().is_terminal:
        from rich.live import Live

        with Live(_status_table(now), console=console()) as live:
            while now.pulse and now.pulse.alive:
                time.sleep(2)
                now = read_status(folder)
                live.update(_status_table(now))
    else:
        show_table(_status_table(now))
    for name, reason in now.failures.items():
        say(f"failed: {name}: {reason}")
    say(f"{now.missing} runs missing, {now.results} results, {now.tested} of them tested: {folder}")


def results(
    folder: StudyFolder,
    format: Annotated[Format, typer.Option(help="csv and json can go to the terminal.")] = Format.csv,
    rows: Annotated[
        Rows, typer.Option(help="The chosen runs, all runs, or their dev curves.")
    ] = Rows.results,
    out: Annotated[Path | None, typer.Option(help="The file to write.")] = None,
) -> None:
    """Write the rows of a study as a table. It holds what is computed so far, also while the study runs.

    \b
    Examples:
      softstart results runs/mine > results.csv
      softstart results runs/mine --rows curves --format parquet --out curves.parquet
    """
    from softstart.study import study_tables

    table = study_tables(existing(folder))[rows.value]
    if out is None and format is Format.parquet:
        raise SoftstartError("parquet is not for a terminal", fix="Give --out FILE.parquet.")
    if out is not None and format is Format.parquet:
        with atomic(out) as temporary:
            table.to_parquet(temporary, index=False)
        return
    text = csv_text(table) if format is Format.csv else table.to_json(orient="records", indent=1)
    if out is None:
        say_data(text)
    else:
        with atomic(out) as temporary:
            temporary.write_text(text, encoding="utf-8")


def explain_protocol(
    study: StudyFile,
    overrides: Overrides = None,
    all_values: Annotated[
        bool, typer.Option("--all", help="Also list values that match both the paper and our advice.")
    ] = False,
    format: Annotated[Shown, typer.Option(help="markdown and csv also give the evidence.")] = Shown.table,
) -> None:
    """Compare a study with the published protocol. Lists what differs, with our advice and the reasons.

    \b
    Examples:
      softstart explain-protocol study.yaml
      softstart explain-protocol study.yaml --set preset=paper --format markdown
    """
    from dataclasses import asdict

    import pandas as pd

    from softstart.study import load_study
    from softstart.study.plan.departures import protocol

    values = protocol(load_study(study, overrides or []))
    shown = [value for value in values if all_values or not (value.same and value.sound)]
    rows = pd.DataFrame(map(asdict, shown)).rename(columns={"what": "value"})
    if format is Shown.csv:
        say_data(csv_text(rows))
    elif format is Shown.markdown:
        head = [list(map(str, rows)), ["---"] * len(rows.columns)]
        for line in (*head, *rows.to_numpy().tolist()):
            say_data("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n")
    else:
        _show_values(shown)
    if not shown:
        say("everything is as published, and as we recommend")


def _show_values(values: Sequence[Value]) -> None:
    table = new_table("", "published", "here", "recommended")
    for value in values:
        mark = "" if value.sound else " *"
        table.add_row(value.what, value.published, value.here + mark, value.recommended)
    show_table(table)
    for value in values:
        if not value.sound and value.reason:
            say(f"* {value.what}: {value.reason}")


def report(
    folder: StudyFolder,
    markdown: Annotated[Path | None, typer.Option(help="Write the comparison to this file, too.")] = None,
    command: Annotated[
        str | None, typer.Option(help="The command that made the results, to show in the Markdown file.")
    ] = None,
    raster: Annotated[
        bool, typer.Option("--raster", help="Draw figures as PNG and PDF, too (needs matplotlib).")
    ] = False,
    interval: Interval = None,
) -> None:
    """Write the report of a study folder again. Tables and figures go to report/ as files of their own.

    \b
    Examples:
      softstart report runs/mine
      softstart report runs/mine --markdown comparison.md --raster
    """
    from softstart.analysis import DEFAULT_INTERVAL
    from softstart.study import report_study
    from softstart.study.results.outcome import BASELINE
    from softstart.study.results.report_files import comparable, write_report_files

    outcome = report_study(existing(folder), interval or DEFAULT_INTERVAL)
    if comparable(outcome):
        commands = [*([command] if command else []), shlex.join(["softstart", *sys.argv[1:]])]
        write_report_files(outcome, commands, markdown=markdown, raster=raster)
    elif not outcome.rows.empty:
        unwritten = f"report/ and {markdown} are" if markdown else "report/ is"
        say(f"no results of {BASELINE} to compare with: {unwritten} not written")
    show_outcome(outcome)
    if markdown and markdown.exists():
        say(str(markdown))


def _status_table(now: Status) -> Table:
    from softstart.progress import duration

    table = new_table("", "planned", "done")
    for name, (planned, done) in now.counts.items():
        table.add_row(name, f"{planned:,}", f"{done:,}")
    pulse = now.pulse
    if pulse and pulse.alive:
        left = pulse.seconds_left
        eta = f", {duration(left)} left" if left is not None else ""
        table.add_row(f"{pulse.running} {pulse.note}", "100%", f"{100 * pulse.done / pulse.total:.0f}%{eta}")
        table.add_row(pulse.tally)
    return table
