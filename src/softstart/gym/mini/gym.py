"""The mini gym: generates every declared task from seeds, byte for byte the same everywhere."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from softstart.errors import SoftstartError
from softstart.gym.mini import classes, pairs, questions, words  # noqa: F401  (they declare the tasks)
from softstart.gym.mini.spec import TASKS, Draw, MiniTask
from softstart.gym.task import Example, Sample, Task
from softstart.tiny.world import World, world

#: The samples of every task, and their sizes as in CrossFit: per class, or in all for text-to-text.
SEEDS = (13, 21, 42, 87, 100)
SHOTS, PAIRS, TEST_ROWS = 16, 32, 120


class MiniGym:
    """Generated few-shot tasks over the small world that the embedded model knows."""

    name = "mini"

    def tasks(self) -> Sequence[str]:
        """The names of all tasks, sorted."""
        return sorted(TASKS)

    def load(self, task: str) -> Task:
        """Generate one task."""
        if task not in TASKS:
            raise SoftstartError(
                f"unknown task {task!r}", where="mini gym", mend=f"Known tasks: {', '.join(self.tasks())}."
            )
        return _build(task)


@lru_cache(maxsize=128)
def _build(name: str) -> Task:
    task, w = TASKS[name], world(0)
    taken: set[str] = set()
    test = _rows(task, w, "test", TEST_ROWS // max(1, len(task.labels)), taken)
    size = SHOTS if task.labels else PAIRS
    samples = {}
    for seed in SEEDS:
        used = set(taken)
        train = _rows(task, w, f"{seed} train", size, used)
        dev = _rows(task, w, f"{seed} dev", size, used)
        samples[seed] = Sample(seed, train, dev)
    return Task(task.name, task.kind, task.metric, task.category, samples, test, source="generated")


def _rows(task: MiniTask, w: World, purpose: str, each: int, used: set[str]) -> tuple[Example, ...]:
    """``each`` new examples of every class (or in all), shuffled; their inputs are added to ``used``."""
    r = random.Random(f"mini {task.name} {purpose}")
    draw = Draw(w, w.held if task.target else w.seen, r)
    rows: list[Example] = []
    for key in task.labels or (None,):
        wanted = len(rows) + each
        for _ in range(100 * each):
            text, output = task.example(draw, key)
            if text not in used:
                used.add(text)
                rows.append(Example(text, (output,)))
                if len(rows) == wanted:
                    break
        else:
            raise SoftstartError(f"too few different inputs for {purpose!r}", where=f"mini task {task.name}")
    r.shuffle(rows)
    return tuple(rows)
