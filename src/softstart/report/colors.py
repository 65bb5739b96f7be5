"""Colors that stay apart: for readers with any color vision, on a light and on a dark ground.

Differences are Euclidean distances in OKLab (Ottosson, 2020), the smallest over full color vision and the
simulated lack of one cone type (Machado, Oliveira and Fernandes, 2009). About 0.02 is just noticeable side
by side; marks far apart in a figure need more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from softstart.errors import SoftstartError

Floats = npt.NDArray[np.float64]

LIGHT_GROUND, DARK_GROUND = "#ffffff", "#1c1f25"
"""What figures are drawn on."""

_CONTRAST = 2.7
"""Least contrast of a mark to its ground, as WCAG 2 defines contrast."""

_STEP = 0.01
"""By which lightness changes while a color is looked for."""

_HEX = re.compile(r"#[0-9a-fA-F]{6}")

# Linear sRGB to cone responses, and their cube roots to OKLab.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
# Full vision, then no long-, medium- and short-wavelength cones (Machado et al., severity 1.0).
_VISION = np.array(
    [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
)


@dataclass(frozen=True)
class Swatch:
    """One color in its two forms: on a light and on a dark ground, as ``#rrggbb``."""

    light: str
    dark: str


PALETTE = (
    Swatch("#8f9298", "#9b9c9c"),
    Swatch("#70285b", "#c939b2"),
    Swatch("#c98701", "#edc80f"),
    Swatch("#1a3c9f", "#4281f2"),
    Swatch("#007a62", "#a9ddb2"),
    Swatch("#c43300", "#eb8437"),
    Swatch("#00a3e9", "#53baf0"),
    Swatch("#211a22", "#fdf5fc"),
)
"""Eight colors that anyone can tell apart: no two are closer than 0.11, whatever the color vision.

Hues are near those of Okabe and Ito (2008); lightness was optimized for the smallest of these distances.
"""


def check_color(color: str) -> str:
    """The color, if it is written as ``#rrggbb``.

    Raises:
        SoftstartError: it is not.
    """
    if not _HEX.fullmatch(color):
        raise SoftstartError(f"'{color}' is not a color", fix="Write it as #rrggbb, such as #1a3c9f.")
    return color.lower()


def swatch(color: str) -> Swatch:
    """A color as it is used on a light ground, with a form of the same hue for a dark one.

    Both are made darker or lighter until they stand out from their ground.
    """
    for known in PALETTE:
        if known.light == color.lower():
            return known
    return Swatch(_standing_out(color, LIGHT_GROUND, -_STEP), _standing_out(color, DARK_GROUND, _STEP))


def difference(a: Swatch, b: Swatch, *, full_vision: bool = False) -> float:
    """How far apart two colors look, on the ground where they are closer.

    Args:
        a: a color.
        b: another.
        full_vision: to full color vision; by default to the color vision that tells them apart least.
    """
    visions = slice(1) if full_vision else slice(None)
    return min(
        float(np.linalg.norm(_seen(x)[visions] - _seen(y)[visions], axis=-1).min())
        for x, y in ((a.light, b.light), (a.dark, b.dark))
    )


def another(taken: Sequence[Swatch]) -> Swatch:
    """A color that is not taken: the first of the palette that is free, else the farthest of its shades."""
    for candidate in PALETTE:
        if all(difference(candidate, other) >= _APART for other in taken):
            return candidate
    shades, seen = _shades()
    nearest = np.full(len(shades), np.inf)
    for other in taken:
        to_other = np.linalg.norm(seen - np.array([_seen(other.light), _seen(other.dark)]), axis=-1)
        nearest = np.minimum(nearest, to_other.min(axis=(1, 2)))
    return shades[int(nearest.argmax())]


_APART = 0.1
"""Colors of the palette this far from all others are free."""


@cache
def _shades() -> tuple[tuple[Swatch, ...], Floats]:
    """Hues at several strengths and lightnesses, and how they are seen: [colors, grounds, 4, 3]."""
    on_light, on_dark = np.linspace(0.25, 0.67, 7), np.linspace(0.58, 0.95, 7)
    shades = []
    for hue in np.arange(0, 2 * np.pi, np.pi / 9):
        for chroma in (0.05, 0.11, 0.17):
            ab = chroma * np.array([np.cos(hue), np.sin(hue)])
            for low, high in zip(on_light, on_dark, strict=True):
                pair = Swatch(_of_lab(np.array([low, *ab])), _of_lab(np.array([high, *ab])))
                if min(contrast(pair.light, LIGHT_GROUND), contrast(pair.dark, DARK_GROUND)) >= _CONTRAST:
                    shades.append(pair)
    return tuple(shades), np.array([[_seen(pair.light), _seen(pair.dark)] for pair in shades])


def _standing_out(color: str, ground: str, step: float) -> str:
    lightness = float(_lab(_linear(color))[0])
    changed = color.lower()
    while contrast(changed, ground) < _CONTRAST:
        lightness += step
        changed = _with_lightness(color, lightness)
    return changed


def contrast(a: str, b: str) -> float:
    """The contrast of two colors, from 1 (none) to 21, as WCAG 2 defines it."""
    low, high = sorted(float(np.array([0.2126, 0.7152, 0.0722]) @ _linear(color)) for color in (a, b))
    return (high + 0.05) / (low + 0.05)


def _with_lightness(color: str, lightness: float) -> str:
    _, a, b = _lab(_linear(color))
    return _of_lab(np.array([lightness, a, b]))


def _of_lab(lab: Floats) -> str:
    """The color of OKLab coordinates; what a screen cannot show is clipped."""
    cones = np.linalg.solve(_TO_LAB, lab) ** 3
    return _hex(np.linalg.solve(_TO_CONES, cones))


@cache
def _seen(color: str) -> Floats:
    """OKLab of a color as each kind of color vision sees it, [4, 3]."""
    return np.array([_lab(np.clip(vision @ _linear(color), 0, 1)) for vision in _VISION])


def _lab(linear: Floats) -> Floats:
    return np.asarray(_TO_LAB @ np.cbrt(_TO_CONES @ linear), dtype=np.float64)


def _linear(color: str) -> Floats:
    """Linear sRGB in [0, 1] of ``#rrggbb``."""
    c = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def _hex(linear: Floats) -> str:
    c = np.clip(linear, 0, 1)
    c = np.where(c <= 0.0031308, 12.92 * c, 1.055 * c ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * float(v)):02x}" for v in c)
