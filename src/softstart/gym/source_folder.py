"""Source tasks of a folder: tables of one's own, whose columns may differ, or a gym.

``sources.yaml`` in the folder says how tables are read whose columns have other names::

    reviews.csv: {input: '{title}: {body}', label: stars, labels: {1: bad, 5: good}}
    questions.jsonl: {input: question, output: answer}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from softstart.errors import SoftstartError, did_you_mean
from softstart.gym.folder import CrossFitFolder, is_crossfit_folder
from softstart.gym.lm_eval_task import is_lm_eval
from softstart.gym.rows import SUFFIXES, read_rows
from softstart.gym.tables import WHOLE, RawData, whole_task
from softstart.gym.task import Task
from softstart.storage.safe_yaml import read_yaml

MAPPING = "sources.yaml"
"""The file that says how tables are read."""

KEYS = ("input", "output", "label", "labels", "kind", "metric", "delimiter", "header", "multi_label")
"""What it can say of a table: fields of ``RawData``."""

ANSWERS = ("output", "target", "answer")
OUTPUTS = (*ANSWERS, "label", "labels", "class", "category")
"""Names of columns that hold what is to be said."""
NUMBERS = ("id", "idx", "index", "unnamed: 0", "")
"""Names of columns that number the rows."""


def source_tasks(
    folder: str | Path, like: RawData | None = None, *, as_published: bool = False
) -> list[Task]:
    """The tables of a folder as source tasks to learn a start from: none of their rows is kept for a test.

    The columns of a table are what ``sources.yaml`` says, else what ``like`` says; where it says nothing,
    they are those of ``RawData``, and of a table with other names its only text column and its only output.
    A folder in CrossFit's format gives its tasks, with all their samples.

    Args:
        folder: holds one CSV, TSV, JSONL or parquet file per task; other files are ignored.
        like: how the rows of every file become a task; its ``data`` is not used.
        as_published: read a folder in CrossFit's format as the published code did, see ``CrossFitFolder``.

    Raises:
        SoftstartError: as ``whole_task``, no table in the folder, or tables whose columns cannot be guessed:
            then a draft of ``sources.yaml`` is in the message.
    """
    root, like = Path(folder), like or RawData("")
    inside = sorted(root.iterdir()) if root.is_dir() else []
    files = [path for path in inside if _is_table(path)]
    if not files and root.is_dir() and is_crossfit_folder(root):
        gym = CrossFitFolder(root, as_published=as_published)
        return [gym.load(name) for name in gym.tasks()]
    if not files:
        raise SoftstartError(
            "no tables to learn from" if root.is_dir() else "no such folder",
            where=str(root),
            fix=f"Give a folder of {', '.join(SUFFIXES)} files, or of tasks in CrossFit's format.",
        )
    mapping = _mapping(root / MAPPING, [file.name for file in files])
    readings, draft = {}, {}
    for file in files:
        reading = {"data": str(file), **mapping.get(file.name, {})}
        columns = _columns_of(file, reading.get("header", like.header))
        said = any((like.input, like.output, like.label, file.name in mapping))
        if not said and not {"input", "output"} <= set(columns) and not {"input", "label"} <= set(columns):
            guess = _guess(columns)
            if guess is None:
                draft[file.name] = _draft(columns)
            reading |= guess or {}
        readings[file] = replace(like, **reading)
    if draft:
        raise SoftstartError(
            f"cannot tell input and output of {len(draft)} of {len(files)} tables",
            where=str(root),
            fix=f"Write {root / MAPPING} like this, corrected: {_one_line(draft)}",
        )
    tasks = []
    for raw in readings.values():
        task = whole_task(raw)
        sample = task.samples[WHOLE]
        whole = replace(sample, train=sample.train + task.test)
        # Notes on test rows mean nothing here: there are none.
        notes = tuple(note for note in task.notes if "test" not in note)
        tasks.append(replace(task, samples={WHOLE: whole}, test=(), notes=notes))
    if len({task.name for task in tasks}) < len(tasks):
        raise SoftstartError("two tables have the same name", where=str(root), fix="Rename one.")
    return tasks


def _is_table(path: Path) -> bool:
    """Whether a file is a source task: a table, or a task of lm-evaluation-harness."""
    # Hidden files, such as those of editors and of macOS, are no tasks.
    return not path.name.startswith(".") and (path.suffix.lower() in SUFFIXES or is_lm_eval(path))


def _mapping(path: Path, files: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What ``sources.yaml`` says, by file."""
    if not path.is_file():
        return {}
    shape = "Write FILE: {input: …, output: … or label: …} for every table."
    try:
        said = read_yaml(path.read_bytes().decode(), str(path))
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise SoftstartError(f"cannot read the mapping ({text})", where=str(path), fix=shape) from None
    if not isinstance(said, Mapping) or not all(isinstance(of, Mapping) for of in said.values()):
        raise SoftstartError("not a mapping of files to columns", where=str(path), fix=shape)
    for file, of in said.items():
        if file not in files:
            fix = did_you_mean(str(file), files) or f"The folder has {', '.join(files)}."
            raise SoftstartError(f"no table '{file}'", where=str(path), fix=fix)
        if unknown := sorted(map(str, set(of) - set(KEYS))):
            fix = did_you_mean(unknown[0], KEYS) or f"Known: {', '.join(KEYS)}."
            raise SoftstartError(f"{file}: unknown key '{unknown[0]}'", where=str(path), fix=fix)
    return {str(file): _typed(dict(of), f"{path}: {file}") for file, of in said.items()}


def _typed(of: dict[str, Any], where: str) -> dict[str, Any]:
    """What a mapping says of one table, labels as texts."""
    for key, value in of.items():
        if key == "labels" and isinstance(value, (list, Mapping)):
            pairs = list(value.items() if isinstance(value, Mapping) else ((word, word) for word in value))
            # YAML takes bare yes and no for something else.
            if any(isinstance(text, bool) for pair in pairs for text in pair):
                raise SoftstartError("a label is true or false", where=where, fix="Put it in quotes: 'yes'.")
            of[key] = {str(name): str(word) for name, word in pairs}
        elif key == "multi_label" and isinstance(value, list):
            of[key] = tuple(map(str, value))
        elif key in ("labels", "multi_label"):
            raise SoftstartError(f"'{key}' cannot be {value!r}", where=where, fix="Write a list: [a, b].")
        elif value is False if key == "header" else isinstance(value, str):
            continue
        else:
            raise SoftstartError(f"'{key}' cannot be {value!r}", where=where, fix="Write a text.")
    return of


def _columns_of(file: Path, header: bool | None) -> list[str]:
    first = next(iter(read_rows(file, header=header)), {})
    return list(first)


def _guess(columns: Sequence[str]) -> dict[str, str] | None:
    """Input and output of a table with one text and one output; None: it has more, or others."""
    outputs = [name for name in columns if name.lower() in OUTPUTS]
    texts = [name for name in columns if name not in outputs and name.lower() not in NUMBERS]
    if len(outputs) != 1 or len(texts) != 1:
        return None
    kind = "output" if outputs[0].lower() in ANSWERS else "label"
    return {"input": f"{{{texts[0]}}}", kind: outputs[0]}


def _draft(columns: Sequence[str]) -> dict[str, str]:
    named = [name for name in columns if name.lower() in OUTPUTS] or list(columns[-1:])
    texts = [name for name in columns if name not in named and name.lower() not in NUMBERS]
    return {"input": " ".join(f"{{{name}}}" for name in texts), "label": named[0]}


def _one_line(draft: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(draft), default_flow_style=True, width=1_000_000, sort_keys=False)
    return text.strip()
