"""What there is to know of tasks and settings, as plain values for the command line."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from softstart.errors import SoftstartError
from softstart.gym.catalog import all_entries, crossfit_catalog, entries_named
from softstart.gym.catalog.reading import read_catalog
from softstart.gym.catalog.schema import Entry
from softstart.gym.lines import make_lines
from softstart.gym.metrics import METRICS
from softstart.gym.mini.facts import facts as mini_facts
from softstart.gym.mini.versions import role
from softstart.gym.overlap import overlaps
from softstart.gym.rows import read_rows
from softstart.gym.selection import in_category, no_such
from softstart.gym.setting import Setting
from softstart.gym.settings import Collection, load_setting, shipped_settings
from softstart.gym.sources import open_gym
from softstart.gym.task import Gym, Task
from softstart.gym.template import Row, Template

AVAILABILITY = ("hub", "converted", "files", "withdrawn", "mini", "folder")
"""Where the rows of a task are: on the hub, on the hub only as its own conversion to parquet, in files that a
catalog names, no longer public, in the package, in a folder that was built."""

LEVELS = ("chance", "majority", "zero_shot", "pt", "ft", "oracle")
"""Of a mini task, see ``softstart.gym.mini.facts.Facts``."""


def list_facts(
    category: str | None,
    metric: str | None,
    setting: str | None,
    available: str | None,
    gym: str | None,
    catalog: Path | None,
) -> list[dict[str, Any]]:
    """The facts of every task that meets all of the filters.

    Raises:
        SoftstartError: for a filter that nothing could meet.
    """
    opened = open_gym("mini" if available == "mini" else gym) if gym or available == "mini" else None
    tasks = [_facts_in(opened, name) for name in opened.tasks()] if opened else _facts_of_catalog(catalog)
    if available is not None and available not in AVAILABILITY:
        raise SoftstartError(
            f"unknown availability '{available}'", fix=f"Use one of {', '.join(AVAILABILITY)}."
        )
    for key, wanted in (("category", category), ("metric", metric)):
        if wanted is not None and not any(_meets(task, key, wanted) for task in tasks):
            raise no_such(key, wanted, {task[key] for task in tasks})
        if wanted is not None:
            tasks = [task for task in tasks if _meets(task, key, wanted)]
    if available is not None:
        tasks = [task for task in tasks if task["available"] == available]
    if setting is not None:
        members = set(_setting(setting, opened).tasks)
        tasks = [task for task in tasks if task["name"] in members]
    return tasks


def show_facts(
    task: str, gym: str | None, catalog: Path | None, *, as_published: bool = False
) -> dict[str, Any]:
    """Everything there is to know about one task; of a folder, read as its files are or as published.

    Raises:
        SoftstartError: if there is no such task.
    """
    entries = all_entries(catalog)
    opened = open_gym(gym, as_published=as_published) if gym else None
    if opened is None and task not in entries and task in open_gym().tasks():
        opened = open_gym()
    if opened is None:
        return _show_entry(entries_named([task], entries)[0])
    if opened.version is None:
        return _show_loaded(opened.load(task), entries.get(task))
    return {**_show_loaded(opened.load(task), None), **_levels(task, opened.version)}


def all_settings() -> list[dict[str, Any]]:
    """Every setting of the package: collection/name, tasks on each side, pairs that share data."""
    return [
        {
            "setting": f"{collection}/{name}",
            "source": len(setting.source),
            "target": len(setting.target),
            "shared": len(overlaps(setting)),
        }
        for collection in get_args(Collection)
        for name, setting in shipped_settings(collection).items()
    ]


def setting_facts(name: str, gym: str | None) -> dict[str, Any]:
    """The tasks of a setting and what its sides have in common; with a gym, input by input."""
    opened = open_gym(gym) if gym else None
    setting = _setting(name, opened)
    if opened is not None:
        setting.check_against(opened)
    return {**asdict(setting), "overlaps": [asdict(overlap) for overlap in overlaps(setting, opened)]}


def _setting(name: str, gym: Gym | None = None) -> Setting:
    """A setting without the warning about data on both sides, which is listed anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_setting(name, gym)


def _meets(task: Mapping[str, Any], key: str, wanted: str) -> bool:
    if key == "category":
        return in_category(task[key], wanted)
    return bool(task[key].lower() == wanted.lower())


