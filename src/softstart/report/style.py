"""How methods look, and the colors of everything else: declared here for page, figures and LaTeX alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from softstart.report.colors import (
    DARK_GROUND,
    LIGHT_GROUND,
    PALETTE,
    Swatch,
    another,
    check_color,
    difference,
    swatch,
)


@dataclass(frozen=True)
class Appearance:
    """How a method is shown: its label, and its color on a light ground, as ``#rrggbb``.

    Without a color, or where another method of the report has one that looks alike, one is chosen.

    Raises:
        SoftstartError: the color is not written as ``#rrggbb``.
    """

    label: str
    color: str | None = None

    def __post_init__(self) -> None:
        if self.color is not None:
            check_color(self.color)


DEFAULTS: Mapping[str, Appearance] = {
    "pt": Appearance("PT", PALETTE[0].light),
    "ft": Appearance("FT", PALETTE[1].light),
    "lora": Appearance("LoRA", "#7f3c6b"),
    "features": Appearance("Features", "#0089da"),
    "in_context": Appearance("In-context", "#70a664"),
    "zero_shot": Appearance("Zero-shot", "#495f44"),
    "multitask": Appearance("Multi-task", PALETTE[2].light),
    "multi": Appearance("Multi-task", PALETTE[2].light),
    "maml": Appearance("MAML", PALETTE[3].light),
    "fomaml": Appearance("FoMAML", PALETTE[4].light),
    "reptile": Appearance("Reptile", PALETTE[5].light),
    "anil": Appearance("ANIL", "#00a3e9"),
    "imaml": Appearance("iMAML", "#211a22"),
    "metasgd": Appearance("Meta-SGD", "#003e00"),
    "multitask_prompt": Appearance("Multitask prompt", "#9a6a00"),
    "spot": Appearance("SPoT", "#7145df"),
    "source_mixture": Appearance("Source mixture", "#b0508e"),
}
"""How methods look of which no more than the name is known, in the order of tables and figures.

