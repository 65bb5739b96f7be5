"""What long work looks like in a terminal: one bar with an ETA, or plain lines where there is no terminal."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


@dataclass(frozen=True)
class Tally:
    """Where a study stands: runs finished of those planned, tokens a second that finished training has read,
    the mean over tasks of the best dev score so far, and the seconds left; None: cannot be told yet.
    """

    runs: int
    planned: int
    tokens: float
    best: float | None
    left: float | None

    def __str__(self) -> str:
        speed = f"  {short(self.tokens)} tokens/s" if self.tokens else ""
        best = f"  best dev {self.best:.2f}" if self.best is not None else ""
        return f"{self.runs}/{self.planned} runs{speed}{best}"


class Display(Protocol):
    """Shows how far a study is."""

    def start(self, total: float) -> None:
        """Begin; ``total`` is the estimated work in rows."""

    def stage(self, name: str) -> None:
        """What is being done from now on."""

    def advance(self, units: float, note: str = "") -> None:
        """Work done, in the units of ``start``."""

    def tally(self, tally: Tally) -> None:
        """Where the whole stands."""

    def line(self, text: str) -> None:
        """A lasting line."""


class Quiet:
    """Shows nothing."""

    def start(self, total: float) -> None:
        """Ignore."""

    def stage(self, name: str) -> None:
        """Ignore."""

    def advance(self, units: float, note: str = "") -> None:
        """Ignore."""

    def tally(self, tally: Tally) -> None:
        """Ignore."""

    def line(self, text: str) -> None:
        """Ignore."""


class TerminalDisplay:
    """A rich bar on a terminal; elsewhere (logs, pipes) a plain line every ``every`` seconds, and when the
    stage changes, but not ten times as often."""

    def __init__(self, console: Console, every: float = 10.0) -> None:
        self.console, self.every = console, every
        self.total, self.done, self.name, self.note = 1.0, 0.0, "", ""
        self.told: Tally | None = None
        self.began = time.monotonic()
        self.last = -math.inf
        self.bar: Progress | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[eta]}"),
                TextColumn("{task.fields[tally]}"),
                TextColumn("[dim]{task.fields[note]}"),
                console=self.console,
                refresh_per_second=4,
            )
            self.bar.start()
            self.id = self.bar.add_task("preparing", total=None, note="", eta="", tally="")
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar:
            self._show(force=True)
            self.bar.stop()

    @property
    def eta(self) -> str:
        """Time left: as the tally says, else at the average speed so far when enough is done to tell."""
        spent = time.monotonic() - self.began
        if self.told:
            return "ETA …" if self.told.left is None else f"ETA {duration(self.told.left)}"
        if self.done < 0.01 * self.total or spent < 2:
            return "ETA …"
        left = max(0.0, spent * (self.total / self.done - 1))
        return f"ETA {duration(left)}"

    def start(self, total: float) -> None:
        """Begin; the clock of the ETA starts here."""
        self.total, self.done, self.began = max(total, 1.0), 0.0, time.monotonic()

    def stage(self, name: str) -> None:
        """Show what is being done."""
        fresh, self.name, self.note = name != self.name, name, ""
        self._show(force=fresh)

    def advance(self, units: float, note: str = "") -> None:
        """Move the bar."""
        self.done = min(self.total, self.done + units)
        self.note = note or self.note
        self._show()

    def tally(self, tally: Tally) -> None:
        """Show it with the next move of the bar."""
        self.told = tally

    def line(self, text: str) -> None:
        """Print above the bar."""
        self.console.print(text, soft_wrap=True, highlight=False)

    def _show(self, force: bool = False) -> None:
        now = time.monotonic()
        if self.bar:
            if force or now - self.last > 0.2:
                self.last = now
                self.bar.update(
                    self.id, description=self.name, completed=self.done, total=self.total,
                    note=self.note, eta=self.eta, tally=str(self.told or ""),
                )  # fmt: skip
        elif now - self.last >= (self.every / 10 if force else self.every):
            self.last = now
            spent = duration(now - self.began)
            share = f"{100 * self.done / self.total:3.0f}%"
            parts = (f"{share}  {spent} elapsed, {self.eta}", str(self.told or ""), self.name, self.note)
            self.console.print("  ".join(filter(None, parts)), soft_wrap=True, highlight=False)


def short(number: float) -> str:
    """A number in three digits as people read them: 950, 1.2k, 34k, 5.1M."""
    for unit in ("", "k", "M"):
        if number < 999.5:
            return f"{number:.1f}{unit}" if unit and number < 9.95 else f"{number:.0f}{unit}"
        number /= 1000
    return f"{number:.1f}G"


def duration(seconds: float) -> str:
    """Seconds as people read them: 8s, 3m20s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
