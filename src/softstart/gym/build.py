"""Build one task: rows to lines, lines to samples, samples to files, files against published checksums."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from softstart.errors import SoftstartError
from softstart.gym.catalog import published_checksums
from softstart.gym.catalog.schema import Entry
from softstart.gym.hub import hub_rows
from softstart.gym.label_sets import compare_labels
from softstart.gym.lines import Keyed, Line, Tidy, make_lines, one_line, pool_and_test
from softstart.gym.quirks import QUIRKS
from softstart.gym.rows import find_split, read_rows
from softstart.gym.sampling import SEEDS, KShot, kshot
from softstart.gym.task import Kind
from softstart.gym.template import Row
from softstart.gym.tsv import file_name, write_tsv

PARTS = ("train", "dev", "test")

RECORD = "build.json"
"""Next to the files of a built task: what they were built from, and their checksums."""

BUILDER = 1
"""Version of the builder: increased when the same entry and rows would give other files."""

Status = Literal["exact", "differs", "built", "failed"]
"""exact: all files equal the published ones; differs: some do not; built: nothing published to compare."""


@dataclass(frozen=True)
class Report:
    """The outcome of building one task."""

    task: str
    status: Status
    kept: bool = False
    """The files were there already, from the same entry and rows."""
    differs: tuple[str, ...] = ()
    """Files that do not equal the published ones."""
    notes: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Job:
    """Everything the build of one task depends on.

    ``source`` is a folder with the rows of every split, in place of the hub. ``shipped`` marks entries of the
    package's catalog, whose files are compared with the published checksums. Other entries must have enough
    rows, and ``tidy`` is applied to their texts: what is written to files is one line each.
    """

    entry: Entry
    out: Path
    shipped: bool
    source: Path | None = None
    seeds: Sequence[int] = SEEDS
    k: int | None = None
    version: str = "v2"
    force: bool = False
    allow_short: bool = False
    tidy: Tidy = one_line

    @property
    def shots(self) -> int:
        """k of the samples."""
        return self.k or self.entry.shots


@dataclass(frozen=True)
class Drawn:
    """A task in memory: its pool, its test set and notes on them."""

    pool: list[Keyed]
    test: list[Line]
    short: list[str] = field(default_factory=list)
    """What the pool is too small for."""
    labels: list[str] = field(default_factory=list)
    """How the labels of pool and test set differ (see ``compare_labels``)."""


def build_task(job: Job) -> Report:
    """Build one task into ``out/<task>``, which is either complete or absent.

    A folder that was built before from the same entry and the same rows is kept.

    Raises:
        SoftstartError: the rows cannot be loaded or do not fit the entry, or the folder holds other files.
    """
    folder, recipe = job.out / job.entry.name, _recipe(job)
    if folder.is_dir() and not job.force:
        record = _still_good(folder, recipe, job)
        if record is not None:
            return _report(job, record["files"], record["notes"], kept=True)
    drawn = draw(job)
    samples = {seed: sample(job, drawn, seed) for seed in job.seeds}
    notes = [*drawn.short, *drawn.labels, *_leaks(samples, drawn.test)]
    for left_by_a_kill in job.out.glob(f".{job.entry.name}.*.tmp"):
        shutil.rmtree(left_by_a_kill, ignore_errors=True)
    temporary = job.out / f".{job.entry.name}.{os.getpid()}.tmp"
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        sums = _write(job, samples, drawn.test, temporary)
        record = {"recipe": recipe, "files": sums, "notes": notes}
        (temporary / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError as error:
        raise SoftstartError(
            f"cannot write ({error.strerror})", where=str(folder), fix="Choose a writable folder with --out."
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _report(job, sums, notes, kept=False)


def draw(job: Job) -> Drawn:
    """The pool and the test set of a task.

    Raises:
        SoftstartError: the rows cannot be loaded, do not fit the entry, or are too few; the labels of the two
            are the same but written differently.
    """
    entry, shipped = job.entry.version(job.version), job.shipped

    def lines(split: str) -> list[Keyed]:
        rows, where = _rows(job, split)
        return list(make_lines(entry, rows, where, tidy=None if shipped else job.tidy))

    pool, test = pool_and_test(entry.splits, lines)
    for part, name in ((pool, "pool"), (test, "test set")):
        if not part:
            raise SoftstartError(f"no rows for the {name}", where=f"task '{entry.name}'")
    short = _short(entry, pool, job.shots)
    if short and not (shipped or job.allow_short):
        raise SoftstartError(
            "; ".join(short),
            where=f"task '{entry.name}'",
            fix="Add rows, choose fewer --shots, or take smaller samples with --allow-short.",
        )
    labels = []
    if entry.kind == "classification" and not shipped:
        place = _place(job, entry.splits.names[-1])
        known, tested = ([keyed.line.output for keyed in part] for part in (pool, test))
        labels = compare_labels(known, tested, place)
    return Drawn(pool, [keyed.line for keyed in test], short, labels)


def sample(job: Job, drawn: Drawn, seed: int) -> KShot[Line]:
    """One k-shot sample of a task."""
    kind: Kind = "classification" if job.entry.balance else job.entry.kind
    train, dev = kshot(drawn.pool, job.shots, seed, kind, key=lambda keyed: keyed.key)
    return KShot([keyed.line for keyed in train], [keyed.line for keyed in dev])


def md5_of(path: Path) -> str:
    """The MD5 sum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def duplicates(train: Iterable[str], test: Iterable[str]) -> int:
    """How many different inputs of ``train`` are also in ``test``."""
    return len(set(train) & set(test))


