"""Keep the numbers of the pages equal to the result files they come from.

    python docs/page_numbers.py            list what differs; the exit status is 1 if anything does
    python docs/page_numbers.py --write    write the numbers of the result files into the pages

``page_numbers.yaml`` says where each number comes from (``values``), in which sentences of which pages it is
quoted (``sentences``), and which tables of the pages are made from result files (``tables``). A sentence is
recognized by its words, so pages stay plain Markdown. A table lies between ``<!-- table: NAME -->`` and
``<!-- end of table -->``; the function of that name in ``result_tables.py`` makes it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import result_tables
import yaml
from result_files import NUMBER, NumbersError, value

DOCS = Path(__file__).parent
ROOT = DOCS.parent


class Change(NamedTuple):
    """A place in a page that differs from its source."""

    page: str
    place: str
    now: str
    should: str


def with_numbers(
    page: str, text: str, sentences: Sequence[str], values: Mapping[str, str]
) -> tuple[str, list[Change]]:
    """A page's text with the right numbers in its sentences, and what had to be changed.

    Raises:
        NumbersError: the page has no such sentence, or has it twice.
    """
    changes = []
    for sentence in sentences:
        parts = re.split(r"\{([\w.-]+)\}", sentence.strip())
        names = parts[1::2]
        pattern = f"({NUMBER})".join(_words(part) for part in parts[::2])
        matches = list(re.finditer(pattern, text))
        if len(matches) != 1:
            raise NumbersError(f"{page}: {len(matches)} times instead of once: {sentence.strip()}")
        for group, name in reversed(list(enumerate(names, 1))):
            if name not in values:
                raise NumbersError(f"{page}: no value '{name}'")
            now, should = matches[0][group], values[name]
            if now != should:
                changes.append(Change(page, name, now, should))
                text = text[: matches[0].start(group)] + should + text[matches[0].end(group) :]
    return text, changes


def _words(text: str) -> str:
    """A pattern of a text wherever its lines are broken."""
    return r"\s+".join(re.escape(word) for word in re.split(r"\s+", text))


def with_tables(page: str, text: str, names: Sequence[str]) -> tuple[str, list[Change]]:
    """A page's text with its tables made anew, and what had to be changed.

    Raises:
        NumbersError: the page has no place for such a table, or the table is not declared.
    """
    changes = []
    marked = re.findall(r"<!-- table: (\S+) -->", text)
    if sorted(marked) != sorted(names):
        raise NumbersError(f"{page}: tables {marked} in the page, {list(names)} in page_numbers.yaml")
    for name in names:
        start = f"<!-- table: {name} -->\n"
        before, _, rest = text.partition(start)
        now, end, after = rest.partition("<!-- end of table -->")
        if not end:
            raise NumbersError(f"{page}: the table {name} has no end")
        should = f"\n{getattr(result_tables, name)().strip()}\n\n"
        if now != should:
            changes.append(Change(page, f"table {name}", now, should))
        text = before + start + should + end + after
    return text, changes


def update(write: bool, root: Path = ROOT, source: Path = DOCS / "page_numbers.yaml") -> list[Change]:
    """Compare all pages with the result files, and write what differs if asked to."""
    declared = yaml.safe_load(source.read_text(encoding="utf-8"))
    values = {name: value(entry, root) for name, entry in declared["values"].items()}
    changes = []
    sentences, made = declared.get("sentences", {}), declared.get("tables", {})
    # Pages without sentences come last: their tables may quote those of the others.
    for page in sorted({*sentences, *made}, key=lambda page: (page not in sentences, page)):
        text = (root / page).read_text(encoding="utf-8")
        text, of_sentences = with_numbers(page, text, sentences.get(page, []), values)
        text, of_tables = with_tables(page, text, made.get(page, []))
        if write and (of_sentences or of_tables):
            (root / page).write_text(text, encoding="utf-8")
        changes += [*of_sentences, *of_tables]
    return changes


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Keep the numbers of the pages equal to the result files.")
    parser.add_argument("--write", action="store_true", help="write the numbers into the pages")
    write = parser.parse_args().write
    try:
        changes = update(write)
    except NumbersError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    for change in changes:
        table = change.place.startswith("table ")
        print(f"{change.page}: {change.place}", "" if table else f": {change.now} -> {change.should}", sep="")
    return int(bool(changes) and not write)


if __name__ == "__main__":
    sys.exit(main())
