"""Settings in a YAML file: source and target tasks by name, category, metric or kind.

    name: mine
    source:
      category: classification
      exclude: [anli, {category: nli}]
    target: [anli, superglue-cb, 'ethos-*']

A side is a list of names, or a mapping: ``category``, ``metric`` and ``kind`` select the tasks of the gym
that meet all of them, ``tasks`` adds names, ``exclude`` removes some. ``exclude`` next to the sides applies
to both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from softstart.errors import SoftstartError, did_you_mean
from softstart.gym.catalog import crossfit_catalog
from softstart.gym.setting import Setting
from softstart.gym.task import Gym
from softstart.storage.safe_yaml import read_yaml

_NARROWS = ("category", "metric", "kind")


@dataclass(frozen=True)
class Facts:
    """What tasks are chosen by."""

    category: str
    metric: str
    kind: str


def read_setting(path: Path, gym: Gym | None = None) -> Setting:
    """A setting from a YAML file, chosen among the tasks of a gym (without one, of the catalog).

    Raises:
        SoftstartError: a file that cannot be read, a key or task that does not exist, a choice that is
            empty, or a task on both sides.
    """
    try:
        data = read_yaml(path.read_bytes().decode(), str(path))
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise SoftstartError(f"cannot read the setting ({text})", where=str(path)) from None
    known = ("name", "source", "target", "exclude")
    if not isinstance(data, dict) or set(data) - set(known):
        raise SoftstartError(f"a setting is a mapping of {', '.join(known)}", where=str(path))
    facts = facts_of(gym)
    without = set(select(data.get("exclude") or [], facts, f"{path}: exclude"))
    sides = {
        side: tuple(
            task for task in select(data.get(side) or [], facts, f"{path}: {side}") if task not in without
        )
        for side in ("source", "target")
    }
    if both := sorted(set(sides["source"]) & set(sides["target"])):
        raise SoftstartError(
            f"{len(both)} tasks are source and target at once: {', '.join(both)}",
            where=str(path),
            fix=f"Take them out of one side: exclude: [{', '.join(both)}].",
        )
    return Setting(str(data.get("name") or path.stem), sides["source"], sides["target"])


def select(choice: Any, facts: Mapping[str, Facts], where: str) -> list[str]:
    """The names a choice stands for (see the module's docstring), in the order of the gym.

    Raises:
        SoftstartError: for an unknown key or name, or a criterion that no task meets.
    """
    if isinstance(choice, (str, Mapping)):
        choice = [choice]
    if not isinstance(choice, list):
        raise SoftstartError("expected task names or a mapping", where=where)
    chosen: dict[str, None] = {}
    for item in choice:
        names = (
            _by_facts(item, facts, where) if isinstance(item, Mapping) else _by_name(str(item), facts, where)
        )
        chosen |= dict.fromkeys(names)
    return list(chosen)


def facts_of(gym: Gym | None) -> dict[str, Facts]:
    """Category, metric and kind of every task of a gym (without one, of the catalog)."""
    catalog = crossfit_catalog()
    known = {name: Facts(entry.category, entry.metric, entry.kind) for name, entry in catalog.items()}
    if gym is None:
        return known
    facts = {}
    for name in gym.tasks():
        if name in known and gym.version is None:
            facts[name] = known[name]
        else:
            task = gym.load(name)
            facts[name] = Facts(task.category, task.metric, task.kind)
    return facts


def in_category(category: str, wanted: str) -> bool:
    """Whether a path in the ontology starts with the wanted one or has it as a step."""
    path, steps = category.lower(), wanted.lower().strip("/")
    return path == steps or path.startswith(f"{steps}/") or steps in path.split("/")


def no_such(key: str, wanted: str, values: Iterable[str], where: str | None = None) -> SoftstartError:
    """The error for a category, metric or kind that no task has, with the nearest of those there are."""
    steps = {step for value in values for step in (value, *(value.split("/") if key == "category" else ()))}
    fix = did_you_mean(wanted, steps) or f"Known: {', '.join(sorted(steps))}."
    return SoftstartError(f"no task has {key} '{wanted}'", where=where, fix=fix)


def _by_name(name: str, facts: Mapping[str, Facts], where: str) -> Iterable[str]:
    if matching := [task for task in facts if fnmatchcase(task, name)]:
        return matching
    fix = did_you_mean(name, facts) or f"There are {len(facts)} other tasks."
    raise SoftstartError(f"unknown task '{name}'", where=where, fix=fix)


def _by_facts(choice: Mapping[str, Any], facts: Mapping[str, Facts], where: str) -> Iterable[str]:
    if unknown := set(choice) - {*_NARROWS, "tasks", "exclude"}:
        fix = f"Known: {', '.join((*_NARROWS, 'tasks', 'exclude'))}."
        raise SoftstartError(f"unknown key '{sorted(map(str, unknown))[0]}'", where=where, fix=fix)
    names = select(choice.get("tasks") or [], facts, where)
    if any(key in choice for key in _NARROWS):
        names += [task for task in facts if _meets(facts[task], choice, facts, where)]
        if not names:
            criteria = ", ".join(f"{key}: {choice[key]}" for key in _NARROWS if key in choice)
            raise SoftstartError(f"no task meets {criteria}", where=where)
    without = set(select(choice.get("exclude") or [], facts, f"{where}.exclude"))
    return [task for task in names if task not in without]


def _meets(task: Facts, choice: Mapping[str, Any], facts: Mapping[str, Facts], where: str) -> bool:
    for key in _NARROWS:
        if key not in choice:
            continue
        wanted = choice[key] if isinstance(choice[key], list) else [choice[key]]
        for value in map(str, wanted):
            values = {getattr(each, key) for each in facts.values()}
            if not any(_equal(key, has, value) for has in values):
                raise no_such(key, value, values, where)
        if not any(_equal(key, getattr(task, key), str(value)) for value in wanted):
            return False
    return True


def _equal(key: str, has: str, wanted: str) -> bool:
    return in_category(has, wanted) if key == "category" else has.lower() == wanted.lower()
