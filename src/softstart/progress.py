"""Progress of long work: units done, and a note. Whoever receives it decides how to show it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Progress(Protocol):
    """Receives the units of work just done and a short note on what is going on."""

    def __call__(self, done: float, note: str = "") -> None:
        """Called often; must be cheap."""


def silent(done: float, note: str = "") -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Tally:
    """Where a study stands: runs finished of those planned, tokens a second that finished training has read,
    the mean over tasks of the best dev score so far (points), and the seconds left; None: not known yet.
    """

    runs: int
    planned: int
    tokens: float
    best_points: float | None
    left: float | None

    def __str__(self) -> str:
        speed = f"  {short(self.tokens)} tokens/s" if self.tokens else ""
        best = f"  best dev {self.best_points:.1f}" if self.best_points is not None else ""
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


def short(number: float) -> str:
    """A number in three digits as people read them: 950, 1.2k, 34k, 5.1M."""
    for unit in ("", "k", "M"):
        if number < 999.5:
            return f"{number:.1f}{unit}" if unit and number < 9.95 else f"{number:.0f}{unit}"
        number /= 1000
    return f"{number:.1f}G"


def duration(seconds: float) -> str:
    """Seconds as people read them; an en dash for NaN.

    >>> [duration(seconds) for seconds in (0.84, 59.6, 200, 7500)]
    ['0.8 s', '1 min 00 s', '3 min 20 s', '2 h 05 min']
    """
    if math.isnan(seconds):
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
