"""The 160 tasks of the NLP Few-shot Gym as data, one file per family, with the published checksums."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from softstart.errors import SoftstartError, did_you_mean
from softstart.gym.catalog.reading import parse_catalog, read_catalog
from softstart.gym.catalog.schema import Entry


@cache
def crossfit_catalog() -> Mapping[str, Entry]:
    """The 160 tasks of the NLP Few-shot Gym (CrossFit, Ye et al. 2021), by name."""
    folder = resources.files(__name__) / "tasks"
    entries: dict[str, Entry] = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            entries |= parse_catalog(file.read_text(encoding="utf-8"), file.name)
    return MappingProxyType(dict(sorted(entries.items())))


def all_entries(path: Path | None = None) -> dict[str, Entry]:
    """The 160 tasks together with those of a catalog file, which win where a name is in both.

    Raises:
        SoftstartError: see ``read_catalog``.
    """
    return {**crossfit_catalog(), **(read_catalog(path) if path else {})}


def entries_named(names: Iterable[str], entries: Mapping[str, Entry]) -> list[Entry]:
    """The entries of these names.

    Raises:
        SoftstartError: some do not exist; all of them are named.
    """
    names = list(names)
    if unknown := [name for name in names if name not in entries]:
        hints = [f"{name}: {hint}" for name in unknown if (hint := did_you_mean(name, entries))]
        raise SoftstartError(
            f"unknown task {', '.join(map(repr, unknown))}",
            fix=" ".join(hints) or "'softstart gym list' shows all tasks.",
        )
    return [entries[name] for name in names]


@cache
def published_checksums(version: str = "v2") -> Mapping[str, Mapping[str, str]]:
    """MD5 sums of the published files: task → file name → sum.

    ``version`` is "v2" (April 2022) or "v1" (April 2021, which the study used); v1 includes the
    tasks that did not change.
    """
    text = (resources.files(__name__) / "checksums.tsv").read_text(encoding="utf-8")
    header, *rows = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    columns = [re.fullmatch(r"([a-z]+)(\d+)", column) for column in header[4:]]
    sums: dict[str, Mapping[str, str]] = {}
    for made, task, k, test, *others in rows:
        # A v1 row follows the v2 row of its task and is there only if some sum differs.
        if made in ("v2", version):
            named: dict[str, str] = {}
            for column, md5 in zip(columns, others, strict=True):
                assert column is not None
                named[f"{task}_{k}_{column[2]}_{column[1]}.tsv"] = md5
                named[f"{task}_{k}_{column[2]}_test.tsv"] = test
            sums[task] = MappingProxyType(dict(sorted(named.items())))
    return MappingProxyType(sums)
