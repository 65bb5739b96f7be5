"""Settings by name, as they ship with the package, or read from a file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import yaml

from softstart.errors import SoftstartError, did_you_mean
from softstart.gym.mini.versions import DEFAULT, mini_settings
from softstart.gym.overlap import overlaps
from softstart.gym.selection import read_setting
from softstart.gym.setting import Setting
from softstart.gym.task import Gym

Collection = Literal["mini", "study", "crossfit"]
"""Settings that ship together: of the mini gym, of the study (ACL 2023), and CrossFit's partitions."""


def load_setting(name: str | Path, gym: Gym | None = None) -> Setting:
    """Look up a setting by name, or read one from a YAML file.

    "cls2cls" is the study's, "mini-cls2cls" the mini gym's; CrossFit's "random" is ``crossfit/random``. A
    published setting is returned as it was run; a warning names the tasks and datasets that occur on both
    of its sides.

    Args:
        name: ``NAME``, ``COLLECTION/NAME``, or a file.
        gym: the tasks that a file chooses from, by default the catalog's; its version decides which
            settings of the mini gym are meant.

    Raises:
        SoftstartError: if there is no such setting (the message lists the known ones), or see
            ``softstart.gym.selection.read_setting``.

    >>> load_setting("mini-nonpara2para").target
    ('same_kind', 'same_season', 'same_subject')
    >>> load_setting("mini-nonpara")
    Traceback (most recent call last):
    softstart.errors.SoftstartError: unknown setting 'mini-nonpara'. Did you mean mini-nonpara2para or ...
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return read_setting(Path(name), gym)
    version = gym.version if gym else None
    shipped = {each: shipped_settings(each, version) for each in get_args(Collection)}
    collection, _, short = str(name).rpartition("/")
    for each, settings in shipped.items():
        if collection in ("", each) and short in settings:
            _warn(settings[short])
            return settings[short]
    known = {key for settings in shipped.values() for key in settings}
    fix = f"{did_you_mean(short, known)} Known: {', '.join(sorted(known))}; or give a YAML file."
    raise SoftstartError(f"unknown setting '{name}'", fix=fix.strip())


def shipped_settings(collection: Collection = "mini", version: int | None = None) -> Mapping[str, Setting]:
    """The settings of a collection that ships with the package.

    CrossFit's partitions name dev and test tasks; their targets are the test tasks, or the dev tasks where
    there is no test task.

    Args:
        collection: which.
        version: of the mini gym; None: the default one. The other collections have no versions.

    Raises:
        SoftstartError: the mini gym has no such version.
    """
    if collection == "mini":
        return mini_settings(DEFAULT if version is None else version)
    return _published(collection)


@cache
def _published(collection: Literal["study", "crossfit"]) -> Mapping[str, Setting]:
    text = (resources.files("softstart.gym.catalog") / "settings.yaml").read_text(encoding="utf-8")
    data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))[collection]
    make = _as_run if collection == "study" else _partition
    return MappingProxyType({name: make(name, lists) for name, lists in data.items()})


def _as_run(name: str, lists: Mapping[str, list[str]]) -> Setting:
    return Setting(name, tuple(lists["source"]), tuple(lists["target"]), as_run=True)


def _partition(name: str, lists: Mapping[str, list[str]]) -> Setting:
    setting = Setting(name, tuple(lists["train"]), tuple(lists["test"] or lists["dev"]), as_run=True)
    return replace(setting, dev=tuple(lists["dev"])) if lists["test"] else setting


def _warn(setting: Setting) -> None:
    same = [o for o in overlaps(setting) if o.degree in ("task", "dataset", "examples")]
    if same:
        pairs = [o.source if o.degree == "task" else f"{o.source} = {o.target}" for o in same]
        listed = ", ".join(pairs[:3]) + (f" and {len(pairs) - 3} more" if len(pairs) > 3 else "")
        warnings.warn(
            f"setting '{setting.name}' has the same data among its source and target tasks ({listed}); "
            "what it gains on them says little about new tasks",
            stacklevel=3,
        )
