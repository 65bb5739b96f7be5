"""Figures that need no page: with a legend, colors and rules of their own, for Markdown and for slides."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib import resources

from softstart.report import figures
from softstart.report.style import MethodStyles, method_rules, variables

_PANELS_A_ROW = 3
_PANEL_WIDTH, _PANEL_HEIGHT = 320, 250
_TOP = 66
"""Room for the title and the legend."""


def in_panels(title: str, panels: Mapping[str, str], styles: MethodStyles, methods: list[str]) -> str:
    """Panels in a grid under a legend, as one SVG.

    Args:
        title: what the figure shows.
        panels: title of each panel → its SVG (see ``figures``), all of one size.
        styles: the methods of the report.
        methods: those in the legend.
    """
    columns = min(_PANELS_A_ROW, len(panels))
    width, height = columns * _PANEL_WIDTH + 20, _TOP + _PANEL_HEIGHT * -(-len(panels) // columns)
    parts = []
    for n, (name, figure) in enumerate(panels.items()):
        left, top = 20 + _PANEL_WIDTH * (n % columns), _TOP + _PANEL_HEIGHT * (n // columns)
        parts.append(f'<text class="small" x="{left + 40}" y="{top + 16}">{escape(name)}</text>')
        parts.append(_placed(figure, f'x="{left}" y="{top + 24}" width="300" height="200"'))
    return _file(title, width, height, parts, styles, methods)


def alone(title: str, figure: str, styles: MethodStyles, methods: list[str]) -> str:
    """One figure under its legend, as an SVG; arguments as ``in_panels``."""
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', figure)[0])
    width = max(width, 480.0)
    parts = [_placed(figure, f'x="20" y="{_TOP}" width="{width:.0f}" height="{height:.0f}"')]
    return _file(title, width + 40, height + _TOP + 10, parts, styles, methods)


def _placed(figure: str, place: str) -> str:
    return re.sub(r'^<svg xmlns="[^"]*" ', f"<svg {place} ", figure)


def _file(
    title: str, width: float, height: float, parts: list[str], styles: MethodStyles, methods: list[str]
) -> str:
    legend, x, line = [], 20.0, 0
    for method in methods:
        style = styles[method]
        room = 44 + 7.5 * len(style.label) + 16 * (style.dash != "none")
        if x + room > width and x > 20:
            x, line = 20.0, line + 1
        y = 38 + 22 * line
        legend.append(f'<g transform="translate({x:.0f} {y})">{figures.marker(style.number)}</g>')
        x_text = x + (36 if style.dash != "none" else 20)
        legend.append(f'<text x="{x_text:.0f}" y="{y + 12}">{escape(style.label)}</text>')
        x += room
    height += 22 * line
    body = f'<g transform="translate(0 {22 * line})">{"".join(parts)}</g>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(title)}"><style>{_rules(styles)}</style>'
        f'<rect class="paper" width="{width:.0f}" height="{height:.0f}"/>'
        f'<text class="title" x="20" y="26">{escape(title)}</text>{"".join(legend)}{body}</svg>\n'
    )


def _rules(styles: MethodStyles) -> str:
    return (
        f"svg {{ {variables('light')} color-scheme: light dark; "
        'font: 12.5px system-ui, -apple-system, "Segoe UI", sans-serif; }\n'
        f"@media (prefers-color-scheme: dark) {{ svg {{ {variables('dark')} }} }}\n"
        f".paper {{ fill: var(--card); }} .title {{ font-weight: 600; }}\n"
        f"{figure_rules()}{method_rules(styles, media='')}"
    )


@cache
def figure_rules() -> str:
    """The rules that figures are drawn by, on the page and alone."""
    return (resources.files("softstart.report") / "figures.css").read_text(encoding="utf-8")
