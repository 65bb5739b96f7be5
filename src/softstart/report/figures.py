"""Figures as SVG text, drawn by hand: no dependency, no script, legible in light and dark.

Colors are not written here: marks of series i have the class ``s{i}``, and the page gives it a color, so
that a method looks the same in every figure. All text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import pairwise

from softstart.report.tables import interval, signed

Series = Mapping[str, Sequence[tuple[float, float]]]
"""Name → points (x, y), in order of x."""

_MARKERS: tuple[Callable[[float, float], str], ...] = (
    lambda x, y: f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>',
    lambda x, y: f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>',
    lambda x, y: f'<path d="M{x:.1f} {y - 5.5:.1f}l5.5 9.5h-11z"/>',
    lambda x, y: f'<path d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6-6z"/>',
    lambda x, y: f'<path d="M{x:.1f} {y + 5.5:.1f}l5.5-9.5h-11z"/>',
    lambda x, y: f'<path d="M{x - 5:.1f} {y - 1.6:.1f}h3.4v-3.4h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4z"/>',
)


def marker(series: int) -> str:
    """The marker of series i alone, as an inline SVG of 14 by 14 for legends."""
    shape = _MARKERS[series % len(_MARKERS)](7, 7)
    return f'<svg class="key" viewBox="0 0 14 14" aria-hidden="true"><g class="s{series}">{shape}</g></svg>'


def bars(
    values: Mapping[str, tuple[float, float, float]],
    series: Mapping[str, int],
    *,
    title: str,
    unit: str = "%",
) -> str:
    """Horizontal bars from zero with an interval on each: name → (value, low, high).

    NaN as a value leaves the row without a bar, NaN as a limit the bar without an interval.
    """
    width, row, left, right, top = 720, 38, 118, 172, 8
    finite = [v for triple in values.values() for v in triple if math.isfinite(v)]
    lowest, highest = padded(min([0.0, *finite]), max([0.0, *finite]))
    height = top + row * len(values) + 34

    def at(value: float) -> float:
        return left + (value - lowest) / (highest - lowest) * (width - left - right)

    bottom = top + row * len(values)
    parts = _grid_x(ticks(lowest, highest), at, top, bottom, unit)
    for i, (name, (value, low, high)) in enumerate(values.items()):
        y = top + row * (i + 0.5)
        parts.append(_text(left - 12, y + 4.5, name, "end", "name"))
        reading = f"{signed(value)} {unit}" if math.isfinite(value) else "undefined"
        group = [f"<title>{escape(f'{name}: {reading} {interval(low, high)}'.strip())}</title>"]
        if math.isfinite(value):
            x0, x1 = sorted((at(0), at(value)))
            group.append(
                f'<rect class="bar" x="{x0:.1f}" y="{y - 9:.1f}" width="{x1 - x0:.1f}" height="18" rx="2"/>'
            )
        if math.isfinite(low) and math.isfinite(high):
            group.append(
                f'<path class="whisker" d="M{at(low):.1f} {y:.1f}H{at(high):.1f}'
                f'M{at(low):.1f} {y - 5:.1f}v10M{at(high):.1f} {y - 5:.1f}v10"/>'
            )
        parts.append(f'<g class="s{series[name]}">{"".join(group)}</g>')
        parts.append(_text(width, y - 1, reading, "end", "value"))
        parts.append(_text(width, y + 13, interval(low, high), "end", "small"))
    return _svg(width, height, title, parts)


def dots(
    rows: Mapping[str, Mapping[str, float]],
    series: Mapping[str, int],
    *,
    title: str,
    unit: str = "%",
    absent: Mapping[str, str] | None = None,
) -> str:
    """One line per row (a task) with one marker per series (a method): row → name → value.

    The axis is linear up to ±150 and compressed beyond (asinh), so that one huge gain does not flatten the
    rest. ``absent`` gives rows without any finite value a few words in place of markers.
    """
    width, row, top, right = 720, 30, 8, 20
    left = 30 + 7.2 * min(26, max((len(name) for name in rows), default=4))
    finite = [v for values in rows.values() for v in values.values() if math.isfinite(v)]
    lowest, highest = padded(min([0.0, *finite]), max([0.0, *finite]))
    compressed = max(-lowest, highest) > 150
    scale = (lambda v: math.asinh(v / 25)) if compressed else (lambda v: v)
    bottom = top + row * len(rows)

    def at(value: float) -> float:
        span = scale(highest) - scale(lowest)
        return left + (scale(value) - scale(lowest)) / span * (width - left - right)

    marks: Sequence[float] = ticks(lowest, highest)
    if compressed:
        decades = (-100, -50, -20, 0, 20, 50, 100, 200, 500, 1000, 2000, 5000)
        marks = [v for v in decades if lowest <= v <= highest]
    parts = _grid_x(marks, at, top, bottom, unit)
    for i, (name, values) in enumerate(rows.items()):
        y = top + row * (i + 0.5)
        parts.append(f'<path class="rule" d="M{left:.1f} {y:.1f}H{width - right}"/>')
        parts.append(_text(left - 12, y + 4.5, _short(name, 26), "end", "name"))
        shown = {s: v for s, v in values.items() if math.isfinite(v)}
        if not shown and absent and name in absent:
            parts.append(_text(left + 8, y + 4.5, absent[name], "start", "small"))
        for method, value in shown.items():
            tip = escape(f"{name}, {method}: {signed(value)} {unit}")
            shape = _MARKERS[series[method] % len(_MARKERS)](at(value), y)
            parts.append(f'<g class="dot s{series[method]}"><title>{tip}</title>{shape}</g>')
    return _svg(width, bottom + 34, title, parts)


def lines(
    curves: Series,
    series: Mapping[str, int],
    *,
    title: str,
    x_label: str = "step",
    y_limits: tuple[float, float] | None = None,
) -> str:
    """A small panel of lines, one per series; y in the units of the data. NaN breaks a line."""
    width, height, left, right, top, bottom = 300, 190, 40, 12, 10, 34
    xs = [x for points in curves.values() for x, _ in points]
    ys = [y for points in curves.values() for _, y in points if math.isfinite(y)]
    x0, x1 = (min(xs), max(xs)) if xs else (0.0, 1.0)
    x1 = x1 if x1 > x0 else x0 + 1
    y0, y1 = y_limits or padded(min(ys, default=0.0), max(ys, default=1.0))

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - x0) / (x1 - x0) * (width - left - right),
            top + (y1 - y) / (y1 - y0) * (height - top - bottom),
        )

    parts = []
    for tick in ticks(y0, y1, 5):
        y = at(x0, tick)[1]
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{width - right}"/>')
        parts.append(_text(left - 6, y + 4, f"{tick:g}", "end", "small"))
    for tick, anchor in ((x0, "start"), (x1, "end")):
        parts.append(_text(at(tick, y0)[0], height - bottom + 16, f"{tick:g}", anchor, "small"))
    parts.append(_text((left + width - right) / 2, height - bottom + 16, x_label, "middle", "small"))
    for name, points in curves.items():
        tip = f"<title>{escape(name)}</title>"
        where = [at(x, y) if math.isfinite(y) else None for x, y in points]
        path = "".join(
            f"{'L' if before else 'M'}{here[0]:.1f} {here[1]:.1f}"
            for before, here in pairwise([None, *where])
            if here
        )
        last = next((p for p in reversed(where) if p), None)
        end = f'<circle class="end" cx="{last[0]:.1f}" cy="{last[1]:.1f}" r="2.6"/>' if last else ""
        parts.append(f'<g class="line s{series[name]}">{tip}<path d="{path}"/>{end}</g>')
    return _svg(width, height, title, parts)


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers within [low, high], roughly ``about`` of them."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def padded(low: float, high: float) -> tuple[float, float]:
    """The range with a little room; a range of one point becomes a small one around it."""
    room = 0.05 * (high - low) or max(abs(high) * 0.1, 0.5)
    return low - room, high + room


def _grid_x(
    marks: Sequence[float], at: Callable[[float], float], top: float, bottom: float, unit: str
) -> list[str]:
    parts = []
    for mark in marks:
        x = at(mark)
        kind = "zero" if mark == 0 else "grid"
        parts.append(f'<path class="{kind}" d="M{x:.1f} {top}V{bottom:.1f}"/>')
        parts.append(
            _text(x, bottom + 18, f"{signed(mark, 0 if mark == int(mark) else 1)} {unit}", "middle", "small")
        )
    return parts


def _text(x: float, y: float, text: str, anchor: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
