"""Figures as SVG text, drawn by hand: no dependency, no script, legible in light and dark.

No color is written here: marks of series i have the class ``s{i}``, to which the page or the file gives a
color and a dash (``softstart.report.style.method_rules``), so that a method looks the same in every figure.
How everything else is drawn is in ``figures.css``. All text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise

from softstart.report.style import DASHES
from softstart.report.words import interval, signed

Series = Mapping[str, Sequence[tuple[float, float]]]
"""Name → points (x, y), in order of x."""

_MARKERS: tuple[Callable[[float, float], str], ...] = (
    lambda x, y: f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>',
    lambda x, y: f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>',
    lambda x, y: f'<path d="M{x:.1f} {y - 5.5:.1f}l5.5 9.5h-11z"/>',
    lambda x, y: f'<path d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6-6z"/>',
    lambda x, y: f'<path d="M{x:.1f} {y + 5.5:.1f}l5.5-9.5h-11z"/>',
    lambda x, y: f'<path d="{_plus(x, y)}"/>',
    lambda x, y: f'<path transform="rotate(45 {x:.1f} {y:.1f})" d="{_plus(x, y)}"/>',
    lambda x, y: f'<rect x="{x - 6:.1f}" y="{y - 2.2:.1f}" width="12" height="4.4"/>',
)


def _plus(x: float, y: float) -> str:
    return f"M{x - 5:.1f} {y - 1.6:.1f}h3.4v-3.4h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4z"


def symbol(series: int, x: float, y: float) -> str:
    """The marker of series i around a point."""
    return _MARKERS[series % len(_MARKERS)](x, y)


def marker(series: int) -> str:
    """The marker of series i alone, as an inline SVG for legends; on its line where that is dashed."""
    dashed = series // len(_MARKERS) % len(DASHES) > 0
    width = 30 if dashed else 14
    line = f'<path class="stroke" d="M1 7H{width - 1}"/>' if dashed else ""
    size = f'viewBox="0 0 {width} 14" width="{width}" height="14"'
    shape = f'<g class="s{series}">{line}{symbol(series, width / 2, 7)}</g>'
    return f'<svg class="key" {size} aria-hidden="true">{shape}</svg>'


def bars(
    values: Mapping[str, tuple[float, float, float]],
    series: Mapping[str, int],
    *,
    title: str,
    axis: str = "",
    unit: str = "%",
    narrow: bool = False,
) -> str:
    """Horizontal bars from zero with an interval on each: name → (value, low, high).

    NaN as a value leaves the row without a bar, NaN as a limit the bar without an interval. ``axis`` says
    what the numbers are; ``narrow`` draws for a phone, with names above the bars.
    """
    width, row, right, top = (_NARROW, 52, _EDGE, 6) if narrow else (720, 38, 172, 8)
    left = _EDGE if narrow else max(118, _room_for(values))
    finite = [v for triple in values.values() for v in triple if math.isfinite(v)]
    lowest, highest = padded(min([0.0, *finite]), max([0.0, *finite]))
    bottom = top + row * len(values)

    def at(value: float) -> float:
        return left + (value - lowest) / (highest - lowest) * (width - left - right)

    parts = _grid_x(ticks(lowest, highest, 4 if narrow else 6), at, top, bottom, unit)
    parts += _x_axis(axis, left, width - right, bottom)
    for i, (name, (value, low, high)) in enumerate(values.items()):
        y = top + row * (i + 0.5) + (12 if narrow else 0)
        parts.append(_name(name, y - 18 if narrow else y + 4.5, 0 if narrow else left - 12, narrow))
        reading = f"{signed(value)} {unit}" if math.isfinite(value) else "undefined"
        group = [f"<title>{escape(f'{name}: {reading} {interval(low, high)}'.strip())}</title>"]
        if math.isfinite(value):
            x0, x1 = sorted((at(0), at(value)))
            group.append(
                f'<rect class="bar" x="{x0:.1f}" y="{y - 9:.1f}" width="{x1 - x0:.1f}" height="18" rx="2"/>'
            )
        if math.isfinite(low) and math.isfinite(high):
            whisker = f"M{at(low):.1f} {y:.1f}H{at(high):.1f}"
            whisker += f"M{at(low):.1f} {y - 5:.1f}v10M{at(high):.1f} {y - 5:.1f}v10"
            # A bar can have the color of the whisker: the halo sets them apart.
            group.append(f'<path class="halo" d="{whisker}"/><path class="whisker" d="{whisker}"/>')
        parts.append(f'<g class="s{series[name]}">{"".join(group)}</g>')
        if narrow:
            parts.append(_text(width, y - 18, f"{reading} {interval(low, high)}".strip(), "end", "small"))
            continue
        parts.append(_text(width, y - 1, reading, "end", "value"))
        parts.append(_text(width, y + 13, interval(low, high), "end", "small"))
    return _svg(width, bottom + _axis_room(axis), title, parts)


def dots(
    rows: Mapping[str, Mapping[str, float]],
    series: Mapping[str, int],
    *,
    title: str,
    axis: str = "",
    unit: str = "%",
    absent: Mapping[str, str] | None = None,
    limits: Mapping[tuple[str, str], tuple[float, float]] | None = None,
    narrow: bool = False,
) -> str:
    """One line per row (a task) with one marker per series (a method): row → name → value.

    ``limits`` gives (row, name) an interval, drawn behind its marker; then series lie below one another.
    ``axis`` says what the numbers are; ``narrow`` draws for a phone, with names above their markers.

    The axis is linear up to ±150 and compressed beyond (asinh), so that one huge gain does not flatten the
    rest. ``absent`` gives rows without any finite value a few words in place of markers.
    """
    limits = limits or {}
    most = max((len(values) for values in rows.values()), default=1)
    width, right = _NARROW if narrow else 720, max(_EDGE, 20 + 6 * len(unit))
    row, top = (14 + 9 * most if limits else 30) + (16 if narrow else 0), 8
    left = max(_EDGE, 14 + 4 * len(unit)) if narrow else _room_for(rows)
    finite = [v for values in rows.values() for v in values.values() if math.isfinite(v)]
    finite += [v for band in limits.values() for v in band if math.isfinite(v)]
    lowest, highest = padded(min([0.0, *finite]), max([0.0, *finite]))
    compressed = max(-lowest, highest) > 150
    scale = (lambda v: math.asinh(v / 25)) if compressed else (lambda v: v)
    bottom = top + row * len(rows)

    def at(value: float) -> float:
        span = scale(highest) - scale(lowest)
        return left + (scale(value) - scale(lowest)) / span * (width - left - right)

    marks: Sequence[float] = ticks(lowest, highest, 4 if narrow else 6)
    if compressed:
        decades = (-100, -50, -20, 0, 20, 50, 100, 200, 500, 1000, 2000, 5000)
        marks = _apart([v for v in decades if lowest <= v <= highest], at, 52)
    parts = _grid_x(marks, at, top, bottom, unit) + _x_axis(axis, left, width - right, bottom)
    for n, (name, values) in enumerate(rows.items()):
        y = top + row * (n + 0.5) + (8 if narrow else 0)
        parts.append(f'<path class="rule" d="M{left:.1f} {y:.1f}H{width - right}"/>')
        parts.append(
            _name(name, top + row * n + 10 if narrow else y + 4.5, 0 if narrow else left - 12, narrow)
        )
        shown = {s: v for s, v in values.items() if math.isfinite(v)}
        if not shown and absent and name in absent:
            parts.append(_text(left + 8, y + 4.5, absent[name], "start", "small"))
        for i, (method, value) in enumerate(shown.items()):
            low, high = limits.get((name, method), (math.nan, math.nan))
            tip = escape(f"{name}, {method}: {signed(value)} {unit} {interval(low, high)}".strip())
            level = y + (9 * (i - (len(shown) - 1) / 2) if limits else 0)
            band = ""
            if math.isfinite(low) and math.isfinite(high):
                band = f'<path class="band" d="M{at(low):.1f} {level:.1f}H{at(high):.1f}"/>'
            shape = symbol(series[method], at(value), level)
            parts.append(f'<g class="dot s{series[method]}"><title>{tip}</title>{band}{shape}</g>')
    return _svg(width, bottom + _axis_room(axis), title, parts)


def lines(
    curves: Series,
    series: Mapping[str, int],
    *,
    title: str,
    x_label: str = "step",
    y_label: str = "",
    y_limits: tuple[float, float] | None = None,
    bands: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
) -> str:
    """A small panel of lines, one per series; y in the units of the data. NaN breaks a line.

    ``bands`` gives a series (x, low, high), shaded behind the lines.
    """
    width, height, left, right, top, bottom = 300, 200, 40, 12, 24, 34
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

    parts = _grid_y(ticks(y0, y1, 5), lambda v: at(x0, v)[1], left, width - right, y_label)
    for tick, anchor in ((x0, "start"), (x1, "end")):
        parts.append(_text(at(tick, y0)[0], height - bottom + 16, f"{tick:g}", anchor, "small"))
    parts.append(_text((left + width - right) / 2, height - bottom + 16, x_label, "middle", "small"))
    for name, edges in (bands or {}).items():
        around = [(x, high) for x, _, high in edges] + [(x, low) for x, low, _ in reversed(edges)]
        if around and all(math.isfinite(v) for point in around for v in point):
            outline = "L".join("{:.1f} {:.1f}".format(*at(x, min(max(y, y0), y1))) for x, y in around)
            parts.append(f'<path class="shade s{series[name]}" d="M{outline}z"/>')
    for name, points in curves.items():
        tip = f"<title>{escape(name)}</title>"
        where = [at(x, y) if math.isfinite(y) else None for x, y in points]
        path = "".join(
            f"{'L' if before else 'M'}{here[0]:.1f} {here[1]:.1f}"
            for before, here in pairwise([None, *where])
            if here
        )
        last = next((p for p in reversed(where) if p), None)
        end = f'<g class="end" transform="translate({last[0]:.1f} {last[1]:.1f}) scale(.6)">' if last else ""
        end += f"{symbol(series[name], 0, 0)}</g>" if last else ""
        parts.append(f'<g class="line s{series[name]}">{tip}<path d="{path}"/>{end}</g>')
    return _svg(width, height, title, parts)


def heat_map(
    names: Sequence[str], values: Sequence[Sequence[float]], *, title: str, narrow: bool = False
) -> str:
    """A square of similarities in [-1, 1], names on the left; the darker, the more similar.

    ``narrow`` draws for a phone, in less width than height.

    Cells of a row that have one of 20 shades are one path, and a row names the most similar tasks, so that
    a hundred tasks stay light.
    """
    side, most = 16.0, 15 if narrow else _LONGEST
    left = 16 + 7.2 * min(most, max(map(len, names), default=4)) if narrow else _room_for(names, 6.6)
    across = (_NARROW - left - 4) / max(1, len(names)) if narrow else side
    width, bottom = left + across * len(names) + 4, side * len(names) + 8
    parts = _shading(left, bottom)
    for i, row in enumerate(values):
        parts.append(_text(left - 8, 4 + side * (i + 0.72), _short(names[i], most), "end", "small"))
        nearest = sorted((j for j in range(len(row)) if j != i), key=lambda j: -row[j])[:3]
        tip = f"{names[i]}, most like {', '.join(f'{names[j]} {signed(row[j], 2)}' for j in nearest)}"
        shades: dict[int, str] = {}
        for j, value in enumerate(row):
            shade = round(20 * max(-1.0, min(1.0, value)))
            wide = across - min(1.0, across / 4)
            place = f"M{left + across * j:.1f} {4 + side * i:g}"
            cell = f"{place}h{wide:.1f}v{side - 1:g}h-{wide:.1f}z"
            shades[shade] = shades.get(shade, "") + cell
        paths = "".join(
            f'<path class="{"near" if shade > 0 else "apart"}" opacity="{abs(shade) / 20:g}" d="{cells}"/>'
            for shade, cells in sorted(shades.items())
            if shade
        )
        parts.append(f"<g><title>{escape(tip)}</title>{paths}</g>")
    return _svg(round(width), bottom + 28, title, parts)


def _shading(left: float, top: float) -> list[str]:
    """What the shades of a heat map mean: from opposite over unlike to alike."""
    parts = []
    for i, value in enumerate((-1.0, -0.5, 0.0, 0.5, 1.0)):
        x, kind = left + 24 * i, "near" if value > 0 else "apart"
        place = f'x="{x:.1f}" y="{top + 2:.1f}" width="22" height="8"'
        parts.append(f'<rect class="{kind}" opacity="{abs(value):g}" {place}/>')
        if value in (-1, 0, 1):
            parts.append(_text(x + 11, top + 22, signed(value, 0), "middle", "small"))
    return parts


def scatter(
    groups: Mapping[str, Sequence[tuple[str, float, float]]],
    series: Mapping[str, int],
    *,
    title: str,
    x_label: str,
) -> str:
    """A small panel of points, one marker shape a series: series → (name, x, y in points)."""
    width, height, left, right, top, bottom = 300, 214, 40, 12, 24, 40
    known = {
        name: [p for p in points if math.isfinite(p[1]) and math.isfinite(p[2])]
        for name, points in groups.items()
    }
    every = [point for points in known.values() for point in points]
    x0, x1 = padded(min((x for _, x, _ in every), default=0.0), max((x for _, x, _ in every), default=1.0))
    y0, y1 = padded(min([0.0, *(y for *_, y in every)]), max([0.0, *(y for *_, y in every)]))

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - x0) / (x1 - x0) * (width - left - right),
            top + (y1 - y) / (y1 - y0) * (height - top - bottom),
        )

    parts = _grid_y(ticks(y0, y1, 5), lambda v: at(x0, v)[1], left, width - right, "gain, points")
    for mark in ticks(x0, x1, 4):
        parts.append(_text(at(mark, 0)[0], height - bottom + 16, signed(mark, 2), "middle", "small"))
    parts.append(_text((left + width - right) / 2, height - 6, x_label, "middle", "small"))
    for name, points in known.items():
        for task, x, y in points:
            tip = escape(f"{task}, {name}: {signed(y)} points at {signed(x, 2)}")
            shape = symbol(series[name], *at(x, y))
            parts.append(f'<g class="dot s{series[name]}"><title>{tip}</title>{shape}</g>')
    return _svg(width, height, title, parts)


def by_budget(
    panels: Mapping[str, Mapping[str, Sequence[tuple[int, float, float, float]]]],
    series: Mapping[str, int],
) -> dict[str, str]:
    """Gain against budget: a panel for each group, all on one scale, as group → SVG.

    Args:
        panels: group → series → points (steps, value, low, high) in order of steps; 0 steps is the full
            budget, NaN leaves out a mark or its interval.
        series: which marker and color each series has.
    """
    width, height, left, right, top, bottom = 300, 214, 40, 12, 24, 34
    every = [point for curves in panels.values() for points in curves.values() for point in points]
    finite = [v for _, *values in every for v in values if math.isfinite(v)]
    y0, y1 = padded(min([0.0, *finite]), max([0.0, *finite]))
    budgets = sorted({point[0] for point in every}, key=lambda b: b or math.inf)

    def at(budget: int, shift: float, value: float) -> tuple[float, float]:
        column = (width - left - right) / max(1, len(budgets))
        x = left + column * (budgets.index(budget) + 0.5 + 0.6 * shift)
        return x, top + (y1 - value) / (y1 - y0) * (height - top - bottom)

    figures = {}
    for group, curves in panels.items():
        parts = _grid_y(
            ticks(y0, y1, 5), lambda v: at(budgets[0], 0, v)[1], left, width - right, "gain, points"
        )
        for budget in budgets:
            name = str(budget) if budget else "full"
            parts.append(_text(at(budget, 0, 0)[0], height - bottom + 16, name, "middle", "small"))
        parts.append(_text((left + width - right) / 2, height - 4, "steps of adaptation", "middle", "small"))
        for i, (name, points) in enumerate(curves.items()):
            shift = (i + 0.5) / len(curves) - 0.5
            parts.append(f'<g class="gain s{series[name]}">')
            for budget, value, low, high in points:
                if not math.isfinite(value):
                    continue
                x, y = at(budget, shift, value)
                tip = f"{name}, {budget or 'all'} steps: {signed(value)} points {interval(low, high)}"
                parts.append(f"<g><title>{escape(tip.strip())}</title>")
                if math.isfinite(low) and math.isfinite(high):
                    y_low, y_high = (at(budget, shift, v)[1] for v in (low, high))
                    parts.append(f'<path d="M{x:.1f} {y_low:.1f}V{y_high:.1f}"/>')
                parts.append(f"{symbol(series[name], x, y)}</g>")
            parts.append("</g>")
        figures[group] = _svg(width, height, f"Gain in points by steps of adaptation: {group}", parts)
    return figures


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


def _apart(marks: Sequence[float], at: Callable[[float], float], room: float) -> list[float]:
    """Marks whose labels do not touch: zero first, then outwards."""
    kept: list[float] = []
    for mark in sorted(marks, key=abs):
        if all(abs(at(mark) - at(other)) >= room for other in kept):
            kept.append(mark)
    return sorted(kept)


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


def _grid_y(
    marks: Sequence[float], at: Callable[[float], float], left: float, right: float, label: str = ""
) -> list[str]:
    """Lines and their numbers; what the numbers are stands above."""
    parts = [_text(0, 11, label, "start", "small")] if label else []
    for mark in marks:
        kind = "zero" if mark == 0 else "grid"
        parts.append(f'<path class="{kind}" d="M{left} {at(mark):.1f}H{right}"/>')
        parts.append(_text(left - 6, at(mark) + 4, f"{mark:g}".replace("-", "\u2212"), "end", "small"))
    return parts


def _x_axis(label: str, left: float, right: float, bottom: float) -> list[str]:
    """What the numbers below a grid are."""
    return [_text((left + right) / 2, bottom + 36, label, "middle", "small")] if label else []


def _axis_room(label: str) -> int:
    return 44 if label else 34


def _name(name: str, y: float, x: float, narrow: bool) -> str:
    """The name of a row: left of its marks, or above them."""
    return _text(x, y, _short(name), "start" if narrow else "end", "name")


def _text(x: float, y: float, text: str, anchor: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


_NARROW = 320
"""Width of a figure for a phone: what is left of 390 points between margins."""
_EDGE = 26
"""Room beside a narrow grid: half of the number at its last mark."""
_LONGEST = 26
"""Letters of a name next to a row."""


def _room_for(names: Iterable[str], letter: float = 7.2) -> float:
    """Width of the column of names, given that of a letter."""
    return 30 + letter * min(_LONGEST, max(map(len, names), default=4))


def _short(name: str, longest: int = _LONGEST) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
