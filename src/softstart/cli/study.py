"""Commands that look at a study: what it would take, where it stands, what came out."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from softstart.cli.analysis import existing
from softstart.errors import SoftstartError

if TYPE_CHECKING:
    from softstart.study import Study
    from softstart.study.run.status import Status

console = Console()

Folder = Annotated[Path, typer.Argument(help="A study folder.")]


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
    folder: Folder,
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it until the study is over.")] = False,
) -> None:
    """Where a study stands, also while it runs.

    \b
    Examples:
      softstart status runs/mine
      softstart status runs/mine --watch
    """
    from softstart.study.run.status import read_status

    existing(folder)
    now = read_status(folder)
    if watch and console.is_terminal:
        with Live(_status_table(now), console=console) as live:
            while now.pulse and now.pulse.alive:
                time.sleep(2)
                now = read_status(folder)
                live.update(_status_table(now))
    else:
        console.print(_status_table(now))
    for name, reason in now.failures.items():
        console.print(f"failed: {name}: {reason}", soft_wrap=True, highlight=False, markup=False)
    console.print(
        f"{now.missing} runs missing, {now.results} results, {now.tested} of them tested: {folder}",
        highlight=False,
        soft_wrap=True,
    )


def results(
    folder: Folder,
    format: Annotated[Format, typer.Option(help="csv and json also go to the terminal.")] = (Format.csv),
    rows: Annotated[Rows, typer.Option(help="Chosen runs, all of them, or their dev curves.")] = (
        Rows.results
    ),
    out: Annotated[Path | None, typer.Option(help="The file to write.")] = None,
) -> None:
    """The rows of a study, as far as it is computed, also while it runs.

    \b
    Examples:
      softstart results runs/mine > results.csv
      softstart results runs/mine --rows curves --format parquet --out curves.parquet
    """
    from softstart.study import study_tables

    table = study_tables(existing(folder))[rows.value]
    if out is None and format is Format.parquet:
        raise SoftstartError("parquet is not for a terminal", fix="Give --out FILE.parquet.")
    if format is Format.parquet:
        table.to_parquet(out, index=False)
        return
    text = table.to_csv(index=False) if format is Format.csv else table.to_json(orient="records", indent=1)
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text, encoding="utf-8")


def join_running(folder: Path, device: str | None) -> None:
    """Lend this process to the one that runs a study."""
    from softstart.study import join_study

    done = join_study(folder, device, lambda text: console.print(text, highlight=False))
    console.print(f"its process has ended; pieces of work done here: {done}", highlight=False, soft_wrap=True)


def explain_protocol(
    study: Annotated[Path, typer.Argument(help="A study file (YAML), or the study.yaml of a study folder.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: --set preset=paper.")
    ] = None,
    all_values: Annotated[bool, typer.Option("--all", help="Values that nobody would change too.")] = False,
    format: Annotated[Shown, typer.Option(help="markdown and csv come with the evidence.")] = Shown.table,
) -> None:
    """What a study does otherwise than was published, and what we recommend, value by value, with reasons.

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
    columns = {"what": "value", "here": "here"}
    rows = pd.DataFrame(map(asdict, shown)).rename(columns=columns)
    if format is Shown.csv:
        sys.stdout.write(rows.to_csv(index=False))
    elif format is Shown.markdown:
        lines: list[list[str]] = [
            list(map(str, rows)),
            ["---"] * len(rows.columns),
            *rows.to_numpy().tolist(),
        ]
        sys.stdout.writelines(
            "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |\n" for line in lines
        )
    else:
        table = Table("", "published", "here", "recommended", box=None)
        for value in shown:
            mark = "" if value.sound else " *"
            table.add_row(value.what, value.published, value.here + mark, value.recommended)
        console.print(table)
        for value in shown:
            if not value.sound and value.reason:
                console.print(
                    f"* {value.what}: {value.reason}", soft_wrap=True, highlight=False, markup=False
                )
    if not shown:
        console.print("everything is as published, and as we recommend")


def show_estimate(
    study: Study,
    folder: Path,
    device: str | None,
    workers: int | None,
    gpu: str = "H200",
    gpu_rate: float | None = None,
) -> None:
    """Print what a study would take."""
    import torch

    from softstart.progress import duration
    from softstart.study import default_workers
    from softstart.study.cost.estimate import estimate
    from softstart.study.cost.gpu_hours import cost_lines

    at_a_time = workers or default_workers(device)
    if at_a_time > 1:
        torch.set_num_threads(1)
    found = estimate(study, folder, device)
    table = Table("", "planned", "done", box=None)
    for name, (planned, done) in found.counts.items():
        table.add_row(name, f"{planned:,}", f"{done:,}")
    console.print(table)
    for name, text in (
        ("tokens to process", found.tokens and f"{found.tokens:.2g}"),
        ("floating-point operations", found.flops and f"{found.flops:.2g}"),
        (
            f"time with {at_a_time} worker{'s' if at_a_time > 1 else ''}",
            None if found.seconds is None else duration(found.seconds / at_a_time),
        ),
        ("memory of a worker", found.memory and f"{found.memory / 2**30:.1f} GB"),
    ):
        if text:
            console.print(f"{name}: about {text}", highlight=False)
    for line in cost_lines(study, found, gpu, gpu_rate):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    for note in found.notes:
        console.print(note, soft_wrap=True, highlight=False, markup=False)


def _status_table(now: Status) -> Table:
    from softstart.progress import duration

    table = Table("", "planned", "done", box=None)
    for name, (planned, done) in now.counts.items():
        table.add_row(name, f"{planned:,}", f"{done:,}")
    pulse = now.pulse
    if pulse and pulse.alive:
        left = pulse.seconds_left
        eta = f", {duration(left)} left" if left is not None else ""
        table.add_row(f"{pulse.running} {pulse.note}", "100%", f"{100 * pulse.done / pulse.total:.0f}%{eta}")
        table.add_row(pulse.tally)
    return table
