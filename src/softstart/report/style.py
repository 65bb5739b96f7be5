"""Colors of methods, and figures that stand alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

from softstart.report import figures
from softstart.report.tables import LABELS

# Okabe and Ito's color-blind-safe palette, darkened or lightened for contrast: (on light, on dark).
_COLORS = {
    "pt": ("#6b7280", "#9aa3b2"),
    "ft": ("#b8588f", "#e59cc6"),
    "multitask": ("#d18f00", "#f2b134"),
    "maml": ("#0072b2", "#56b4e9"),
    "fomaml": ("#00896b", "#35c79c"),
    "reptile": ("#d55e00", "#ff8f4a"),
}
_SPARE = (("#7570b3", "#a9a5e0"), ("#8a6d3b", "#c9a66b"), ("#2b8cbe", "#8ccbe8"), ("#a50f15", "#f0888c"))

_STYLE = """
svg { --ink: #1c1f24; --soft: #5d6470; --grid: #e4e1db; --card: #ffffff; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e8e6e1; --soft: #a0a6b1; --grid: #30343c; --card: #14161a; }
}
svg { font: 12.5px system-ui, -apple-system, "Segoe UI", sans-serif; }
.paper { fill: var(--card); } text { fill: var(--ink); } text.small { fill: var(--soft); font-size: 11px; }
.title { font-weight: 600; }
.grid { stroke: var(--grid); fill: none; } .zero { stroke: var(--soft); fill: none; }
.rule { stroke: var(--grid); fill: none; } .bar { fill: var(--c); opacity: .85; }
.whisker { stroke: var(--ink); fill: none; } .value { font-weight: 600; }
.dot { fill: var(--c); stroke: var(--card); } .band { stroke: var(--c); fill: none; opacity: .45; }
.near { fill: #00896b; } .apart { fill: #d55e00; }
.line path { stroke: var(--c); fill: none; stroke-width: 2; } .line .end { fill: var(--c); }
.shade { fill: var(--c); opacity: .13; }
.gain, .key g { stroke: var(--c); fill: var(--c); } .gain path { stroke-width: 1.6; }
"""


def color(method: str, i: int) -> tuple[str, str]:
    """The color of a method on light and on dark ground; ``i`` chooses one for methods without their own."""
    return _COLORS.get("multitask" if method == "multi" else method, _SPARE[i % len(_SPARE)])


def standalone(title: str, panels: Mapping[str, str], series: Mapping[str, int]) -> str:
    """Panels in a grid under a legend as one SVG that needs no page: for Markdown and for slides.

    Args:
        title: what the figure shows.
        panels: title of each panel → its SVG (see ``figures``), all of one size.
        series: label of each series → its number.
    """
    columns = min(3, len(panels))
    wide, high = 320, 250
    width, height = columns * wide + 20, 66 + high * -(-len(panels) // columns)
    parts = []
    for n, (name, figure) in enumerate(panels.items()):
        left, top = 20 + wide * (n % columns), 66 + high * (n // columns)
        parts.append(f'<text class="small" x="{left + 40}" y="{top + 16}">{escape(name)}</text>')
        place = f'<svg x="{left}" y="{top + 24}" width="300" height="200" '
        parts.append(re.sub(r'^<svg xmlns="[^"]*" ', place, figure))
    return _page(title, width, height, parts, series)


def alone(title: str, figure: str, series: Mapping[str, int]) -> str:
    """One figure under its legend as an SVG that needs no page; see ``standalone``."""
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', figure)[0])
    width = max(width, 480.0)
    place = f'<svg x="20" y="66" width="{width:.0f}" height="{height:.0f}" '
    return _page(title, width + 40, height + 76, [re.sub(r'^<svg xmlns="[^"]*" ', place, figure)], series)


def _page(title: str, width: float, height: float, parts: list[str], series: Mapping[str, int]) -> str:
    keys = {text: method for method, text in LABELS.items()}
    rules = [color(keys.get(name, name), i) for name, i in series.items()]
    light = "".join(f".s{i} {{ --c: {c}; }} " for i, (c, _) in zip(series.values(), rules, strict=True))
    dark = "".join(f".s{i} {{ --c: {c}; }} " for i, (_, c) in zip(series.values(), rules, strict=True))
    top = [f'<rect class="paper" width="{width:.0f}" height="{height:.0f}"/>']
    top.append(f'<text class="title" x="20" y="26">{escape(title)}</text>')
    x = 20.0
    for name, i in series.items():
        top.append(f'<g transform="translate({x:.0f} 38)">{figures.marker(i)}</g>')
        top.append(f'<text x="{x + 20:.0f}" y="50">{escape(name)}</text>')
        x += 44 + 7.5 * len(name)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(title)}"><style>{_STYLE}{light}'
        f"@media (prefers-color-scheme: dark) {{ {dark} }}</style>{''.join([*top, *parts])}</svg>\n"
    )
