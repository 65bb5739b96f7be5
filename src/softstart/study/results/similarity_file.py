"""What ``softstart similarity`` wrote into a study folder, read with care: anybody may have changed it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softstart.errors import Damaged
from softstart.study.results.folder import SIMILARITY

_TEXTS = {
    "correlations": ("setting", "method", "measure"),
    "points": ("setting", "method", "measure", "task"),
    "followed": ("settings", "method", "measure", "start", "task"),
}
_NUMBERS = {
    "correlations": ("rho", "p", "n_tasks"),
    "points": ("similarity", "gain"),
    "followed": ("gain", "random", "fixed", "widest", "best"),
}
"""The columns of its tables."""


def read_similarity(folder: Path) -> dict[str, Any] | None:
    """What ``softstart similarity`` measured; None if it was not called.

    Raises:
        Damaged: it is not what was written.
    """
    path = folder / SIMILARITY
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        _check(found)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
        raise Damaged(
            f"is damaged, and left out ({problem})",
            where=str(path),
            fix="Run softstart similarity again, or delete it.",
        ) from problem
    return dict(found)


def _check(found: Any) -> None:
    for name, table in found["measures"].items():
        size = len(table["tasks"])
        square = len(table["values"]) == size and all(len(row) == size for row in table["values"])
        if not square or not all(_is_number(value) for row in table["values"] for value in row):
            raise ValueError(f"the measure {name!r} is no table of numbers")
    for name in _TEXTS:
        _check_rows(name, found.get(name, []))


def _check_rows(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        texts = all(isinstance(row[column], str) for column in _TEXTS[name])
        if not texts or not all(row[column] is None or _is_number(row[column]) for column in _NUMBERS[name]):
            raise ValueError(f"{name} hold something else than they should")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not math.isinf(value)
