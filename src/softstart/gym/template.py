"""Templates: how the fields of a row become text.

A template is literal text with ``{placeholders}``; ``{{`` and ``}}`` stand for braces. A placeholder is a
path into the row and the operations on what it finds, left to right: ``{choices.text.0}``,
``{question|clean}``, ``{tokens|join: }``. A path walks through nested fields; a number takes an item; a name
applied to a list is applied to every item.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from softstart.errors import SoftstartError

Row = Mapping[str, Any]

MADE = ("LABEL", "CHOICES", "ANSWER", "ANSWERS")
"""Placeholders for what an entry makes from the columns of a row; columns of these names are refused where
a template reads one."""

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")


def get(row: Row, path: str) -> Any:
    """The value at a path of a row.

    Raises:
        SoftstartError: if the row has no such field.
    """
    if path in row:
        return row[path]
    value: Any = row
    for step in path.split("."):
        value = _step(value, step, path, row)
    return value


def text_of(value: Any, name: str) -> str:
    """A value as it is written: strings as they are, numbers in plain decimals (5, not 5.0).

    Raises:
        SoftstartError: for a missing value, or one that is not a single string or number.
    """
    if isinstance(value, str):
        return value
    if value is None:
        raise SoftstartError(f"field '{name}' is empty (null)")
    if isinstance(value, float) and math.isnan(value):
        raise SoftstartError(f"field '{name}' is empty (NaN)", fix="Fill it in, or drop the row.")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (bool, int, float)):
        return str(value)
    raise SoftstartError(
        f"field '{name}' holds a {type(value).__name__} where the template needs one text",
        fix="Name an item (field.0) or join them ({field|join: }).",
    )


class Field:
    """A path and its operations: ``question|clean``.

    Raises:
        SoftstartError: for an unknown operation.
    """

    def __init__(self, text: str) -> None:
        self.path, *operations = text.split("|")
        if not self.path:
            raise SoftstartError("a placeholder without a field name")
        self.operations = [_operation(operation) for operation in operations]

    @property
    def root(self) -> str:
        """The column of the row that the path begins with."""
        return self.path.split(".")[0]

    def value(self, row: Row) -> Any:
        """What the path finds after the operations."""
        value = get(row, self.path)
        for name, argument in self.operations:
            value = _apply(name, argument, value, row, self.path)
        return value

    def __call__(self, row: Row) -> str:
        """As text."""
        return text_of(self.value(row), self.path)


class Template:
    """A parsed template.

    Raises:
        SoftstartError: for a brace that is not closed or an unknown operation.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.parts: list[str | Field] = []
        for match in _TOKEN.finditer(text):
            token = match[0]
            if token in "{}":
                raise SoftstartError(f"template {text!r} has an unmatched brace", fix="Write {{ for a brace.")
            if match[1] is not None:
                self.parts.append(Field(match[1]))
            else:
                self.parts.append(token.replace("{{", "{").replace("}}", "}"))

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The placeholders, in order."""
        return tuple(part for part in self.parts if isinstance(part, Field))

    def __call__(self, row: Row) -> str:
        """Fill in a row."""
        return "".join(part if isinstance(part, str) else part(row) for part in self.parts)


def with_columns(text: str, where: str) -> Template:
    """A template that reads at least one column: without one, every row would give the same text.

    Raises:
        SoftstartError: it has no placeholder, or as ``Template``.
    """
    template = Template(text)
    if not template.fields:
        raise SoftstartError(
            f"template {text!r} names no column", where=where, fix=f"Write a column in braces: {{{text}}}."
        )
    return template


def apply(operations: list[str], text: str, row: Row | None = None) -> str:
    """Operations on a finished text, left to right."""
    for operation in operations:
        text = text_of(_apply(*_operation(operation), text, row or {}, "text"), "text")
    return text


def check_operations(operations: list[str]) -> list[str]:
    """The operations, if all are known.

    Raises:
        SoftstartError: for an unknown operation.
    """
    for operation in operations:
        _operation(operation)
    return operations


def _step(value: Any, step: str, path: str, row: Row) -> Any:
    name, flat = step.removesuffix("[]"), step.endswith("[]")
    while name.endswith("[]"):
        name = name.removesuffix("[]")
    if isinstance(value, Mapping):
        if name not in value:
            raise SoftstartError(f"no field '{path}'", fix=f"The row has {_columns(row)}.")
        value = value[name]
    elif isinstance(value, (list, tuple)):
        if name.isdigit():
            if int(name) >= len(value):
                raise SoftstartError(f"field '{path}' has only {len(value)} items")
            value = value[int(name)]
        else:
            value = [_step(item, name, path, row) for item in value]
    else:
        raise SoftstartError(f"no field '{path}'", fix=f"'{name}' would lie inside a {type(value).__name__}.")
    return flatten(value) if flat else value


def _columns(row: Row) -> str:
    return ", ".join(str(name) for name in row if name not in MADE)


def flatten(value: Any) -> Any:
    """A list of lists, of any depth, as one list."""
    if isinstance(value, (list, tuple)) and any(isinstance(v, (list, tuple)) for v in value):
        return flatten([x for v in value for x in (v if isinstance(v, (list, tuple)) else [v])])
    return value


def _clean(text: str) -> str:
    for breaking in ("\n", "\\n", "\r", "\t"):
        text = text.replace(breaking, " ")
    return " ".join(text.split())


_TEXT: dict[str, Callable[[str], str]] = {
    "clean": _clean,
    "squeeze": lambda s: " ".join(s.split()),
    "line": lambda s: s.replace("\n", " ").replace("\r", " ").replace("\t", " "),
    "lf": lambda s: s.replace("\n", " "),
    "lf_marked": lambda s: s.replace("\n", " [n] "),
    "crlf": lambda s: s.replace("\r\n", " "),
    "escaped_lf": lambda s: s.replace("\\n", " "),
    "strip": str.strip,
    "unquote": lambda s: s.strip("'"),
    "lower": str.lower,
    "no_spaces": lambda s: s.replace(" ", ""),
    "commas": lambda s: s.replace("_comma_", ","),
}
_WITH_ARGUMENT = ("join", "replace", "fill", "slice", "cut_prefix", "plus")
OPERATIONS = (*_TEXT, *_WITH_ARGUMENT, "int")
"""The operations of templates.