def _rows(job: Job, split: str) -> tuple[Iterable[Row], str]:
    """The rows of a split, and where they are from, for error messages."""
    dataset, where = job.entry.dataset, _place(job, split)
    if path := _file(job, split):
        return read_rows(path, dataset.delimiter, header=dataset.header), where
    rows = hub_rows(dataset, split)
    return QUIRKS.find(dataset.prepare)(rows) if dataset.prepare else rows, where


def _place(job: Job, split: str) -> str:
    """Where the rows of a split are, for messages."""
    path = _file(job, split)
    return str(path) if path else f"dataset '{job.entry.dataset.id}', split {split}"


def _file(job: Job, split: str) -> Path | None:
    files = job.entry.dataset.files
    if job.source is not None:
        return find_split(job.source, split)
    if files and split not in files:
        raise SoftstartError(f"no file for split '{split}'", where=f"task '{job.entry.name}'")
    return Path(files[split]) if files else None


def _recipe(job: Job) -> str:
    """A digest of everything that decides the files; the hub's rows count by name and revision."""
    digest = hashlib.sha256(job.entry.version(job.version).recipe.encode())
    digest.update(f"{BUILDER} {job.shots} {list(job.seeds)}".encode())
    for split in job.entry.splits.names:
        if path := _file(job, split):
            try:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise SoftstartError(f"cannot read this file ({error.strerror})", where=str(path)) from None
    return digest.hexdigest()


def _still_good(folder: Path, recipe: str, job: Job) -> dict[str, Any] | None:
    """The record of an earlier build of the same entry and rows; None if the task has to be built again.

    Raises:
        SoftstartError: the folder holds files that are neither from this builder nor the published ones.
    """
    published = _published(job)
    present = {name: md5_of(folder / name) for name in published if (folder / name).is_file()}
    record = _record_of(folder)
    if published and present == dict(published):
        return {"files": present, "notes": record["notes"]}
    if not record["files"]:
        if any(folder.iterdir()) and not (folder / RECORD).exists():
            raise SoftstartError(
                "holds files that were not built here", where=str(folder), fix="Replace them with --force."
            )
        return None
    whole = all(
        (folder / name).is_file() and md5_of(folder / name) == md5 for name, md5 in record["files"].items()
    )
    return record if whole and record["recipe"] == recipe else None


def _record_of(folder: Path) -> dict[str, Any]:
    """What a folder was built from; the fields are empty where that is unknown."""
    empty: dict[str, Any] = {"recipe": "", "files": {}, "notes": []}
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return empty
    fits = isinstance(record, dict) and all(isinstance(record.get(k), type(v)) for k, v in empty.items())
    return record if fits else empty


def _published(job: Job) -> Mapping[str, str]:
    """The published checksums of the files to build; empty for entries that are not shipped."""
    published = published_checksums(job.version).get(job.entry.name, {}) if job.shipped else {}
    wanted = {file_name(job.entry.name, job.shots, seed, part) for seed in job.seeds for part in PARTS}
    return {name: md5 for name, md5 in published.items() if name in wanted}


def _write(job: Job, samples: Mapping[int, KShot[Line]], test: list[Line], folder: Path) -> dict[str, str]:
    first: Path | None = None
    for seed, (train, dev) in samples.items():
        name = job.entry.name
        write_tsv(folder / file_name(name, job.shots, seed, "train"), train)
        write_tsv(folder / file_name(name, job.shots, seed, "dev"), dev)
        path = folder / file_name(name, job.shots, seed, "test")
        if first is None:
            write_tsv(path, test)
            first = path
        else:
            shutil.copyfile(first, path)
    if not job.shipped:
        facts = {"kind": job.entry.kind, "metric": job.entry.metric, "category": job.entry.category}
        (folder / "task.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    return {path.name: md5_of(path) for path in sorted(folder.glob("*.tsv"))}


def _report(job: Job, sums: Mapping[str, str], notes: Sequence[str], *, kept: bool) -> Report:
    published = _published(job)
    differs = tuple(name for name, md5 in published.items() if sums.get(name) != md5)
    status: Status = "built" if not published else "differs" if differs else "exact"
    why = job.entry.unstable or job.entry.dataset.today
    if differs and why:
        notes = [*notes, f"known to differ: {why}"]
    return Report(job.entry.name, status, kept, differs, tuple(notes))


def _short(entry: Entry, pool: list[Keyed], k: int) -> list[str]:
    """What the pool is too small for, one sentence each."""
    if entry.kind == "text2text" and not entry.balance:
        return [f"{len(pool)} rows in the pool, {2 * k} are needed for k = {k}"] if len(pool) < 2 * k else []
    counts = Counter(keyed.key for keyed in pool)
    words = () if entry.balance else entry.words
    notes = [f"class '{word}' has no row in the pool" for word in words if word not in counts]
    short = {key: n for key, n in counts.items() if n < 2 * k}
    if short:
        listed = ", ".join(f"'{key}' {n}" for key, n in sorted(short.items())[:5])
        more = f" and {len(short) - 5} more" if len(short) > 5 else ""
        notes.append(f"fewer than {2 * k} rows in the pool for k = {k}: {listed}{more}")
    if len(counts) == 1 and not words:
        notes.append(f"only one class: '{next(iter(counts))}'")
    return notes


def _leaks(samples: Mapping[int, KShot[Line]], test: list[Line]) -> list[str]:
    drawn = (line.input for train, dev in samples.values() for line in (*train, *dev))
    n = duplicates(drawn, (line.input for line in test))
    return [f"{n} train or dev {'input is' if n == 1 else 'inputs are'} in the test set too"] if n else []
