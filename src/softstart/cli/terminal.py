"""What commands print: one console for results, one for warnings and errors.

Text with names of the user's own (paths, tasks, labels) is never read as markup: a folder may be called
``[v2]``, a study ``x[/b]``. rich loads with the first line printed, so that ``--help`` does without it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from softstart.progress import Progress, silent

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_WIDE = 240
"""Columns of a table that is not printed to a terminal: a file or a pipe has no width of its own."""


@cache
def console() -> Console:
    """Standard output."""
    return _console()


@cache
def errors() -> Console:
    """Standard error."""
    return _console(stderr=True)


def _console(**settings: Any) -> Console:
    from rich.console import Console

    return Console(**settings, markup=False, highlight=False, emoji=False)


def say(text: str) -> None:
    """Print text as it is; long lines are wrapped by the terminal, so that paths can be copied."""
    console().print(text, soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning to standard error."""
    errors().print(f"warning: {text}", soft_wrap=True)


def say_error(text: str) -> None:
    """Print an error to standard error."""
    errors().print(f"error: {text}", soft_wrap=True)


def say_json(data: Any) -> None:
    """Print data as JSON."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False, indent=1) + "\n")


def new_table(*columns: str, title: str | None = None) -> Table:
    """A table without lines; cells too long for a terminal are folded, never cut."""
    from rich.table import Table

    table = Table(title=title, box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def show_table(table: RenderableType) -> None:
    """Print a table."""
    place = console() if console().is_terminal else _console(width=max(_WIDE, console().width))
    place.print(table)


@contextmanager
def progress_bar(description: str, total: float | None = None, *, hidden: bool = False) -> Iterator[Progress]:
    """A bar on a terminal while work goes on, nothing elsewhere; gives what the work reports to.

    Args:
        description: shown until the work says more.
        total: the units of all work; None: not known.
        hidden: show nothing on a terminal, either.
    """
    if hidden or not console().is_terminal:
        yield silent
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console(), transient=True) as bar:
        task = bar.add_task(description, total=total)

        def report(done: float, note: str = "") -> None:
            bar.update(task, advance=done, description=note or description)

        yield report
