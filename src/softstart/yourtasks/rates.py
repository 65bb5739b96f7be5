"""What the commands do where nothing is said: rates that fit a backbone's size, steps, splits."""

from __future__ import annotations

from collections.abc import Sequence

from softstart.backbone import TINY, Backbone
from softstart.errors import SoftstartError, did_you_mean
from softstart.training.rates import LrUnit

DEFAULT: dict[str, tuple[float, ...]] = {"embeddings": (0.4, 0.25), "key_values": (0.05, 0.02)}
"""In units of a prompt's entries: the grid of ``adapt`` for each kind of prompt. Keys and values of all
layers move at once, so their steps are smaller: on SmolLM2 the loss rose at 0.1."""
OUTER: dict[str, float] = {"embeddings": 0.25, "key_values": 0.02}
"""In units of a prompt's entries: the outer rate of ``meta-train`` for each kind of prompt."""
EMBEDDED: tuple[float, ...] = (0.5, 0.3)
"""The same for the embedded model (entries of 1.27) in absolute numbers, as its documented results have."""
STEPS, EMBEDDED_STEPS = 100, 300
"""Steps of ``adapt``: a step of a real model on two cores takes a good part of a second for each run."""
SPLITS, EMBEDDED_SPLITS = 1, 3
"""Splits of the rows into train and dev."""
UNITS: tuple[LrUnit, ...] = ("absolute", "embedding")


def rates_for(
    backbone: Backbone, given: Sequence[float] | None, unit: str | None
) -> tuple[Sequence[float], LrUnit]:
    """The learning rates of an adaptation and their unit; see ``AdaptConfig.lr_unit``.

    Args:
        backbone: which is tuned for.
        given: rates the user gave; None: those that fit the backbone.
        unit: their unit; None: absolute for given rates.

    Raises:
        SoftstartError: no such unit.
    """
    known = _unit(unit) if unit else None
    if given:
        return given, known or "absolute"
    if backbone.name == TINY and known is None:
        return EMBEDDED, "absolute"
    return DEFAULT[backbone.prompt_kind], "embedding"


def steps_for(backbone: str) -> int:
    """How many steps ``adapt`` takes on the backbone of this name."""
    return EMBEDDED_STEPS if backbone == TINY else STEPS


def splits_for(backbone: str) -> int:
    """Into how many splits of train and dev ``adapt`` cuts the rows for the backbone of this name."""
    return EMBEDDED_SPLITS if backbone == TINY else SPLITS


def outer_rate_for(backbone: Backbone, given: float | None, unit: str | None) -> tuple[float, LrUnit]:
    """The outer learning rate of a meta-training and its unit, as ``rates_for``.

    Raises:
        SoftstartError: no such unit.
    """
    known = _unit(unit) if unit else None
    if given is not None:
        return given, known or "absolute"
    if backbone.name == TINY and known is None:
        return EMBEDDED[-1], "absolute"
    return OUTER[backbone.prompt_kind], "embedding"


def _unit(name: str) -> LrUnit:
    for unit in UNITS:
        if unit == name:
            return unit
    raise SoftstartError(
        f"unknown unit '{name}' of learning rates",
        where="--lr-unit",
        fix=did_you_mean(name, UNITS) or f"Use {' or '.join(UNITS)}.",
    )
