"""Versions of the mini gym: settings that stay as they are when a task is added.

A version is a file ``version-N.yaml`` with the tasks there were and the settings that the rule of
``split.py`` made of them. It is written once and never edited, so a setting's name means the same tasks for
good. Tasks are only ever added: a task that is declared after a version belongs to no setting of it, and can
be used by name or in a setting file.

To make the next version: declare the tasks, measure them with ``python -m benchmarks.gym_facts``, and run
``python -m softstart.gym.mini.new_version``, which writes ``version-N.yaml`` for all tasks declared by
then. ``DEFAULT`` stays, so that studies and scripts that name no version keep theirs; a study asks for a new
one with ``gym_version: N``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from softstart.errors import SoftstartError
from softstart.gym.mini.split import standing
from softstart.gym.setting import Setting
from softstart.storage.safe_yaml import read_yaml

DEFAULT = 1
"""The version of whoever names none."""


@dataclass(frozen=True)
class Version:
    """The tasks of a version and its settings by name."""

    tasks: frozenset[str]
    settings: Mapping[str, Setting]


def versions() -> tuple[int, ...]:
    """The versions there are, ascending."""
    files = Path(__file__).parent.glob("version-*.yaml")
    return tuple(sorted(int(path.stem.removeprefix("version-")) for path in files))


def file_of(version: int) -> Path:
    """Where a version is kept."""
    return Path(__file__).parent / f"version-{version}.yaml"


@cache
def load_version(version: int = DEFAULT) -> Version:
    """Read a version.

    Raises:
        SoftstartError: there is no such version.
    """
    if version not in versions():
        raise SoftstartError(
            f"there is no version {version} of the mini gym",
            fix=f"Use one of {', '.join(map(str, versions()))}.",
        )
    path = file_of(version)
    data = read_yaml(path.read_text(encoding="utf-8"), str(path))
    settings = {
        name: Setting(name, tuple(sides["source"]), tuple(sides["target"]))
        for name, sides in data["settings"].items()
    }
    return Version(frozenset(data["tasks"]), MappingProxyType(settings))


def mini_settings(version: int = DEFAULT) -> Mapping[str, Setting]:
    """The settings of a version of the mini gym, by name.

    Raises:
        SoftstartError: there is no such version.
    """
    return load_version(version).settings


def role(name: str, version: int = DEFAULT) -> str:
    """What a task is for in a version, or why it is not used.

    "source", "target", "not drawn" (eligible as a target, but there were enough), "at chance", "saturated",
    "not measured", or "new" for a task declared after the version was made.

    Raises:
        SoftstartError: there is no such version.
    """
    made = load_version(version)
    if name not in made.tasks:
        return "new"
    if any(name in setting.target for setting in made.settings.values()):
        return "target"
    place = standing(name)
    return "not drawn" if place == "eligible" else place