The same as the algorithms declare (a test compares them); this module cannot ask them, since it loads without
torch. Methods that are not listed are shown by their name.
"""

DASHES = ("none", "6 3", "2 2", "8 3 2 3")
"""How lines are dashed (SVG's ``stroke-dasharray``): one more for every eight methods."""

_ALIKE = 0.05
"""Two declared colors that are closer than this to full color vision are not both kept."""

THEME: Mapping[str, Mapping[str, str]] = {
    "light": {
        "bg": "#fbfaf8", "card": LIGHT_GROUND, "ink": "#1c1f24", "soft": "#5d6470", "rule": "#e4e1db",
        "grid": "#ebe8e2", "tint": "#f0f4f1", "accent": "#00705a", "veil": "rgb(10 12 15 / 45%)",
        "near": "#007a62", "apart": "#c43300",
        "shadow": "0 1px 2px rgb(30 30 20 / 6%), 0 6px 24px rgb(30 30 20 / 5%)",
    },
    "dark": {
        "bg": "#14161a", "card": DARK_GROUND, "ink": "#e8e6e1", "soft": "#a0a6b1", "rule": "#30343c",
        "grid": "#292d35", "tint": "#212b29", "accent": "#4fd0ab", "near": "#35c79c", "apart": "#ff8f4a",
        "shadow": "none",
    },
    "print": {
        "bg": "#fff", "card": "#fff", "ink": "#000", "soft": "#444", "rule": "#bbb", "grid": "#ddd",
        "tint": "#eee", "accent": "#00543f", "shadow": "none",
    },
}  # fmt: skip
"""Colors that belong to no method, by ground; each is the CSS variable of its name. ``near`` and ``apart``
shade similarities above and below zero."""


@dataclass(frozen=True)
class MethodStyle:
    """A method as it is drawn: its label, its place among the methods of its study, its color and dash."""

    label: str
    number: int
    color: Swatch
    dash: str


class MethodStyles(Mapping[str, MethodStyle]):
    """The methods of one report, in the order of its tables and figures, and how each looks.

    No two have the same label or color.

    Args:
        methods: the methods, in any order; repeated ones count once.
        appearance: label and color of methods by name; ``DEFAULTS`` for those it lacks.
        baseline: the method that gains are relative to; it is one of them.
    """

    def __init__(
        self,
        methods: Iterable[object],
        appearance: Mapping[str, Appearance] | None = None,
        baseline: str = "pt",
    ) -> None:
        self.baseline = baseline
        self._appearance = {**DEFAULTS, **(appearance or {})}
        self._places = {name: i for i, name in enumerate(self._appearance)}
        ordered = self.in_order([*methods, baseline])
        looks = [self._appearance.get(method, Appearance(method)) for method in ordered]
        labels, colors = _labels(ordered, looks), _colors(looks)
        self._styles = {
            method: MethodStyle(label, i, color, DASHES[i // len(PALETTE) % len(DASHES)])
            for i, (method, label, color) in enumerate(zip(ordered, labels, colors, strict=True))
        }

    def __getitem__(self, method: str) -> MethodStyle:
        return self._styles[method]

    def __iter__(self) -> Iterator[str]:
        return iter(self._styles)

    def __len__(self) -> int:
        return len(self._styles)

    @property
    def others(self) -> list[str]:
        """All methods but the baseline."""
        return [method for method in self if method != self.baseline]

    @property
    def baseline_label(self) -> str:
        """How the baseline is written."""
        return self.label(self.baseline)

    @property
    def numbers(self) -> dict[str, int]:
        """The number of every method by its label, as figures need it."""
        return {style.label: style.number for style in self.values()}

    def label(self, method: str) -> str:
        """How a method is written, whether or not it is one of the report's."""
        if method in self._styles:
            return self._styles[method].label
        return self._appearance[method].label if method in self._appearance else method

    def in_order(self, methods: Iterable[object]) -> tuple[str, ...]:
        """Distinct methods: those of ``DEFAULTS`` first, then as declared, then the others by name."""
        distinct = {str(method) for method in methods}
        return tuple(sorted(distinct, key=lambda m: (self._places.get(m, len(self._places)), m)))


def _labels(methods: Sequence[str], looks: Sequence[Appearance]) -> list[str]:
    """The labels; where several are equal, with the name of the method."""
    times = Counter(look.label for look in looks)
    labels = [
        look.label if times[look.label] == 1 else f"{look.label} ({method})"
        for method, look in zip(methods, looks, strict=True)
    ]
    return labels if len(set(labels)) == len(labels) else list(methods)


def _colors(looks: Sequence[Appearance]) -> list[Swatch]:
    """A color for each: the declared one, unless an earlier one looks like it; then one that is free."""
    chosen: dict[int, Swatch] = {}
    for i, look in enumerate(looks):
        if look.color is None:
            continue
        wanted = swatch(look.color)
        if all(difference(wanted, other, full_vision=True) >= _ALIKE for other in chosen.values()):
            chosen[i] = wanted
    for i in range(len(looks)):
        if i not in chosen:
            chosen[i] = another(list(chosen.values()))
    return [chosen[i] for i in range(len(looks))]


def variables(ground: str) -> str:
    """The colors of a ground in ``THEME`` as CSS declarations."""
    return " ".join(f"--{name}: {value};" for name, value in THEME[ground].items())


def page_rules() -> str:
    """The variables that the page's style sheets read, for screens, dark screens and paper."""
    return (
        f":root {{ color-scheme: light dark; {variables('light')} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {variables('dark')} }} }}\n"
        f"@media print {{ :root {{ color-scheme: light; {variables('print')} }} }}\n"
    )


def method_rules(styles: MethodStyles, media: str = "screen and ") -> str:
    """The color (``--c``) and dash (``--dash``) of series i, which figures mark with the class ``s{i}``.

    Args:
        styles: the methods.
        media: what comes before the query for dark grounds; by default paper stays light.
    """
    light = "\n".join(f".s{s.number} {{ --c: {s.color.light}; --dash: {s.dash}; }}" for s in styles.values())
    dark = " ".join(f".s{s.number} {{ --c: {s.color.dark}; }}" for s in styles.values())
    return f"{light}\n@media {media}(prefers-color-scheme: dark) {{ {dark} }}\n"
