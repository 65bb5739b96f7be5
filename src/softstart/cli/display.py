"""What long work looks like in a terminal: one bar with an ETA, or plain lines where there is no terminal."""

from __future__ import annotations

import math
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from softstart.progress import Tally, duration


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
