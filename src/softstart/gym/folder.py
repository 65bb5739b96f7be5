"""Folders in CrossFit's format.

A folder holds one directory per task::

    <root>/<task>/<task>_<k>_<seed>_train.tsv     and ..._dev.tsv, one pair per sample
    <root>/<task>/<task>_test.tsv                 once, or <task>_<k>_<seed>_test.tsv, the same for all seeds
    <root>/<task>/task.json                       optional: {"kind": ..., "metric": ..., "category": ...}

``softstart.gym.tsv`` reads their lines.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from softstart.errors import SoftstartError, did_you_mean
from softstart.gym.catalog import crossfit_catalog, published_checksums
from softstart.gym.metrics import METRICS, check_references
from softstart.gym.task import Example, Kind, Sample, Task, check_kind
from softstart.gym.tsv import Split, file_name, read_as_published, read_examples, read_lines

PARTS = ("train", "dev", "test")
_TRAIN_FILE = re.compile(r"(?P<task>.+)_(?P<k>\d+)_(?P<seed>\d+)_train\.tsv")


class CrossFitFolder:
    """The tasks of a folder in CrossFit's format (see the module's docstring), each read once.

    Kind, metric and category come from the task's ``task.json``, else from the catalog of the 160
    CrossFit tasks. For a task that neither knows, k decides the kind, as k counts rows per label in
    classification and all rows in text-to-text: more than k training rows mean classification, scored by
    Classification-F1, otherwise text-to-text, scored by EM. A warning says so.

    A row that breaks the format is an error in every split, with one exception: a test row of a
    text-to-text task may have an empty answer (``input TAB``); it stays and scores 0, as in CrossFit.

    Args:
        path: the folder that holds one directory per task.
        shots: which k to read where a task has several. Text-to-text tasks with a single k are read at
            that k, since theirs counts something else.
        skip_malformed: leave broken rows out, with a warning that counts them, instead of raising the error.
        as_published: read every file as the published code did (``tsv.read_as_published``): no row is broken.
            Of dev and test rows, those that the metric cannot score are left out, with a warning: they
            stopped the published evaluation.

    Raises:
        SoftstartError: if the folder is missing or holds no task.
    """

    version: int | None = None

    def __init__(
        self,
        path: str | Path,
        *,
        shots: int | None = None,
        skip_malformed: bool = False,
        as_published: bool = False,
    ) -> None:
        self.root, self.shots, self.skip_malformed = Path(path), shots, skip_malformed
        self.as_published = as_published
        if not self.root.is_dir():
            what = "is not a folder" if self.root.exists() else "does not exist"
            raise SoftstartError(f"gym folder '{path}' {what}", fix=_FOLDER_FIX)
        try:
            self._samples = dict(_find_tasks(self.root))
        except OSError as error:
            raise SoftstartError(f"cannot read gym folder '{path}' ({error})") from None
        self._read: dict[str, Task] = {}
        if not self._samples:
            inner = [d.name for d in _directories(self.root) if next(_find_tasks(d), None)]
            hint = f"Did you mean '{self.root / inner[0]}'?" if inner else _FOLDER_FIX
            raise SoftstartError(f"gym folder '{path}' holds no task", fix=hint)

    @property
    def name(self) -> str:
        """The folder's path."""
        return str(self.root)

    def tasks(self) -> tuple[str, ...]:
        """The names of all tasks that have at least one training file, sorted."""
        return tuple(sorted(self._samples))

    def load(self, task: str) -> Task:
        """Read one task.

        Raises:
            SoftstartError: if there is no such task, several k and no ``shots`` to choose, a missing,
                empty or malformed file, test files that differ between seeds, or a metric that is
                unknown or cannot use the answers.
        """
        if task not in self._samples:
            fix = did_you_mean(task, self._samples) or f"It has {len(self._samples)} other tasks."
            raise SoftstartError(f"unknown task '{task}'", where=self.name, fix=fix)
        if task not in self._read:
            self._read[task] = self._load(task)
        return self._read[task]

    def _load(self, task: str) -> Task:
        folder = self.root / task
        given = _catalog_facts(task) | _read_task_json(folder / "task.json")
        k = self._choose_k(task, given.get("kind"))
        seeds = self._samples[task][k]
        facts = _complete(given, folder / file_name(task, k, seeds[0], "train"), k)

        def read(path: Path, split: Split) -> tuple[Example, ...]:
            if self.as_published:
                rows = read_as_published(path)
                return rows if split == "train" else _scorable(rows, facts.metric, path)
            rows = read_examples(path, facts.kind, split, skip_malformed=self.skip_malformed)
            if split != "train":
                try:
                    check_references(facts.metric, [row.outputs for row in rows])
                except SoftstartError as error:
                    where = f"{path} ({error.where})"
                    raise SoftstartError(error.what, where=where, fix=error.fix) from None
            return rows

        return Task(
            name=task,
            kind=facts.kind,
            metric=facts.metric,
            category=facts.category,
            samples={
                seed: Sample(
                    seed,
                    read(folder / file_name(task, k, seed, "train"), "train"),
                    read(folder / file_name(task, k, seed, "dev"), "dev"),
                )
                for seed in seeds
            },
            test=read(_test_file(folder, task, k, seeds), "test"),
            source=f"{folder}, k={k}",
            published=_versions(folder, task, k, seeds),
        )

    def _choose_k(self, task: str, kind: str | None) -> int:
        available = sorted(self._samples[task])
        if self.shots in available:
            return self.shots
        if len(available) == 1 and (self.shots is None or kind == "text2text"):
            return available[0]
        listed = ", ".join(map(str, available))
        if self.shots is None:
            what, fix = f"task '{task}' has several k: {listed}", "Choose one with 'shots'."
        else:
            what, fix = f"task '{task}' has no files for k = {self.shots}", f"It has k = {listed}."
        raise SoftstartError(what, where=self.name, fix=fix)