On a text: clean (every break, also a written ``\\n``, and every run of white space becomes one space),
squeeze (runs of white space), line (LF, CR, TAB become spaces), lf, lf_marked (LF becomes `` [n] ``), crlf,
escaped_lf, strip, unquote (apostrophes at the ends), lower, no_spaces, commas (``_comma_``),
``replace:A=B``, ``fill:A=field`` (A by the value of a field), ``slice:a:b`` (from and to the positions in
two fields), ``cut_prefix:P``. On a list: ``join:S``. On a number: int, ``plus:N``.
"""


def _operation(text: str) -> tuple[str, str]:
    name, _, argument = text.partition(":")
    if name not in OPERATIONS:
        raise SoftstartError(f"unknown operation '{name}'", fix=f"Known: {', '.join(OPERATIONS)}.")
    needs_two = (
        name in ("replace", "fill", "slice") and not argument.partition(":" if name == "slice" else "=")[1]
    )
    if name in _WITH_ARGUMENT and (":" not in text or needs_two):
        raise SoftstartError(f"operation '{name}' lacks its argument", fix="Write it as name:argument.")
    return name, argument


def _apply(name: str, argument: str, value: Any, row: Row, path: str) -> Any:
    if name == "join":
        if not isinstance(value, (list, tuple)):
            raise SoftstartError(f"field '{path}' is not a list: nothing to join")
        return argument.join(text_of(v, path) for v in value)
    if name in ("int", "plus"):
        try:
            return int(value) + (int(argument) if argument else 0)
        except (TypeError, ValueError):
            raise SoftstartError(f"field '{path}' is not a number: {value!r}") from None
    text = text_of(value, path)
    if name == "replace":
        old, _, new = argument.partition("=")
        return text.replace(old, new)
    if name == "fill":
        old, _, other = argument.partition("=")
        return text.replace(old, text_of(get(row, other), other))
    if name == "slice":
        begin, _, end = argument.partition(":")
        return text[get(row, begin) : get(row, end)]
    if name == "cut_prefix":
        return text.removeprefix(argument)
    return _TEXT[name](text)
