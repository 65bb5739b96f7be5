"""Settings: which source tasks a start is learned from and which target tasks it is judged on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import yaml

from softstart.errors import SoftstartError, did_you_mean
from softstart.gym.task import Gym

Collection = Literal["mini", "study", "crossfit"]
"""Settings that ship together: of the mini gym, of the study (ACL 2023), and CrossFit's partitions."""


@dataclass(frozen=True)
class Setting:
    """A named choice of source and target tasks ("mini-cls2cls"), disjoint and without repetition.

    ``source`` may be empty where nothing is learned from it (baselines alone). ``dev`` holds tasks set
    aside for choosing hyper-parameters, which only CrossFit's partitions name. ``as_run`` marks the lists
    of published work, which are kept as they are even where a task is on both sides.

    Raises:
        SoftstartError: for no target, a task named twice, or one that is source and target at once.
    """

    name: str
    source: tuple[str, ...]
    target: tuple[str, ...]
    dev: tuple[str, ...] = ()
    as_run: bool = False

    def __post_init__(self) -> None:
        """Freeze lists into tuples, then validate."""
        object.__setattr__(self, "dev", tuple(self.dev))
        for side in ("source", "target"):
            tasks = tuple(getattr(self, side))
            object.__setattr__(self, side, tasks)
            if not tasks and side == "target":
                self._refuse("has no target task", "Name at least one under 'target'.")
            if twice := _repeated(tasks):
                self._refuse(f"names a {side} task twice: {', '.join(twice)}", "Name every task once.")
        if self.both and not self.as_run:
            self._refuse(
                f"has tasks that are source and target at once: {', '.join(self.both)}",
                "A start learned from its own targets says nothing about new tasks; keep the sides apart.",
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks, sources first, each once."""
        return tuple(dict.fromkeys(self.source + self.target))

    @property
    def both(self) -> tuple[str, ...]:
        """Tasks that are source and target at once, sorted."""
        return tuple(sorted(set(self.source) & set(self.target)))

    def check_against(self, gym: Gym) -> None:
        """Raise one SoftstartError that lists every task the gym does not have, with the nearest names."""
        known = set(gym.tasks())
        missing = [task for task in self.tasks if task not in known]
        if missing:
            hints = [f"{task}: {hint}" for task in missing if (hint := did_you_mean(task, known))]
            self._refuse(
                f"names tasks that gym '{gym.name}' does not have: {', '.join(missing)}",
                " ".join(hints) or f"The gym has {len(known)} tasks.",
            )

    def _refuse(self, what: str, fix: str) -> None:
        raise SoftstartError(what, where=f"setting '{self.name}'", fix=fix)


def load_setting(name: str | Path, gym: Gym | None = None) -> Setting:
    """Look up a setting by name, or read one of your own from a YAML file.

    "cls2cls" is the study's, "mini-cls2cls" the mini gym's; CrossFit's "random" is ``crossfit/random``. A
    published setting is given as it was run; a warning tells what is on both sides of it: a task, or a
    dataset under two names.

    Args:
        name: ``NAME``, ``COLLECTION/NAME``, or a file.
        gym: whose tasks a file of your own chooses from; by default the catalog's.

    Raises:
        SoftstartError: if there is no such setting (the message lists those there are), or see
            ``softstart.gym.selection.read_setting``.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        from softstart.gym.selection import read_setting

        return read_setting(Path(name), gym)
    collection, _, short = str(name).rpartition("/")
    for each in get_args(Collection):
        if collection in ("", each) and short in (settings := shipped_settings(each)):
            _warn(settings[short])
            return settings[short]
    known = {key for each in get_args(Collection) for key in shipped_settings(each)}
    fix = f"{did_you_mean(short, known)} Known: {', '.join(sorted(known))}; or give a YAML file."
    raise SoftstartError(f"unknown setting '{name}'", fix=fix.strip())


@cache
def shipped_settings(collection: Collection = "mini") -> Mapping[str, Setting]:
    """The settings of a collection that ships with the package.

    CrossFit's partitions name dev and test tasks; their targets are the test tasks, or the dev tasks where
    there is no test task.
    """
    if collection == "mini":
        from softstart.gym.mini import MINI_SETTINGS

        lists = {
            name: Setting(name, tuple(s["source"]), tuple(s["target"])) for name, s in MINI_SETTINGS.items()
        }
        return MappingProxyType(lists)
    text = (resources.files("softstart.gym.catalog") / "settings.yaml").read_text(encoding="utf-8")
    data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))[collection]
    if collection == "study":
        return MappingProxyType(
            {
                name: Setting(name, tuple(s["source"]), tuple(s["target"]), as_run=True)
                for name, s in data.items()
            }
        )
    return MappingProxyType({name: _partition(name, parts) for name, parts in data.items()})


def _partition(name: str, parts: Mapping[str, list[str]]) -> Setting:
    setting = Setting(name, tuple(parts["train"]), tuple(parts["test"] or parts["dev"]), as_run=True)
    return replace(setting, dev=tuple(parts["dev"])) if parts["test"] else setting


def _warn(setting: Setting) -> None:
    from softstart.gym.overlap import overlaps

    same = [o for o in overlaps(setting) if o.degree in ("task", "dataset", "examples")]
    if same:
        pairs = [o.source if o.degree == "task" else f"{o.source} = {o.target}" for o in same]
        listed = ", ".join(pairs[:3]) + (f" and {len(pairs) - 3} more" if len(pairs) > 3 else "")
        warnings.warn(
            f"setting '{setting.name}' has the same data among its source and target tasks ({listed}); "
            "what it gains on them says little about new tasks",
            stacklevel=3,
        )


def _repeated(tasks: tuple[str, ...]) -> list[str]:
    return sorted({task for task in tasks if tasks.count(task) > 1})
