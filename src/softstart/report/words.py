"""Numbers as people read them: the one place where scores, gains and counts become text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from softstart.analysis.units import percent, points
from softstart.report.tables import Gain, Interval

UNKNOWN = "–"
"""Stands for NaN."""


def number(value: float, digits: int = 1) -> str:
    """A number in a unit of its own; an en dash for NaN."""
    return UNKNOWN if math.isnan(value) else f"{value:.{digits}f}"


def in_points(score: float, digits: int = 1) -> str:
    """A score (a fraction) in points; an en dash for NaN."""
    return number(points(score), digits)


def in_percent(share: float, digits: int = 0) -> str:
    """A share in percent, without the sign; an en dash for NaN."""
    return number(percent(share), digits)


def signed(value: float, digits: int = 1) -> str:
    """A difference with its sign (a true minus); an en dash for NaN, no sign on zero."""
    if math.isnan(value):
        return UNKNOWN
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "\u2212")


def interval(low: float, high: float, digits: int = 1) -> str:
    """An interval of differences in brackets; empty if there is none."""
    return f"[{signed(low, digits)}, {signed(high, digits)}]" if Interval(low, high).known else ""


def p_value(value: float) -> str:
    """A p-value for tables: "<.001", ".023", an en dash for NaN."""
    return UNKNOWN if math.isnan(value) else "<.001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def p_equals(value: float) -> str:
    """A p-value in a sentence: "p <.001", "p = .023"."""
    return f"p {'' if value < 0.001 else '= '}{p_value(value)}"


def steps_or_never(value: float) -> str:
    """A number of steps; "never" for infinity (censored), an en dash for NaN."""
    return UNKNOWN if math.isnan(value) else "never" if math.isinf(value) else f"{value:g}"


def count(n: int, name: str) -> str:
    """A number of things: "1 task", "2,000 tasks"."""
    return f"{n:,} {plural(n, name)}"


def plural(n: int, name: str) -> str:
    """The name of one thing, or of several: "task", "tasks"."""
    return name if n == 1 else f"{name}s"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: "MAML", "MAML and Reptile", "FT, MAML and Reptile"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


@dataclass(frozen=True)
class GainWords:
    """A row of gains as text; every part is empty for a method without gains.

    ``arg`` has its marks: * for an incomplete cell, † for one with undefined gains. Units are not written:
    ``arg``, ``median`` and ``symmetric`` are in percent, ``points`` in points. ``record`` is
    wins/ties/losses.
    """

    arg: str = ""
    arg_interval: str = ""
    median: str = ""
    median_interval: str = ""
    points: str = ""
    points_interval: str = ""
    symmetric: str = ""
    symmetric_interval: str = ""
    record: str = ""
    p: str = ""
    p_holm: str = ""

    @property
    def arg_full(self) -> str:
        """ARG and its interval."""
        return f"{self.arg} {self.arg_interval}".strip()

    @property
    def median_full(self) -> str:
        """The median gain and its interval."""
        return f"{self.median} {self.median_interval}".strip()

    @property
    def points_full(self) -> str:
        """The mean gain in points and its interval."""
        return f"{self.points} {self.points_interval}".strip()

    @property
    def symmetric_full(self) -> str:
        """The mean symmetric gain and its interval."""
        return f"{self.symmetric} {self.symmetric_interval}".strip()


def gain_words(gain: Gain | None, interval_digits: int = 1) -> GainWords:
    """A row of gains as text; ``interval_digits`` are those of the ends of its intervals."""
    if gain is None:
        return GainWords()

    def ends(of: Interval) -> str:
        return interval(of.low, of.high, interval_digits)

    marks = ("" if gain.complete else "*") + ("†" if gain.n_undefined else "")
    return GainWords(
        arg=signed(gain.arg) + marks,
        arg_interval=ends(gain.arg_interval),
        median=signed(gain.median),
        median_interval=ends(gain.median_interval),
        points=signed(gain.mean_points),
        points_interval=ends(gain.points_interval),
        symmetric=signed(gain.symmetric),
        symmetric_interval=ends(gain.symmetric_interval),
        record="/".join(map(str, gain.record)),
        p=p_value(gain.p),
        p_holm=p_value(gain.p_holm),
    )
