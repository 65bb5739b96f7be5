"""Read a number from a result file: a key of a JSON file, a cell of a Markdown table, a match in a text."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

NUMBER = r"[+−-]?(?:\d[\d,]*)?\.?\d+"
"""A number as the pages write it: ``1,453``, ``−.24``, ``+12.5``."""

COMBINE = {"min": min, "max": max, "sum": sum, "mean": statistics.mean, "median": statistics.median}


class NumbersError(Exception):
    """An entry of page_numbers.yaml that does not fit its file or its page."""


def value(entry: Mapping[str, Any], root: Path) -> str:
    """A number of a result file, as the pages write it.

    The fields of an entry:
        file: the result file, relative to the repository.
        at: in a JSON file the keys that lead to the number; in a Markdown file the heading above a table
            (parts of several headings are joined by `` > ``), the first cells of a row, the name of a column.
        find: in place of ``at``, a regular expression whose first group is the number.
        over: values to put for ``{}`` in ``at``, one after the other; ``of`` combines them.
        of: min, max, sum, mean or median.
        part: which of the numbers in a cell of a table (0 is the first), or ``all``.
        by: keys of a second number of the same JSON file to divide by.
        times: a factor.
        show: the format, such as ``.1f`` or ``+,.0f``; halves are rounded up. ``bare: true`` drops a zero
            before the point.
    """
    text = (root / entry["file"]).read_text(encoding="utf-8")
    every = [number for at in _places(entry) for number in _read(text, entry, at)]
    if len(every) > 1 and "of" not in entry:
        raise NumbersError(f"{entry}: several numbers, and no 'of' to combine them")
    number = COMBINE[entry["of"]](every) if "of" in entry else every[0]
    if "by" in entry:
        number /= _in_json(text, entry["by"])
    shown = rounded(number * entry.get("times", 1), entry.get("show", ".0f"))
    if entry.get("bare"):
        shown = re.sub(r"^([+-]?)0\.", r"\1.", shown)
    return shown.replace("-", "−")


def rounded(number: float, show: str) -> str:
    """A number in a format that ends in ``.Nf``, halves rounded up as readers expect."""
    digits = int(show.rpartition(".")[2].rstrip("f"))
    return format(Decimal(repr(number)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP), show)


def _places(entry: Mapping[str, Any]) -> Iterator[list[str]]:
    for each in entry.get("over", [""]):
        yield [str(part).replace("{}", str(each)) for part in entry.get("at", [])]


def _read(text: str, entry: Mapping[str, Any], at: Sequence[str]) -> list[float]:
    if "find" in entry:
        match = re.search(entry["find"], text)
        if match is None:
            raise NumbersError(f"{entry['file']} holds nothing like {entry['find']}")
        return [_number(match[1])]
    if entry["file"].endswith(".json"):
        return [_in_json(text, at)]
    of_cell, part = numbers(cell(text, at)), entry.get("part", 0)
    if not of_cell:
        raise NumbersError(f"{entry['file']}, {at}: no number in this cell")
    return of_cell if part == "all" else [of_cell[part]]


def _in_json(text: str, keys: Sequence[str]) -> float:
    content = json.loads(text)
    for key in keys:
        if key not in content:
            raise NumbersError(f"no '{key}' among {', '.join(map(str, content))}")
        content = content[key]
    return float(content)


def numbers(text: str) -> list[float]:
    """All numbers of a text."""
    return [_number(match) for match in re.findall(NUMBER, text)]


def _number(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))


def cell(text: str, at: Sequence[str]) -> str:
    """A cell of a Markdown table: below a heading, in the row that begins with given cells, in a column."""
    heading, *starts, column = at
    for path, rows in tables(text):
        if not _contains(path, heading.split(" > ")) or column not in rows[0]:
            continue
        for row in rows[1:]:
            if all(cell.strip("*") == start for cell, start in zip(row, starts, strict=False)):
                return row[rows[0].index(column)]
    raise NumbersError(f"no cell at {list(at)}")


def _contains(path: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether the parts occur in the headings of a table, in their order."""
    remaining = iter(path)
    return all(any(part in heading for heading in remaining) for part in parts)


def tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Every table of a Markdown text with its headings; an empty first cell repeats the one above."""
    headings: dict[int, str] = {}
    rows: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            cells = [part.strip() for part in line.strip().strip("|").split("|")]
            if not all(re.fullmatch(r":?-+:?", part) for part in cells):
                rows.append(cells if cells[0] or len(rows) < 2 else [rows[-1][0], *cells[1:]])
            continue
        if rows:
            yield [headings[level] for level in sorted(headings)], rows
            rows = []
        if heading := re.match(r"(#+) (.+)", line):
            level = len(heading[1])
            headings = {above: name for above, name in headings.items() if above < level}
            headings[level] = heading[2]
