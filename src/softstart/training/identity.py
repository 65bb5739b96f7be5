"""Which fields of a configuration belong to the key of a result: each field says so itself, in its type.

A field without a mark belongs to the key: another value may give another number. ``Added`` keeps the keys of
results that are older than the field, ``Unkeyed`` leaves out what changes no number.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, cast, get_type_hints

from pydantic import BaseModel


@dataclass(frozen=True)
class Added:
    """A field that came when there were results already: no part of a key under the value that they had.

    >>> from softstart.training.configs import FineTuneConfig
    >>> ["reshuffle" in identity_of(FineTuneConfig(reshuffle=value)) for value in (True, False)]
    [False, True]
    """

    unchanged: Any


@dataclass(frozen=True)
class Unkeyed:
    """A field that decides how work is cut, not what comes out: no part of a key.

    Args:
        unless: another field of the same configuration under which the results do depend on this one. Where
            that field is set, this one is part of the key unless it has its default: older results, which
            were stored without it, are taken to have been computed under the default.
        same: values that mean what the default means under that condition.
    """

    unless: str | None = None
    same: tuple[object, ...] = ()


def identity_of(value: Any) -> Any:
    """A configuration as plain data: what the key of a result holds of it.

    Dataclasses and pydantic models become mappings of the fields that belong to keys; an object with a method
    ``identity`` becomes what that returns.
    """
    if hasattr(value, "identity"):
        return identity_of(value.identity())
    if isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type)):
        return {name: identity_of(getattr(value, name)) for name in keyed_fields(value)}
    if isinstance(value, Mapping):
        return {name: identity_of(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [identity_of(inner) for inner in value]
    return value


def keyed_fields(config: Any) -> Iterator[str]:
    """The names of the fields that belong to a key, under their present values."""
    for name, (marks, default) in _fields(cast(Hashable, type(config))).items():
        value = getattr(config, name)
        unchanged = [mark.unchanged for mark in marks if isinstance(mark, Added)]
        unkeyed = [mark for mark in marks if isinstance(mark, Unkeyed)]
        matters = all(
            mark.unless and getattr(config, mark.unless) and value not in (default, *mark.same)
            for mark in unkeyed
        )
        if matters and identity_of(value) not in map(identity_of, unchanged):
            yield name


@cache
def _fields(cls: Any) -> dict[str, tuple[tuple[Any, ...], Any]]:
    """The marks of the fields of a class, and their defaults."""
    hints = get_type_hints(cls, include_extras=True)
    declared = cls.model_fields.items() if issubclass(cls, BaseModel) else ((f.name, f) for f in fields(cls))
    return {name: (getattr(hints[name], "__metadata__", ()), field.default) for name, field in declared}
