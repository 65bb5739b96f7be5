"""What long work looks like in a terminal: one bar with an ETA, or plain lines where there is no terminal."""

from __future__ import annotations

import math
import time
from threading import Event, Thread
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from softstart.progress import Tally, duration


class Meter:
    """How long work takes: what is done of a total since the first report, and what is left.

    Args:
        total: units of all work; None: not known.
    """

    def __init__(self, total: float | None) -> None:
        self.total, self.done = total, 0.0
        self.began = time.monotonic()
        self.first: tuple[float, float] | None = None

    def add(self, units: float) -> None:
        """Count what was done. What the first report says was there before: it takes no time."""
        self.done += units
        if self.first is None:
            self.first = (time.monotonic(), self.done)

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds that are left at the speed so far; NaN while that is not known."""
        if self.total is None or self.first is None or self.done <= self.first[1]:
            return math.nan
        seconds, units = time.monotonic() - self.first[0], self.done - self.first[1]
        return seconds / units * max(0.0, self.total - self.done)


LONG = 10.0
"""Seconds after which work is announced: how long it will take, and from then on how far it is."""
_ENOUGH = 2.0
"""Seconds of work that an estimate needs."""


class ProgressLines:
    """Progress where there is no bar: a line after ``LONG`` seconds, then each time a tenth more has passed,
    at least ``LONG`` seconds and at most five minutes apart. Short work prints nothing.

    Args:
        console: where to print.
        description: of the work, until a report says more.
        total: units of all work; None: not known.
        first: seconds to the first line.
    """

    def __init__(self, console: Console, description: str, total: float | None, first: float = LONG) -> None:
        self.console, self.description, self.note, self.first = console, description, "", first
        self.meter, self.announced = Meter(total), False
        self.stop = Event()
        self.thread = Thread(target=self._keep_telling, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop.set()
        self.thread.join()

    def __call__(self, done: float, note: str = "") -> None:
        """Count work; the first estimate of long work is printed at once."""
        self.meter.add(done)
        self.note = note
        if not self.announced and (line := estimate(self.description, self.meter)):
            self.announced = True
            self._print(line)

    def _keep_telling(self) -> None:
        wait = self.first
        while not self.stop.wait(wait):
            self._print(self._line())
            wait = min(300.0, max(self.first, 0.1 * self.meter.spent))

    def _line(self) -> str:
        meter = self.meter
        share = f" {100 * meter.done / meter.total:.0f} %," if meter.total and meter.first else ""
        left = "" if math.isnan(meter.left) or not meter.left else f", about {duration(meter.left)} left"
        note = f"; {self.note}" if self.note and self.note != self.description else ""
        return f"{self.description}:{share} {duration(meter.spent)} so far{left}{note}"

    def _print(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False, markup=False, emoji=False)


def estimate(description: str, meter: Meter) -> str:
    """How long work will take in all, once that can be said; empty for short work."""
    known = meter.first is not None and time.monotonic() - meter.first[0] >= _ENOUGH
    if not known or math.isnan(meter.left) or meter.spent + meter.left < LONG:
        return ""
    return f"{description}: about {duration(meter.spent + meter.left)} in all"


class TerminalDisplay:
    """A rich bar on a terminal; elsewhere (logs, pipes) a plain line every ``every`` seconds, and when the
    stage changes, but not ten times as often."""

    def __init__(self, console: Console, every: float = 10.0) -> None:
        self.console, self.every = console, every
        self.total, self.done, self.name, self.note = 1.0, 0.0, "", ""
        self.latest: Tally | None = None
        self.began = time.monotonic()
        self.last = -math.inf
        self.bar: Progress | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[eta]}", markup=False),
                TextColumn("{task.fields[tally]}", markup=False),
                TextColumn("{task.fields[note]}", style="dim", markup=False),
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
        """Time left: as the tally says, else at the average speed so far, once enough is done."""
        spent = time.monotonic() - self.began
        if self.latest:
            return "ETA …" if self.latest.left is None else f"ETA {duration(self.latest.left)}"
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
        self.latest = tally

    def line(self, text: str) -> None:
        """Print above the bar."""
        self.console.print(text, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def _show(self, force: bool = False) -> None:
        now = time.monotonic()
        if self.bar:
            if force or now - self.last > 0.2:
                self.last = now
                self.bar.update(
                    self.id, description=self.name, completed=self.done, total=self.total,
                    note=self.note, eta=self.eta, tally=str(self.latest or ""),
                )  # fmt: skip
        elif now - self.last >= (self.every / 10 if force else self.every):
            self.last = now
            spent = duration(now - self.began)
            share = f"{100 * self.done / self.total:3.0f}%"
            parts = (f"{share}  {spent} elapsed, {self.eta}", str(self.latest or ""), self.name, self.note)
            self.console.print(
                "  ".join(filter(None, parts)), soft_wrap=True, highlight=False, markup=False, emoji=False
            )
