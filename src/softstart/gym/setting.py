"""What a setting is: which source tasks a start is learned from and which target tasks it is judged on."""

from __future__ import annotations

from dataclasses import dataclass

from softstart.errors import SoftstartError, did_you_mean
from softstart.gym.task import Gym


class UnknownTasks(SoftstartError):
    """A setting names tasks that a gym at hand does not have."""


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
            raise UnknownTasks(
                f"names tasks that gym '{gym.name}' does not have: {', '.join(missing)}",
                where=f"setting '{self.name}'",
                fix=" ".join(hints) or f"The gym has {len(known)} tasks.",
            )

    def _refuse(self, what: str, fix: str) -> None:
        raise SoftstartError(what, where=f"setting '{self.name}'", fix=fix)


def _repeated(tasks: tuple[str, ...]) -> list[str]:
    return sorted({task for task in tasks if tasks.count(task) > 1})
