"""Tasks of your own from raw rows: a file, a dataset of the hub, or the entries of a catalog file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from softstart.errors import SoftstartError, did_you_mean
from softstart.gym.build import Job, draw, sample
from softstart.gym.catalog import crossfit_catalog
from softstart.gym.catalog.reading import parse_entry, read_catalog
from softstart.gym.catalog.schema import Entry
from softstart.gym.lines import Line, make_lines
from softstart.gym.rows import SUFFIXES, hub_rows, read_rows
from softstart.gym.sampling import SEEDS, shuffled
from softstart.gym.task import Example, Kind, Sample, Task
from softstart.gym.template import Row

HUB = "hf:"
"""Begins the name of a dataset of the hub: ``hf:dair-ai/emotion``."""


@dataclass(frozen=True)
class RawData:
    """Raw rows and how they become a task; what is left out is told from the columns.

    Without ``input``, ``output`` and ``label`` the columns of these names are taken. ``label`` names the
    column whose values are balanced: samples hold k rows of each. ``labels`` are the label words, all of
    them, or a mapping from values to words; a value outside them is an error. Without ``test`` (a file, or
    a split of the hub) a fifth of the rows becomes the test set, as CrossFit carves it.
    """

    data: str
    name: str | None = None
    input: str | None = None
    output: str | None = None
    label: str | None = None
    labels: Sequence[str] | Mapping[str, str] = ()
    kind: Kind | None = None
    metric: str | None = None
    category: str = "own"
    test: str | None = None
    config: str | None = None
    split: str = "train"
    delimiter: str | None = None


def own_entry(raw: RawData) -> Entry:
    """The catalog entry of a task of your own.

    Without ``kind``, a task with a label is classification, and so is one with few different outputs: at
    most 50, and each 8 times on average.

    Raises:
        SoftstartError: a file that cannot be read, columns that are missing, rows that do not fit.
    """
    on_hub = raw.data.startswith(HUB)
    where = raw.data if on_hub else str(Path(raw.data))
    dataset, splits = _place(raw, on_hub)
    data: dict[str, Any] = {"dataset": dataset, "splits": splits, "category": raw.category}
    rows, first = _peek(raw, on_hub, data, where)
    data |= _templates(raw, first, where)
    name = raw.name or re.sub(r"[^A-Za-z0-9._-]+", "_", Path(raw.data.removeprefix(HUB)).stem).lstrip("._-")
    guess: Kind = "classification" if raw.label or "label" in first else "text2text"
    entry = parse_entry(name, data | {"kind": raw.kind or guess, "metric": raw.metric or "EM"}, where)
    data["kind"] = raw.kind or _kind(entry, rows, where, guess)
    default = "Classification-F1" if data["kind"] == "classification" else "EM"
    return parse_entry(name, data | {"metric": raw.metric or default}, where)


class EntryGym:
    """The tasks of catalog entries, drawn in memory when they are loaded.

    Args:
        entries: by name, as ``read_catalog`` and ``crossfit_catalog`` give them.
        name: for reports.
        shots: k of the samples; by default what each entry says.
        seeds: of the samples.
    """

    version: int | None = None

    def __init__(
        self,
        entries: Mapping[str, Entry],
        name: str,
        *,
        shots: int | None = None,
        seeds: Sequence[int] = SEEDS,
    ) -> None:
        self.entries, self._name, self.shots, self.seeds = entries, name, shots, seeds
        self._drawn: dict[str, Task] = {}

    @property
    def name(self) -> str:
        """Where the entries come from."""
        return self._name

    def tasks(self) -> tuple[str, ...]:
        """The names of all entries, sorted."""
        return tuple(sorted(self.entries))

    def load(self, task: str) -> Task:
        """Read the rows of a task and draw its samples, once.

        Raises:
            SoftstartError: no such entry, or rows that cannot be loaded or do not fit.
        """
        if task not in self.entries:
            fix = did_you_mean(task, self.entries) or f"It has {len(self.entries)} other tasks."
            raise SoftstartError(f"unknown task '{task}'", where=self.name, fix=fix)
        if task not in self._drawn:
            entry = self.entries[task]
            shipped = crossfit_catalog().get(task) == entry
            self._drawn[task] = self._draw(Job(entry, Path(), shipped, seeds=self.seeds, k=self.shots))
        return self._drawn[task]

    def _draw(self, job: Job) -> Task:
        entry, drawn = job.entry, draw(job)
        samples = {}
        for seed in self.seeds:
            train, dev = sample(job, drawn, seed)
            samples[seed] = Sample(seed, _examples(train), _examples(dev))
        test = _examples(drawn.test)
        source = f"{self.name}, k={job.shots}"
        return Task(entry.name, entry.kind, entry.metric, entry.category, samples, test, source=source)


WHOLE = 42
"""The name of the first sample of ``whole_task``."""


def whole_task(raw: RawData, *, splits: int = 1, dev_share: float = 0.25, max_dev: int = 200) -> Task:
    """A task of your own with all its rows: each sample is another split of them into train and dev.

    Without a test file a fifth of the rows becomes the test set, the same for all splits. The samples are
    named ``WHOLE``, ``WHOLE + 1``, …

    Raises:
        SoftstartError: as ``own_entry``, or fewer than two rows to learn from.
    """
    entry = own_entry(raw)
    drawn = draw(Job(entry, Path(), False, allow_short=True))
    dev = min(max_dev, max(1, int(dev_share * len(drawn.pool))))
    if len(drawn.pool) <= dev:
        raise SoftstartError(f"{len(drawn.pool)} row to learn from; two are the least", where=raw.data)
    samples = {}
    for seed in range(WHOLE, WHOLE + splits):
        rows = _examples([keyed.line for keyed in shuffled(drawn.pool, seed)])
        samples[seed] = Sample(seed, rows[dev:], rows[:dev])
    test = _examples(drawn.test)
    return Task(entry.name, entry.kind, entry.metric, entry.category, samples, test, raw.data)


def source_tasks(folder: str | Path, like: RawData | None = None) -> list[Task]:
    """The tables of a folder as source tasks to learn a start from: none of their rows is kept for a test.

    Args:
        folder: holds one CSV, TSV, JSONL or parquet file a task; what else is there is left alone.
        like: how the rows of every file become a task; its ``data`` is not used.

    Raises:
        SoftstartError: as ``whole_task``, or no table in the folder.
    """
    root = Path(folder)
    files = sorted(path for path in root.iterdir() if path.suffix in SUFFIXES) if root.is_dir() else []
    if not files:
        raise SoftstartError(
            "no tables to learn from", where=str(root), fix=f"Give a folder of {', '.join(SUFFIXES)} files."
        )
    tasks = []
    for file in files:
        task = whole_task(replace(like or RawData(""), data=str(file)))
        sample = task.samples[WHOLE]
        whole = replace(sample, train=sample.train + task.test)
        tasks.append(replace(task, samples={WHOLE: whole}, test=()))
    if len({task.name for task in tasks}) < len(tasks):
        raise SoftstartError("two tables have the same name", where=str(root), fix="Rename one.")
    return tasks


def open_raw(path: str | Path, *, shots: int | None = None) -> EntryGym:
    """A gym of one task from raw rows (a file or ``hf:DATASET``), or of the tasks of a catalog file."""
    if Path(path).suffix in (".yaml", ".yml"):
        return EntryGym(read_catalog(path), str(path), shots=shots)
    entry = own_entry(RawData(str(path)))
    return EntryGym({entry.name: entry}, str(path), shots=shots)


def is_raw(spec: str | Path) -> bool:
    """Whether a name is for ``open_raw``: a file of rows or a catalog file by its suffix, or ``hf:…``."""
    suffix = Path(spec).suffix in (*SUFFIXES, ".yaml", ".yml")
    return str(spec).startswith(HUB) or (suffix and not Path(spec).is_dir())


def _place(raw: RawData, on_hub: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    if on_hub:
        dataset: dict[str, Any] = {"id": raw.data.removeprefix(HUB), "config": raw.config}
        return dataset, {"pool": raw.split, "test": raw.test} if raw.test else {"carve": raw.split}
    dataset = {"files": {"train": raw.data}, "delimiter": raw.delimiter}
    if raw.test is None:
        return dataset, {"carve": "train"}
    dataset["files"]["test"] = raw.test
    return dataset, {"pool": "train", "test": "test"}


def _peek(raw: RawData, on_hub: bool, data: Mapping[str, Any], where: str) -> tuple[Iterator[Row], Row]:
    """The rows of the training split, and the first of them."""
    if on_hub:
        probe = {"kind": "text2text", "metric": "EM", "input": "{input}", "output": "{output}"}
        rows = hub_rows(parse_entry("probe", {**data, **probe}, where).dataset, raw.split)
    else:
        rows = read_rows(raw.data, raw.delimiter, header=raw.input is not None)
    first = next(rows, None)
    if first is None:
        raise SoftstartError("no rows", where=where)
    return chain([first], rows), first


def _templates(raw: RawData, first: Row, where: str) -> dict[str, Any]:
    """Input, output and label of the entry, from what is given and the columns there are."""
    columns = [column for column in first if column != "LINE"]
    if not columns:
        raise SoftstartError("the first row holds nothing", where=where)
    label = raw.label or ("label" if "label" in columns else None)
    for column, given in (("input", raw.input), (label, None)):
        if column and given is None and column not in columns:
            raise SoftstartError(
                f"no column '{column}'",
                where=where,
                fix=f"It has {', '.join(columns)}: rename one, or give a template like "
                f"--input '{{{columns[0]}}}'.",
            )
    found: dict[str, Any] = {"input": raw.input or "{input}"}
    if label and (raw.output or "output" in columns) and not raw.labels:
        found["balance"] = label
    if raw.output:
        found["output"] = raw.output
    elif raw.labels or (label and "output" not in columns):
        field = label or "output"
        words = raw.labels if isinstance(raw.labels, Mapping) else {word: word for word in raw.labels}
        found["output"] = "{LABEL}" if words else f"{{{field}}}"
        if words:
            found["labels"] = {"field": field, "words": dict(words)}
    elif "output" in columns:
        found |= {"output": "{ANSWERS}", "answers": {"field": "output", "operations": ["line"]}}
    else:
        raise SoftstartError(
            "no column 'output' or 'label'",
            where=where,
            fix=f"It has {', '.join(columns)}: rename one, or give --output or --label.",
        )
    return found


def _kind(entry: Entry, rows: Iterator[Row], where: str, guess: Kind) -> Kind:
    lines = list(make_lines(entry, rows, where, tidy=True))
    outputs = {keyed.line.output for keyed in lines}
    if entry.balance:
        keys = {keyed.key for keyed in lines}
        return "classification" if len(outputs) <= len(keys) else "text2text"
    several = any("\t" in output for output in outputs)
    few = 1 < len(outputs) <= min(50, len(lines) // 8)
    return "classification" if entry.labels or (few and not several) else guess


def _examples(lines: Sequence[Line]) -> tuple[Example, ...]:
    """Lines as they come back from a folder: white space around them gone, cut at every TAB."""
    cut = ("\t".join(line).strip().split("\t") for line in lines)
    return tuple(Example(text, tuple(answers)) for text, *answers in cut)
