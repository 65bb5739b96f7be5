"""How a mini task is declared: one decorated function that makes one example."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from softstart.gym.task import Kind
from softstart.registry import Registry
from softstart.tiny.world import Pool, World, world

#: Makes the input of a given class.
ClassMaker = Callable[["Draw", str], str]
#: Makes an input and its accepted output.
PairMaker = Callable[["Draw"], tuple[str, str]]


@dataclass(frozen=True)
class Draw:
    """What a maker draws from.

    Makers use its fields in nearly every word of their templates, hence the single letters: ``w`` is the
    world, ``p`` the entities of the task's side of the held-back rule, ``r`` the random numbers.
    """

    w: World
    p: Pool
    r: random.Random

    def one(self, values: Iterable[str], *but: str) -> str:
        """One of the values other than ``but``; of a table, one of its keys."""
        return self.r.choice([v for v in sorted(set(values)) if v not in but])

    def some(self, values: Iterable[str], n: int) -> list[str]:
        """``n`` different values."""
        return self.r.sample(sorted(set(values)), n)

    def keys(self, table: Mapping[str, object], value: object) -> list[str]:
        """The keys of a table that have this value."""
        return [k for k, v in table.items() if v == value]

    def coin(self) -> bool:
        """True half of the time."""
        return self.r.random() < 0.5

    def aside(self) -> str:
        """A sentence that has nothing to do with the answer."""
        return self.r.choice([
            f"{self.one(self.p.people)} waits in the {self.one(self.w.places)}.",
            f"it is {self.one(self.w.months)}.",
            f"there are {self.one(self.w.numbers[2:])} {self.one(self.p.plurals.values())}.",
            f"everyone looks to the {self.one(self.w.directions)}.",
        ])  # fmt: skip


@dataclass(frozen=True)
class MiniTask:
    """A declared task: a source, made of seen entities, or a candidate for a target, of held-back ones.

    Which candidates become targets is decided by a rule (``split.py``), not here.
    """

    name: str
    category: str
    kind: Kind
    metric: str
    candidate: bool
    labels: Mapping[str, str]  # class → label word; empty for text-to-text
    make: ClassMaker | PairMaker
    options: int = 0
    """How many answers of the right sort an input offers (its choices, the people in it); 0: any text."""

    def example(self, draw: Draw, key: str | None) -> tuple[str, str]:
        """One example, of the given class if the task has classes."""
        if key is None:
            return self.make(draw)  # type: ignore[call-arg, return-value]
        return self.make(draw, key), self.labels[key]  # type: ignore[call-arg, return-value]


TASKS: Registry[MiniTask] = Registry("task")
"""Every declared task by name; ``softstart.gym.mini.tasks`` declares those of the package."""


def draw_for(task: MiniTask, purpose: str) -> Draw:
    """What a task draws its examples from, for one purpose; candidates draw from held-back entities."""
    w = world(0)
    return Draw(w, w.held if task.candidate else w.seen, random.Random(f"mini {task.name} {purpose}"))


def classification(
    category: str,
    labels: Mapping[str, str] | Iterable[str],
    *,
    candidate: bool = False,
    metric: str = "Classification-F1",
) -> Callable[[ClassMaker], ClassMaker]:
    """Declare a classification task; ``labels`` maps classes to label words, or lists both at once."""
    words = dict(labels) if isinstance(labels, Mapping) else {label: label for label in labels}

    def declare(make: ClassMaker) -> ClassMaker:
        name = make.__name__
        TASKS.add(
            name,
            MiniTask(name, f"classification/{category}", "classification", metric, candidate, words, make),
        )
        return make

    return declare


def text2text(
    category: str, metric: str = "EM", *, candidate: bool = False, options: int = 0
) -> Callable[[PairMaker], PairMaker]:
    """Declare a task whose output is free text; see ``MiniTask.options``."""

    def declare(make: PairMaker) -> PairMaker:
        name = make.__name__
        TASKS.add(name, MiniTask(name, category, "text2text", metric, candidate, {}, make, options))
        return make

    return declare
