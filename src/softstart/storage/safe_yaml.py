"""Reading YAML from anyone: no tags, no more than a person would write, and one clear error."""

from __future__ import annotations

from typing import Any

import yaml

from softstart.errors import SoftstartError

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DEPTH = 50
"""The deepest nesting of values; about ten thousand levels would crash the parser, which is written in C."""
SIZE = 1_000_000
"""The most values, where an alias counts as all the values it stands for (against a "billion laughs")."""


def read_yaml(text: str, where: str | None = None) -> Any:
    """The data of a YAML text.

    Raises:
        SoftstartError: broken YAML, tags, a key that is there twice, or more than a person would write.
    """
    try:
        _check_depth(text)
        loader = LOADER(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _size(node, {}) > SIZE:
                raise ValueError(f"it stands for more than {SIZE:,} values")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as problem:
        raise SoftstartError(f"broken YAML ({' '.join(str(problem).split())})", where=where) from problem


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise ValueError(f"nested more than {DEPTH} levels deep")


def _check_keys(mapping: Any) -> None:
    """Refuse a key that is there twice: YAML forbids it, and the parser would take the last one."""
    lines: dict[tuple[str, str], int] = {}
    for key, _ in mapping.value:
        if isinstance(key, yaml.ScalarNode):
            line = key.start_mark.line + 1
            name = key.tag, key.value
            if name in lines:
                raise ValueError(f"the key '{key.value}' is there twice, in lines {lines[name]} and {line}")
            lines[name] = line


def _size(node: Any, known: dict[int, int | None]) -> int:
    """The number of values a node stands for; ``known`` has it for nodes seen, None while it is counted."""
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise ValueError(f"a value that contains itself, line {node.start_mark.line + 1}")
        return size
    known[id(node)] = None
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
    parts = node.value if isinstance(node, yaml.CollectionNode) else ()
    size = 1 + sum(_size(p, known) for part in parts for p in (part if isinstance(part, tuple) else (part,)))
    known[id(node)] = size
    return size
