"""Settings: which source tasks a start is learned from and which target tasks it is judged on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from softstart.errors import SoftstartError
from softstart.gym.sources import did_you_mean
from softstart.gym.task import Gym


@dataclass(frozen=True)
class Setting:
    """A named choice of source and target tasks ("cls2cls"), disjoint and without repetition.

    ``source`` may be empty where nothing is learned from it (baselines alone).

    Raises:
        SoftstartError: for no target, a task named twice, or one that is source and target at once.
    """

    name: str
    source: tuple[str, ...]
    target: tuple[str, ...]

    def __post_init__(self) -> None:
        """Freeze lists into tuples, then validate."""
        for side in ("source", "target"):
            tasks = tuple(getattr(self, side))
            object.__setattr__(self, side, tasks)
            if not tasks and side == "target":
                self._refuse("has no target task", "Name at least one under 'target'.")
            if twice := _repeated(tasks):
                self._refuse(f"names a {side} task twice: {', '.join(twice)}", "Name every task once.")
        if both := sorted(set(self.source) & set(self.target)):
            self._refuse(
                f"has tasks that are source and target at once: {', '.join(both)}",
                "A start learned from its own targets says nothing about new tasks; keep the sides apart.",
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks, sources first."""
        return self.source + self.target

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

    def _refuse(self, what: str, mend: str) -> None:
        raise SoftstartError(what, where=f"setting '{self.name}'", mend=mend)


def load_setting(name: str) -> Setting:
    """Look up a setting that ships with the package, by name.

    Raises:
        SoftstartError: if there is no such setting; the message lists those there are.
    """
    settings = shipped_settings()
    if name not in settings:
        mend = f"{did_you_mean(name, settings)} Known: {', '.join(sorted(settings))}."
        raise SoftstartError(f"unknown setting '{name}'", mend=mend.strip())
    return settings[name]


def shipped_settings() -> Mapping[str, Setting]:
    """All settings that ship with the package: for now those of the mini gym."""
    from softstart.gym.mini import MINI_SETTINGS

    return {
        name: Setting(name, tuple(sides["source"]), tuple(sides["target"]))
        for name, sides in MINI_SETTINGS.items()
    }


def _repeated(tasks: tuple[str, ...]) -> list[str]:
    return sorted({task for task in tasks if tasks.count(task) > 1})
