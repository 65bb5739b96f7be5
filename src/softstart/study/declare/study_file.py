"""From a study file to the studies it declares: defaults of its preset, overrides, variants."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import ValidationError

from softstart.errors import SoftstartError, did_you_mean
from softstart.storage.safe_yaml import read_yaml
from softstart.study.declare.presets import filled, inherited
from softstart.study.declare.spec import LOADING, MAIN, Study, resolve_methods
from softstart.training.budgets import LIMITS
from softstart.training.configs import DECLARED
from softstart.training.ranges import check_ranges

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
"""What pydantic calls a key that is not known."""

SHARED = ("name", "variants")
"""What a variant cannot override."""

MODEL = ("backbone", "revision", "dtype", *LOADING)
DATA = (
    "gym",
    "gym_version",
    "shots",
    "source_shots",
    "setting",
    "settings",
    "source_tasks",
    "samples",
    "source_samples",
)
"""What a variant with another preset keeps, together with ``MODEL`` and the names of the methods."""


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file and apply ``a.b=value`` overrides.

    Raises:
        SoftstartError: no such file, broken YAML, or a value that does not fit, with its key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as problem:
        raise SoftstartError(
            f"cannot read the study ({problem.strerror})", where=str(path), fix="Check the path."
        ) from problem
    except UnicodeDecodeError as problem:
        line = problem.object.count(b"\n", 0, problem.start) + 1
        raise SoftstartError(
            "not UTF-8", where=f"{path}, line {line}", fix="Save the study as UTF-8."
        ) from problem
    return parse_study(text, str(path), overrides)


def parse_study(text: str, where: str, overrides: Sequence[str] = ()) -> Study:
    """A study from YAML text; see ``load_study``.

    >>> text = "{name: small, gym: mini, setting: mini-cls2cls, methods: {pt: {}}}"
    >>> parse_study(text, "small.yaml", ["prompt.length=20"]).prompt.length
    20

    Raises:
        SoftstartError: broken YAML, or a value that does not fit, with its key.
    """
    data = read_yaml(text, where)
    if not isinstance(data, dict):
        raise SoftstartError("a study is a mapping of keys to values", where=where)
    for override in overrides:
        _override(data, override)
    study = _validated(filled(data, where), where)
    for name, variant in variants_of(study, where).items():
        resolve_methods(variant, where if name == MAIN else f"{where}: variants.{name}")
    return study


def variants_of(study: Study, where: str = "study") -> dict[str, Study]:
    """The study itself under the name "main", then every variant as a study of its own.

    Raises:
        SoftstartError: an override that does not fit, or one of what all variants share.
    """
    base = study.model_dump(mode="json", exclude={"variants"})
    studies = {MAIN: study.model_copy(update={"variants": {}})}
    for name, overrides in study.variants.items():
        place = f"{where}: variants.{name}"
        data = copy.deepcopy(base)
        if "preset" in overrides:
            methods = {
                n: {k: v for k, v in m.items() if k == "algorithm"} for n, m in data["methods"].items()
            }
            data = {key: data[key] for key in ("name", *MODEL, *DATA)} | {"methods": methods}
            data = filled({**data, "preset": overrides["preset"]}, place)
        for key, value in overrides.items():
            if key.split(".")[0] in SHARED or name == MAIN:
                raise SoftstartError(
                    f"'{name if name == MAIN else key}' is shared by all variants",
                    where=place,
                    fix="Declare another study.",
                )
            for other in {"setting": ["settings"], "settings": ["setting"]}.get(key, []):
                data.pop(other)
            if key == "backbone":
                data |= {of: None for of in ("revision", "finetuning_backbone") if of not in overrides}
            if key == "methods" and isinstance(value, dict):
                value = inherited(value, data["methods"])
            _assign(data, key, value, place)
        studies[name] = _validated(data, place)
    return studies


def _validated(data: Mapping[str, Any], where: str) -> Study:
    try:
        study = Study.model_validate(data)
    except ValidationError as problem:
        # A misspelled key before the one that is missing because of it.
        first = min(problem.errors(), key=lambda error: error["type"] not in UNKNOWN)
        key = ".".join(map(str, first["loc"]))
        message, fix = first["msg"].removeprefix("Value error, "), "Fix this key in the study or with --set."
        cause = getattr(first.get("ctx", {}).get("error"), "__cause__", None)
        if isinstance(cause, SoftstartError):
            message, fix = cause.what, cause.fix or fix
        if first["type"] in UNKNOWN:
            message = "no such key"
            fix = did_you_mean(str(first["loc"][-1]), _keys_next_to(first["loc"])) or fix
        raise SoftstartError(f"{key}: {message}" if key else message, where=where, fix=fix) from problem
    check_ranges(study.model_dump(), where)
    return study


def _keys_next_to(place: Sequence[Any]) -> list[str]:
    """The keys that a study has where a key is unknown; empty if that place holds none."""
    here: Any = Study
    for part in place[:-1]:
        kinds = [get_type_hints(here).get(str(part))] if isinstance(here, type) else []
        kinds = [inner for kind in kinds for inner in (kind, *get_args(kind))]
        here = next((kind for kind in kinds if hasattr(kind, "__annotations__")), here)
    return list(get_type_hints(here))


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise SoftstartError(f"override '{override}' is not of the form key=value", fix="Write --set a.b=c.")
    _assign(data, key, read_yaml(value, f"override '{override}'"), f"override '{override}'")


def _assign(data: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set ``a.b.c`` in nested mappings."""
    *parents, last = key.split(".")
    node: Any = data
    for parent in parents:
        node = node.setdefault(parent, {}) if isinstance(node, dict) else None
        if not isinstance(node, Mapping):
            raise SoftstartError(
                f"'{parent}' holds no keys", where=where, fix=f"Give all of it: --set '{parent}={{…: …}}'."
            )
    if last in LIMITS and parents and parents[0] in ("meta", "methods"):
        for other in LIMITS:
            node.pop(other, None)
    if last == "name" and parents and parents[-1] in DECLARED:
        merged = DECLARED[parents[-1]].merged(node, {last: value})
        node.clear()
        node.update(merged)
    node[last] = value