def is_crossfit_folder(root: Path) -> bool:
    """Whether a folder holds a task in CrossFit's format."""
    return next(_find_tasks(root), None) is not None


class _Facts(NamedTuple):
    """What the rows of a folder do not say."""

    kind: Kind
    metric: str
    category: str


def _scorable(rows: tuple[Example, ...], metric: str, path: Path) -> tuple[Example, ...]:
    """The rows that a metric can score; a warning counts the others."""
    problem = METRICS.find(metric).problem
    if problem is None:
        return rows
    found = [problem(row.outputs) for row in rows]
    if not any(found):
        return rows
    first = next(what for what in found if what)
    warnings.warn(
        f"{path}: left out {sum(map(bool, found))} rows that {metric} cannot score ({first})", stacklevel=5
    )
    return tuple(row for row, what in zip(rows, found, strict=True) if not what)


def _versions(folder: Path, task: str, k: int, seeds: list[int]) -> tuple[str, ...]:
    """The versions of the published gym that the files of a task equal, all of them: "v1", "v2"."""
    names = [file_name(task, k, seed, part) for seed in seeds for part in PARTS]
    test = _test_file(folder, task, k, seeds).name
    files = {name: test if name.endswith("_test.tsv") else name for name in names}
    known = {version: published_checksums(version).get(task, {}) for version in ("v1", "v2")}
    if not any(name in sums for sums in known.values() for name in files):
        return ()
    found: dict[str, str] = {}
    for name in dict.fromkeys(files.values()):
        with (folder / name).open("rb") as file:
            found[name] = hashlib.file_digest(file, "md5").hexdigest()
    return tuple(
        version
        for version, sums in known.items()
        if all(sums.get(name) == found[there] for name, there in files.items())
    )


def _directories(root: Path) -> Iterator[Path]:
    return (d for d in sorted(root.iterdir()) if d.is_dir() and not d.name.startswith("."))


def _find_tasks(root: Path) -> Iterator[tuple[str, dict[int, list[int]]]]:
    """Every task below ``root``, with its seeds at each k."""
    for folder in _directories(root):
        samples: dict[int, list[int]] = {}
        for path in folder.iterdir():
            match = _TRAIN_FILE.fullmatch(path.name)
            if match and match["task"] == folder.name:
                samples.setdefault(int(match["k"]), []).append(int(match["seed"]))
        if samples:
            yield folder.name, {k: sorted(seeds) for k, seeds in samples.items()}


def _test_file(folder: Path, task: str, k: int, seeds: list[int]) -> Path:
    """The one test file of a task; copies per seed must be identical."""
    candidates = [folder / f"{task}_test.tsv", *(folder / file_name(task, k, seed, "test") for seed in seeds)]
    first, *others = [path for path in candidates if path.is_file()] or [candidates[0]]
    for other in others:
        if not filecmp.cmp(first, other, shallow=False):
            raise SoftstartError(
                f"differs from {first.name}, but the samples of a task share one test set",
                where=str(other),
                fix=f"Keep one {task}_test.tsv.",
            )
    return first


def _read_task_json(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SoftstartError(f"not valid JSON ({error})", where=str(path), fix=_JSON_FIX) from None
    known = ("kind", "metric", "category")
    if not isinstance(given, dict) or not all(k in known and isinstance(v, str) for k, v in given.items()):
        raise SoftstartError("expected an object of strings", where=str(path), fix=_JSON_FIX)
    if "kind" in given:
        check_kind(given["kind"], where=str(path))
    if "metric" in given:
        METRICS.find(given["metric"], where=str(path))
    return given


def _catalog_facts(task: str) -> dict[str, str]:
    facts = crossfit_catalog().get(task)
    return {} if facts is None else {"kind": facts.kind, "metric": facts.metric, "category": facts.category}


def _complete(given: Mapping[str, str], train_file: Path, k: int) -> _Facts:
    """Fill in the facts that neither task.json nor the catalog gives, from the number of training rows."""
    guess: Kind = "classification" if len(read_lines(train_file)) > k else "text2text"
    kind = check_kind(given.get("kind", guess))
    metric = given.get("metric", "Classification-F1" if kind == "classification" else "EM")
    if "kind" not in given or "metric" not in given:
        name = train_file.parent.name
        warnings.warn(
            f"task '{name}' is not in the catalog: treated as {kind}, scored by {metric}; "
            f"set kind and metric in {name}/task.json",
            stacklevel=5,
        )
    return _Facts(kind, metric, given.get("category", "other"))


_FOLDER_FIX = (
    "Give the folder that holds one directory per task, with files like emo/emo_16_13_train.tsv, or 'mini'."
)
_JSON_FIX = (
    'Write {"kind": "classification" or "text2text", "metric": ..., "category": ...}; all three are optional.'
)
