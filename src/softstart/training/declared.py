"""Parts of a study that choose a class and set its fields: ``{name: adamw, betas: [0.9, 0.95]}``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from inspect import isabstract
from typing import Any, ClassVar, Self, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import core_schema

from softstart.errors import SoftstartError, did_you_mean
from softstart.registry import Registry
from softstart.training.identity import keyed_fields


def field_types(cls: Any) -> dict[str, Any]:
    """The fields of a dataclass and their types."""
    types = get_type_hints(cls, include_extras=True)
    return {field.name: types[field.name] for field in fields(cls)}


def checked(
    types: Mapping[str, Any], values: Mapping[str, Any], of: str, where: str | None, *, strict: bool = False
) -> dict[str, Any]:
    """Values that fit the types of the fields they are for.

    Args:
        types: fields and their types.
        values: fields and their values.
        of: what has these fields, for messages.
        where: the place in a file, for messages.
        strict: refuse a value of another type instead of converting it.

    Raises:
        SoftstartError: no such field, or a value that does not fit.
    """
    out = {}
    for key, value in values.items():
        if key not in types:
            near = did_you_mean(str(key), types)
            raise SoftstartError(
                f"'{key}' is not a field of {of}",
                where=where,
                fix=f"Known: {', '.join(sorted(types))}. {near}".strip(),
            )
        try:
            out[key] = TypeAdapter(types[key]).validate_python(value, strict=strict)
        except ValidationError as problem:
            message = problem.errors()[0]["msg"].removeprefix("Value error, ")
            raise SoftstartError(f"{key}: {message}", where=where) from problem
    return out


@dataclass(frozen=True)
class Declared:
    """A frozen dataclass that a study declares as a mapping of its ``name`` and its fields.

    A kind of extension is a subclass with a ``registry``. Its entries are subclasses of that one, registered
    there or named by their import path.
    """

    registry: ClassVar[Registry[type[Any]]]
    """The classes of this kind, by name."""
    formerly: ClassVar[Mapping[str, Any]] = {}
    """Fields and values that older studies declare and the class does not have: accepted, part of keys."""

    @classmethod
    def kind(cls) -> type[Declared]:
        """The class that holds the registry."""
        return next(base for base in cls.__mro__ if "registry" in vars(base))

    @property
    def name(self) -> str:
        """What a study calls it: its registered name, or its import path."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return next((name for name, cls in self.registry.items() if cls is type(self)), path)

    def declaration(self) -> dict[str, Any]:
        """The mapping that declares it."""
        return {"name": self.name, **{field.name: getattr(self, field.name) for field in fields(self)}}

    def identity(self) -> dict[str, Any]:
        """What the key of a result holds of it; fields can be marked as in other configurations."""
        values = {name: getattr(self, name) for name in keyed_fields(self)}
        return {**self.formerly, "name": self.name, **values}

    @classmethod
    def declared(cls, values: Mapping[str, Any], where: str | None = None) -> Self:
        """The object that a mapping declares; without a ``name``, of the class registered first.

        Raises:
            SoftstartError: an unknown name or field, or a value that does not fit.
        """
        values = dict(values)
        name = values.pop("name", next(iter(cls.registry)))
        if not isinstance(name, str):
            raise SoftstartError(
                f"'{name}' is not a name", where=where, fix=f"Use one of {', '.join(cls.registry)}."
            )
        made = cls.registry.find(name, where)
        types = field_types(made)
        older = {key: value for key, value in made.formerly.items() if key not in types}
        values = {k: v for k, v in values.items() if k not in older or not _same(v, older[k])}
        try:
            return cast(Self, made(**checked(types, values, name, where)))
        except ValueError as problem:
            raise SoftstartError(
                f"{name} refuses a value ({problem})", where=where, fix="Give one in its range."
            ) from problem

    @classmethod
    def merged(cls, below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
        """Two declarations as one, where ``above`` decides; the fields of another class are dropped."""
        first = next(iter(cls.registry))
        if above.get("name", first) != below.get("name", first) and "name" in above:
            shared = field_types(cls.kind())
            below = {key: value for key, value in below.items() if key in shared}
        return {**below, **above}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Within a model: a mapping is validated by the registry and written as a mapping again."""

        def validate(value: Any) -> Any:
            if isinstance(value, cls):
                return value
            if not isinstance(value, Mapping):
                raise ValueError(f"write a mapping with a name: {{name: {next(iter(cls.registry))}}}")
            try:
                return cls.declared(value)
            except SoftstartError as problem:
                raise ValueError(str(problem)) from problem

        return core_schema.no_info_plain_validator_function(
            validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value: value.declaration(), return_schema=core_schema.dict_schema()
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        """One alternative for each registered class, and one for any other."""
        known = []
        for name, made in cls.registry.items():
            inner = {key: TypeAdapter(kind).json_schema() for key, kind in field_types(made).items()}
            known.append({"properties": {"name": {"const": name}, **inner}, "additionalProperties": False})
        other = {"properties": {"name": {"type": "string", "pattern": r"\."}}, "required": ["name"]}
        return {"type": "object", "anyOf": [*known, other]}


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one, default=str) == json.dumps(other, default=str)


def is_declared(kind: type[Any]) -> Any:
    """A test for registries: whether an object is a class of this kind that can be made."""
    return lambda thing: isinstance(thing, type) and issubclass(thing, kind) and not isabstract(thing)
