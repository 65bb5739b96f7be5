"""What the command line asks of the gym: facts of tasks and settings as plain values, and jobs to build."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_args

from softstart.errors import SoftstartError, did_you_mean
from softstart.gym.build import Job
from softstart.gym.catalog import crossfit_catalog
from softstart.gym.catalog.reading import read_catalog
from softstart.gym.catalog.schema import Entry
from softstart.gym.lines import make_lines
from softstart.gym.overlap import overlaps
from softstart.gym.rows import SUFFIXES, read_rows
from softstart.gym.sampling import SEEDS
from softstart.gym.selection import in_category, no_such
from softstart.gym.setting import Setting
from softstart.gym.settings import Collection, load_setting, shipped_settings
from softstart.gym.sources import open_gym
from softstart.gym.task import Gym, Kind, Task
from softstart.gym.template import Row, Template

AVAILABILITY = ("hub", "converted", "files", "withdrawn", "mini", "folder")
"""Where rows are to be had: on the hub, there only as its own conversion to parquet, in files of your own,
nowhere but at somebody's, in the package, in a folder that is built."""

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
    facts = [_facts_of_task(opened, name) for name in opened.tasks()] if opened else _catalog_facts(catalog)
    if available is not None and available not in AVAILABILITY:
        fix = f"Use one of {', '.join(AVAILABILITY)}."
        raise SoftstartError(f"unknown availability '{available}'", fix=fix)
    for key, wanted in (("category", category), ("metric", metric)):
        if wanted is not None and not any(_meets(f, key, wanted) for f in facts):
            raise no_such(key, wanted, {f[key] for f in facts})
        if wanted is not None:
            facts = [f for f in facts if _meets(f, key, wanted)]
    if available is not None:
        facts = [f for f in facts if f["available"] == available]
    if setting is not None:
        among = set(_setting(setting, opened).tasks)
        facts = [f for f in facts if f["name"] in among]
    return facts


def show_facts(task: str, gym: str | None, catalog: Path | None) -> dict[str, Any]:
    """Everything there is to know about one task.

    Raises:
        SoftstartError: if there is no such task.
    """
    entries = {**crossfit_catalog(), **(read_catalog(catalog) if catalog else {})}
    opened = open_gym(gym) if gym else None
    if opened is None and task not in entries and task in open_gym().tasks():
        opened = open_gym()
    if opened is not None:
        if opened.name == "mini":
            return {**_show_loaded(opened.load(task), None), **_levels(task)}
        return _show_loaded(opened.load(task), entries.get(task))
    return _show_entry(_known([task], entries)[0])


def choose(names: Sequence[str], setting: str | None, everything: bool, catalog: Path | None) -> list[Entry]:
    """The entries to build, each once.

    Raises:
        SoftstartError: nothing is named, or a task or setting that does not exist.
    """
    own = read_catalog(catalog) if catalog else {}
    entries = {**crossfit_catalog(), **own}
    wanted = list(names)
    if setting:
        wanted += [*(chosen := load_setting(setting)).tasks, *chosen.dev]
    if everything:
        wanted += own if catalog else entries
    if not wanted:
        raise SoftstartError("nothing to build", fix="Name tasks, a --setting, or --all.")
    return _known(list(dict.fromkeys(wanted)), entries)


def jobs_for(
    entries: Sequence[Entry],
    out: Path,
    source: Path | None,
    *,
    asked: bool,
    seeds: Sequence[int] | None,
    version: str,
    **options: Any,
) -> tuple[list[Job], list[str]]:
    """A job per task, and the names of tasks that were not asked for by name and have no rows in ``source``.

    The rows of a task lie in ``source/<task>``, else in ``source`` itself.
    """
    if version not in ("v1", "v2"):
        raise SoftstartError(f"unknown version '{version}' of the gym", fix="Use v1 or v2.")
    if source is not None and not source.is_dir():
        raise SoftstartError("no such folder", where=str(source), fix="--source takes a folder of rows.")
    work, absent = [], []
    for entry in entries:
        folder = source
        if source is not None and ((source / entry.name).is_dir() or not _has_rows(source)):
            folder = source / entry.name
        if folder is not None and not asked and not folder.is_dir():
            absent.append(entry.name)
            continue
        shipped = crossfit_catalog().get(entry.name) == entry
        work.append(Job(entry, out, shipped, folder, tuple(seeds or SEEDS), version=version, **options))
    return work, absent


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


def label_words(labels: Sequence[str]) -> Sequence[str] | Mapping[str, str]:
    """``--labels``: words, or a mapping if every one is ``VALUE=WORD``."""
    if labels and all("=" in label for label in labels):
        return dict(label.split("=", 1) for label in labels)
    return tuple(labels)


