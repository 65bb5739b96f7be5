"""The tasks that a study names, and how much of them it uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from softstart.errors import SoftstartError
from softstart.gym.setting import Setting
from softstart.gym.settings import load_setting
from softstart.gym.sources import open_gym
from softstart.gym.task import Gym
from softstart.study.declare.spec import SettingSpec, Study, resolve_methods
from softstart.training.encoding import rng_for


def resolve_setting(study: Study, spec: str | SettingSpec, gym: Gym) -> Setting:
    """A setting that a study names or lists, with as many source tasks as the study uses.

    Raises:
        SoftstartError: an unknown name, unknown or overlapping tasks, or nothing to learn a start from.
    """
    setting = declared_setting(study, spec, gym)
    if isinstance(spec, SettingSpec):
        learners = [method.name for method in resolve_methods(study) if method.algorithm]
        if learners and not setting.source:
            raise SoftstartError(
                f"method '{learners[0]}' has no source task to learn from",
                where=f"setting '{setting.name}'",
                fix="List some under 'source'.",
            )
    setting.check_against(gym)
    return replace(setting, source=some_sources(setting.source, study.source_tasks))


def declared_setting(study: Study, spec: str | SettingSpec, gym: Gym | None = None) -> Setting:
    """The lists of a setting, whether or not there are such tasks.

    Args:
        study: the study.
        spec: one of its settings.
        gym: the gym, if it is at hand; the settings of the mini gym are known without it.

    Raises:
        SoftstartError: an unknown name, or overlapping lists.
    """
    if isinstance(spec, SettingSpec):
        return Setting(spec.name, tuple(spec.source), tuple(spec.target))
    if gym is None and study.gym == "mini":
        gym = open_gym("mini", version=study.gym_version)
    return load_setting(spec, gym)


def some_sources(names: Sequence[str], count: int | None) -> tuple[str, ...]:
    """The first source tasks of a list shuffled once, in the setting's order: smaller counts are subsets."""
    if count is None:
        return tuple(names)
    first = set(rng_for(len(names)).permutation(len(names))[:count].tolist())
    return tuple(name for i, name in enumerate(names) if i in first)


def test_rows(study: Study, name: str) -> int | None:
    """How many rows of a task's test set are used; None: all."""
    rows = study.test_rows
    return rows.get(name) if isinstance(rows, dict) else rows
