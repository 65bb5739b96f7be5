"""Presets: named defaults of a study, as data; every key that a study gives overrides them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from softstart.registry import Registry
from softstart.training.budgets import LIMITS
from softstart.training.configs import DECLARED

PRESETS: Registry[Traversable] = Registry("preset")
"""The files of the presets, by name."""

for _name in ("paper", "fast", "corrected", "tiny"):
    PRESETS.add(_name, resources.files(__name__).joinpath(f"{_name}.yaml"))


def preset_values(name: str, where: str = "study") -> dict[str, Any]:
    """The values of a preset.

    Raises:
        SoftstartError: there is none of this name.
    """
    return copy.deepcopy(_parsed(PRESETS.find(name, f"{where}: preset").read_text(encoding="utf-8")))


@cache
def _parsed(text: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def filled(declared: Mapping[str, Any], where: str = "study") -> dict[str, Any]:
    """A declared study with the values of its preset; without a preset, unchanged.

    The values of a preset for a method apply if the study has that method, by its name or its ``algorithm``.
    A study without ``methods`` gets all those of the preset.
    """
    if declared.get("preset") is None:
        return dict(declared)
    values = preset_values(declared["preset"], where)
    if "backbone" in declared and "finetuning_backbone" in values:
        values["finetuning_backbone"] = None  # it is another size of that one
    return merged(values, declared)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two declarations as one; where both have a value, the one above decides.

    The methods are those of the one above. Limits on the length of meta-training replace each other.
    """
    out, lower, upper = _over(below, above), below.get("methods"), above.get("methods")
    if isinstance(lower, Mapping) and isinstance(upper, Mapping):
        out["methods"] = inherited(upper, lower)
    return out


def inherited(methods: Mapping[str, Any], below: Mapping[str, Any]) -> dict[str, Any]:
    """Methods with the values of another declaration for each, by its name or by its ``algorithm``."""
    return {name: _under(name, values, below) for name, values in methods.items()}


def _under(name: str, values: Any, below: Mapping[str, Any]) -> Any:
    if not isinstance(values, Mapping):
        return values
    algorithm = values.get("algorithm", name)
    if not isinstance(algorithm, str):  # refused when the study is validated
        return values
    defaults: Mapping[str, Any] = below.get(name) or below.get(algorithm) or {}
    return _limited(defaults, values)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and key in DECLARED:
            out[key] = DECLARED[key].merged(old, value)
        elif isinstance(old, Mapping) and isinstance(value, Mapping) and key not in _WHOLE:
            out[key] = (_limited if key == "meta" else _over)(old, value)
        else:
            out[key] = value
    return out


_WHOLE = ("test_rows", "variants")
"""Mappings that are replaced as a whole."""


def _limited(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    if not LIMITS.isdisjoint(above):
        below = {key: value for key, value in below.items() if key not in LIMITS}
    return _over(below, above)