def check_kind(kind: str | None) -> Kind | None:
    """A kind as the command line gives it."""
    if kind is not None and kind not in get_args(Kind):
        raise SoftstartError(f"unknown kind '{kind}'", fix=f"Use one of {', '.join(get_args(Kind))}.")
    return cast("Kind | None", kind)


def _setting(name: str, gym: Gym | None = None) -> Setting:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_setting(name, gym)


def _meets(facts: Mapping[str, Any], key: str, wanted: str) -> bool:
    if key == "category":
        return in_category(facts[key], wanted)
    return bool(facts[key].lower() == wanted.lower())


def _known(names: Sequence[str], entries: Mapping[str, Entry]) -> list[Entry]:
    if unknown := [name for name in names if name not in entries]:
        hints = [f"{name}: {hint}" for name in unknown if (hint := did_you_mean(name, entries))]
        fix = " ".join(hints) or "'softstart gym list' shows all tasks."
        raise SoftstartError(f"unknown task {', '.join(map(repr, unknown))}", fix=fix)
    return [entries[name] for name in names]


def _has_rows(folder: Path) -> bool:
    return any(path.suffix in SUFFIXES for path in folder.iterdir())


def _catalog_facts(catalog: Path | None) -> list[dict[str, Any]]:
    entries = read_catalog(catalog) if catalog else crossfit_catalog()
    return [
        _facts(name, entry.category, entry.metric, entry.kind, entry.shots, entry.dataset.availability)
        for name, entry in entries.items()
    ]


def _facts_of_task(gym: Gym, name: str) -> dict[str, Any]:
    task = gym.load(name)
    where = "mini" if gym.name == "mini" else "folder"
    sample = next(iter(task.samples.values()))
    k = len(sample.train) // max(1, len(task.labels))
    known = _facts(name, task.category, task.metric, task.kind, k, where)
    return {**known, **_levels(name)} if gym.name == "mini" else known


def _levels(name: str) -> dict[str, Any]:
    """What a mini task is for (or why not), and its levels; None where not measured."""
    from softstart.gym.mini.facts import facts
    from softstart.gym.mini.versions import role

    known = asdict(facts()[name]) if name in facts() else {}
    return {"role": role(name), **{key: known.get(key) for key in LEVELS}}


def _facts(name: str, category: str, metric: str, kind: str, shots: int, available: str) -> dict[str, Any]:
    used: dict[str, list[str]] = {"source": [], "target": []}
    for collection in get_args(Collection):
        for key, setting in shipped_settings(collection).items():
            for side, found in used.items():
                if name in getattr(setting, side):
                    found.append(f"{collection}/{key}")
    return {
        "name": name,
        "category": category,
        "metric": metric,
        "kind": kind,
        "shots": shots,
        "available": available,
        "source_in": used["source"],
        "target_in": used["target"],
    }


def _show_entry(entry: Entry) -> dict[str, Any]:
    facts = _facts(
        entry.name, entry.category, entry.metric, entry.kind, entry.shots, entry.dataset.availability
    )
    details = {
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
    return {**facts, **details}


def _show_loaded(task: Task, entry: Entry | None) -> dict[str, Any]:
    """A task of a gym; with its entry, what the catalog says too."""
    sample = next(iter(task.samples.values()))
    example = sample.train[0]
    k = len(sample.train) // max(1, len(task.labels))
    base = (
        _show_entry(entry)
        if entry
        else _facts(task.name, task.category, task.metric, task.kind, k, task.source)
    )
    return {
        **base,
        "labels": list(task.labels),
        "samples": list(task.samples),
        "rows": {"train": len(sample.train), "dev": len(sample.dev), "test": len(task.test)},
        "example": f"{example.input} → {' | '.join(example.outputs)}",
    }


def _outline(entry: Entry) -> str:
    """What a line looks like: of the entry's example or your own rows, else with fields for their texts."""
    rows: Iterable[Row] = entry.example
    if not rows and entry.dataset.files:
        rows = read_rows(next(iter(entry.dataset.files.values())), entry.dataset.delimiter)
    for line, _ in make_lines(entry, rows, f"task '{entry.name}', example"):
        return " → ".join((line.input, line.output.replace("\t", " | ")))
    sides = []
    for text in (entry.input, entry.output):
        parts = Template(text).parts
        sides.append("".join(part if isinstance(part, str) else f"<{part.path}>" for part in parts))
    shown = sides[0]
    if entry.choices:
        item = Template(entry.choices.item)
        items = (item({"L": letter, "T": f"<choice {letter}>"}) for letter in "AB")
        shown = shown.replace("<CHOICES>", "".join(items) + " …")
    output = sides[1].replace("<LABEL>", entry.words[0] if entry.words else "<LABEL>")
    output = output.replace("<ANSWER>", "<the right choice>").replace("<ANSWERS>", "<answer> | <another> | …")
    return f"{shown} → {output}"