def _facts_of_catalog(catalog: Path | None) -> list[dict[str, Any]]:
    entries = read_catalog(catalog) if catalog else crossfit_catalog()
    return [_facts_of_entry(entry) for entry in entries.values()]


def _facts_of_entry(entry: Entry) -> dict[str, Any]:
    return _facts(
        entry.name, entry.category, entry.metric, entry.kind, entry.shots, entry.dataset.availability
    )


def _facts_in(gym: Gym, name: str) -> dict[str, Any]:
    task = gym.load(name)
    available = "folder" if gym.version is None else "mini"
    known = _facts(name, task.category, task.metric, task.kind, task.shots, available)
    return known if gym.version is None else {**known, **_levels(name, gym.version)}


def _levels(name: str, version: int) -> dict[str, Any]:
    """What a mini task is for (or why not), and its levels; None where not measured."""
    measured = asdict(mini_facts()[name]) if name in mini_facts() else {}
    return {"role": role(name, version), **{level: measured.get(level) for level in LEVELS}}


def _facts(name: str, category: str, metric: str, kind: str, shots: int, available: str) -> dict[str, Any]:
    member_of: dict[str, list[str]] = {"source": [], "target": []}
    for collection in get_args(Collection):
        for key, setting in shipped_settings(collection).items():
            for side, settings in member_of.items():
                if name in getattr(setting, side):
                    settings.append(f"{collection}/{key}")
    return {
        "name": name,
        "category": category,
        "metric": metric,
        "kind": kind,
        "shots": shots,
        "available": available,
        "source_in": member_of["source"],
        "target_in": member_of["target"],
    }


def _show_entry(entry: Entry) -> dict[str, Any]:
    return {
        **_facts_of_entry(entry),
        "scored_by": METRICS.find(entry.metric).label,
        "dataset": entry.dataset.model_dump(exclude_defaults=True),
        "splits": entry.splits.model_dump(exclude_defaults=True),
        "input": entry.input,
        "output": entry.output,
        "labels": list(entry.words),
        "choices": entry.choices.model_dump(exclude_defaults=True) if entry.choices else {},
        "answer": entry.answer.model_dump(exclude_defaults=True) if entry.answer else {},
        "answers": entry.answers.model_dump(exclude_defaults=True) if entry.answers else {},
        "keep": [keep.model_dump(by_alias=True, exclude_defaults=True) for keep in entry.keep],
        "quirk": entry.quirk,
        "columns": list(entry.example[0]) if entry.example else [],
        "example": _outline(entry),
        "note": entry.note,
        "unstable": entry.unstable,
        "v1": dict(entry.v1),
        "citation": entry.citation,
        "license": entry.license,
    }


def _show_loaded(task: Task, entry: Entry | None) -> dict[str, Any]:
    """A task of a gym; with its entry, what the catalog says too."""
    sample = next(iter(task.samples.values()))
    example = sample.train[0]
    loaded = _facts(task.name, task.category, task.metric, task.kind, task.shots, task.source)
    return {
        **(_show_entry(entry) if entry else loaded),
        "scored_by": METRICS.find(task.metric).label,
        "labels": list(task.labels),
        "samples": list(task.samples),
        "rows": {"train": len(sample.train), "dev": len(sample.dev), "test": len(task.test)},
        "example": f"{example.input} → {' | '.join(example.outputs)}",
    }


def _outline(entry: Entry) -> str:
    """What a line looks like: from the entry's example or its own files, else with fields for their texts."""
    rows: Iterable[Row] = entry.example
    if not rows and entry.dataset.files:
        rows = read_rows(next(iter(entry.dataset.files.values())), entry.dataset.delimiter)
    for line, _ in make_lines(entry, rows, f"task '{entry.name}', example"):
        return " → ".join((line.input, line.output.replace("\t", " | ")))
    source, target = (
        "".join(part if isinstance(part, str) else f"<{part.path}>" for part in Template(text).parts)
        for text in (entry.input, entry.output)
    )
    if entry.choices:
        item = Template(entry.choices.item)
        items = (item({"L": letter, "T": f"<choice {letter}>"}) for letter in "AB")
        source = source.replace("<CHOICES>", "".join(items) + " …")
    target = target.replace("<LABEL>", entry.words[0] if entry.words else "<LABEL>")
    target = target.replace("<ANSWER>", "<the right choice>").replace("<ANSWERS>", "<answer> | <another> | …")
    return f"{source} → {target}"
