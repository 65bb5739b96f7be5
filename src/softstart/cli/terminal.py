"""What commands print: one console for results, one for warnings and errors.

Text with names of the user's own (paths, tasks, labels) is never read as markup: a folder may be called
``[v2]``, a study ``x[/b]``. rich loads with the first line printed, so that ``--help`` does without it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from softstart.cli.visible import visible
from softstart.errors import SoftstartError
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
    from softstart.cli.plain_console import PlainConsole

    return PlainConsole(**settings, markup=False, highlight=False, emoji=False)


def say(text: str) -> None:
    """Print text as it is; long lines are wrapped by the terminal, so that paths can be copied."""
    console().print(text, soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning to standard error."""
    errors().print(f"warning: {text}", soft_wrap=True)


def warn_all(texts: Iterable[str]) -> None:
    """Print warnings to standard error, one a line."""
    for text in texts:
        warn(text)


def note(text: str) -> None:
    """Print a line of the log to standard error."""
    errors().print(f"note: {text}", soft_wrap=True)


def say_error(text: str) -> None:
    """Print an error to standard error."""
    errors().print(f"error: {text}", soft_wrap=True)


def say_json(data: Any) -> None:
    """Print data as JSON, with escapes where the output's encoding lacks a sign."""
    text = json.dumps(data, ensure_ascii=False, indent=1)
    if not _encodable(text):
        text = json.dumps(data, indent=1)
    sys.stdout.write(text + "\n")


def say_data(text: str) -> None:
    """Print data for other programs: every character as it is, but on a terminal, where none may steer it.

    Raises:
        SoftstartError: the output's encoding lacks a sign of it.
    """
    if sys.stdout.isatty():
        text = visible(text)
    elif not _encodable(text):
        raise SoftstartError(
            f"the output's encoding, {sys.stdout.encoding}, lacks a sign of these data",
            fix="Set PYTHONIOENCODING=utf-8.",
        )
    sys.stdout.write(text)


def _encodable(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def prepare_output() -> None:
    """Let every sign be printed, as an escape where the encoding lacks it, also if an output is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            with suppress(OSError):  # it is gone: said when something is printed
                stream.reconfigure(errors="backslashreplace")


def flush_output() -> None:
    """Have what was printed arrive.

    Raises:
        SoftstartError: standard output is full or closed; nothing more is printed to it.
    """
    try:
        sys.stdout.flush()
    except OSError as problem:
        # Python flushes once more at its end, and would complain in its own words.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SoftstartError(
            f"cannot write to standard output ({problem.strerror})",
            fix="Check what it is sent to: a full disk, or a program that has ended.",
        ) from problem


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
    """A bar on a terminal while work goes on, elsewhere lines on standard error if it takes long; gives what
    the work reports to. Long work is announced with an estimate.

    Args:
        description: shown until the work says more.
        total: the units of all work; None: not known.
        hidden: show nothing.
    """
    if hidden:
        yield silent
        return
    from softstart.cli.display import Meter, ProgressLines, estimate

    if not console().is_terminal:
        with ProgressLines(errors(), description, total) as lines:
            yield lines
        return
    from rich.progress import (
        BarColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    meter, told = Meter(total), False
    with Bar(*columns, console=console(), transient=True) as bar:
        task = bar.add_task(description, total=total)

        def report(done: float, note: str = "") -> None:
            nonlocal told
            meter.add(done)
            if not told and (line := estimate(description, meter)):
                told = True
                say(line)
            bar.update(task, advance=done, description=note or description)

        yield report
