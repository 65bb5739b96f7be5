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

from softstart.analysis_cli import existing
from softstart.errors import SoftstartError

if TYPE_CHECKING:
    from softstart.study import Study
    from softstart.study.status import Status

console = Console()

Folder = Annotated[Path, typer.Argument(help="A study folder.")]


class Format(StrEnum):
    """How rows are written."""

    csv = "csv"
    json = "json"
    parquet = "parquet"


class Rows(StrEnum):
    """Which rows."""

    results = "results"
    runs = "runs"
    curves = "curves"


def status(
    folder: Folder,
    watch: Annotated[bool, typer.Option(help="Go on showing it until the study is over.")] = False,
) -> None:
    """Where a study stands, also while it runs."""
    from softstart.study.status import read_status

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
    """The rows of a study, as far as it is computed, also while it runs."""
    from softstart.study import study_tables

    table = study_tables(existing(folder))[rows.value]
    if out is None and format is Format.parquet:
        raise SoftstartError("parquet is not for a terminal", mend="Give --out FILE.parquet.")
    if format is Format.parquet:
        table.to_parquet(out, index=False)
        return
    text = table.to_csv(index=False) if format is Format.csv else table.to_json(orient="records", indent=1)
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text, encoding="utf-8")


def show_estimate(study: Study, folder: Path, device: str | None, workers: int | None) -> None:
    """Print what a study would take."""
    import torch

    from softstart.console import duration
    from softstart.study import default_workers
    from softstart.study.estimate import estimate

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
    for note in found.notes:
        console.print(note, soft_wrap=True, highlight=False, markup=False)


def _status_table(now: Status) -> Table:
    from softstart.console import duration

    table = Table("", "planned", "done", box=None)
    for name, (planned, done) in now.counts.items():
        table.add_row(name, f"{planned:,}", f"{done:,}")
    pulse = now.pulse
    if pulse and pulse.alive:
        left = pulse.seconds_left
        eta = f", {duration(left)} left" if left is not None else ""
        table.add_row(f"{pulse.running} {pulse.note}", "100%", f"{100 * pulse.done / pulse.total:.0f}%{eta}")
    return table
