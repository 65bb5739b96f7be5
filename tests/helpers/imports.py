"""The package's imports of itself, read from its source, and the cycles among them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path


def modules(source: Path) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    names = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(source: Path, *, type_checking: bool) -> dict[str, set[str]]:
    """Which modules of a package each of them imports, at its top or inside a function.

    ``from package import name`` counts as an import of the module ``package.name`` where there is one, and of
    ``package`` otherwise. That Python runs ``package/__init__.py`` before any module below it is left out:
    every package that re-exports its modules would be a cycle.

    Args:
        type_checking: count what stands under ``if TYPE_CHECKING`` as well.
    """
    known = modules(source)
    return {
        name: set(_targets(ast.parse(path.read_text(encoding="utf-8")), known, type_checking)) - {name}
        for name, path in known.items()
    }


def _targets(node: ast.AST, known: Mapping[str, Path], type_checking: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "the package imports itself by absolute names"
        for alias in node.names:
            below = f"{node.module}.{alias.name}"
            if below in known or node.module in known:
                yield below if below in known else str(node.module)
    children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not type_checking:
        children = node.orelse
    for child in children:
        yield from _targets(child, known, type_checking)


def cycles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """The groups of two or more nodes in which each can be reached from every other."""
    reach = {node: _reachable(graph, node) for node in graph}
    groups = {frozenset(other for other in reach[node] if node in reach[other]) for node in graph}
    return sorted((set(group) for group in groups if len(group) > 1), key=sorted)


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """What can be reached from a node, the node itself only by way of others."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph.get(waiting.pop(), ()):
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen
