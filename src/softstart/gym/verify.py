"""Check an existing folder of tasks, whoever made it: its checksums and its format."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from softstart.errors import SoftstartError
from softstart.gym.build import duplicates, md5_of
from softstart.gym.catalog import crossfit_catalog, published_checksums
from softstart.gym.folder import CrossFitFolder
from softstart.gym.task import Task

Verdict = Literal["exact", "exact v1", "incomplete", "differs", "unpublished"]
"""exact: all published files are there and equal; exact v1: equal to those of April 2021; incomplete: what
is there is equal; differs: some file is not; unpublished: not a task, k or seed of the published gym."""


@dataclass(frozen=True)
class Checked:
    """The result of checking one task of a folder."""

    task: str
    verdict: Verdict
    differs: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""
    """Why the task cannot be read; empty if it can."""


def verify(path: str | Path, *, as_published: bool = False) -> Iterator[Checked]:
    """Check every task of a folder in CrossFit's format.

    One ``<task>_test.tsv`` stands for the test files of all seeds. ``as_published``: read as the published
    code did.

    Raises:
        SoftstartError: if there is no such folder or no task in it.
    """
    gym = CrossFitFolder(path, as_published=as_published)
    for name in gym.tasks():
        verdict, differs, missing = _compare(gym.root / name)
        notes, problem = _read(gym, name)
        yield Checked(name, verdict, differs, missing, tuple(notes), problem)


def _compare(folder: Path) -> tuple[Verdict, tuple[str, ...], tuple[str, ...]]:
    name = folder.name
    sums = {path.name: md5_of(path) for path in sorted(folder.glob("*.tsv"))}
    published = published_checksums("v2").get(name, {})
    if shared := sums.get(f"{name}_test.tsv"):
        sums |= {file: shared for file in published if file.endswith("_test.tsv") and file not in sums}
    if not sums.keys() & published.keys():
        return "unpublished", (), ()
    missing = tuple(file for file in published if file not in sums)
    old = published_checksums("v1")[name]
    differing = {
        version: tuple(file for file, md5 in expected.items() if sums.get(file, md5) != md5)
        for version, expected in (("v2", published), ("v1", old))
    }
    if not differing["v2"]:
        return ("incomplete" if missing else "exact"), (), missing
    if not differing["v1"]:
        return ("incomplete" if missing else "exact v1"), (), missing
    return "differs", min(differing.values(), key=len), missing


def _read(gym: CrossFitFolder, name: str) -> tuple[list[str], str]:
    """What looks wrong with a task, or why it cannot be read."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            task = gym.load(name)
        except SoftstartError as error:
            return [], str(error)
    return [*(str(warning.message) for warning in caught), *task_notes(task)], ""


def task_notes(task: Task) -> list[str]:
    """What may be wrong with a readable task: inputs on both sides, labels without rows or unknown."""
    drawn = [row.input for s in task.samples.values() for row in (*s.train, *s.dev)]
    notes = []
    if n := duplicates(drawn, (row.input for row in task.test)):
        notes.append(f"{n} train or dev {'input is' if n == 1 else 'inputs are'} in the test set too")
    if task.kind != "classification":
        return notes
    for seed, sample in sorted(task.samples.items()):
        labels = {row.outputs[0] for row in sample.train if row.outputs}
        for part, rows in (("dev", sample.dev), ("test", task.test)):
            if without := sorted({row.outputs[0] for row in rows if row.outputs} - labels):
                listed = ", ".join(f"'{label}'" for label in without[:5])
                notes.append(f"sample {seed}: no training row of class {listed}, which {part} has")
    entry = crossfit_catalog().get(task.name)
    known = {word for words in (entry.words, entry.version("v1").words) for word in words} if entry else set()
    everything = [row for s in task.samples.values() for row in (*s.train, *s.dev, *task.test)]
    used = {row.outputs[0] for row in everything if row.outputs}
    if known and (outside := sorted(used - known)):
        listed = ", ".join(f"'{label}'" for label in outside[:5])
        notes.append(f"{len(outside)} labels are outside the verbalizer: {listed}")
    return list(dict.fromkeys(notes))
