"""The mini gym: generates every declared task from seeds, byte for byte the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from softstart.errors import SoftstartError
from softstart.gym.mini.spec import MiniTask, draw_for
from softstart.gym.mini.tasks import TASKS
from softstart.gym.mini.versions import DEFAULT, load_version
from softstart.gym.sampling import SEEDS, SHOTS
from softstart.gym.task import Example, Sample, Task

TEST_ROWS = 200
"""Rows of a test set at least; train and dev have as many as in CrossFit (``SHOTS``)."""


class MiniGym:
    """Generated few-shot tasks over the small world that the embedded model knows.

    Args:
        seeds: of the samples. The test set is the same whatever they are.
        version: which settings belong to it (``softstart.gym.mini.versions``). Every version has all tasks.

    Raises:
        SoftstartError: there is no such version.
    """

    name = "mini"

    def __init__(self, seeds: Sequence[int] = SEEDS, version: int = DEFAULT) -> None:
        load_version(version)
        self.seeds, self.version = tuple(seeds), version

    def tasks(self) -> Sequence[str]:
        """The names of all tasks, sorted."""
        return sorted(TASKS)

    def load(self, task: str) -> Task:
        """Generate one task.

        Raises:
            SoftstartError: there is no such task.
        """
        TASKS.find(task, where="mini gym")
        return _build(task, self.seeds)


@lru_cache(maxsize=512)
def _build(name: str, seeds: tuple[int, ...]) -> Task:
    task = TASKS[name]
    taken: set[str] = set()
    test = _rows(task, "test", -(-TEST_ROWS // max(1, len(task.labels))), taken)
    size = SHOTS[task.kind]
    samples = {}
    for seed in seeds:
        used = set(taken)
        train = _rows(task, f"{seed} train", size, used)
        dev = _rows(task, f"{seed} dev", size, used)
        samples[seed] = Sample(seed, train, dev)
    return Task(task.name, task.kind, task.metric, task.category, samples, test, source="generated")


def _rows(task: MiniTask, purpose: str, each: int, used: set[str]) -> tuple[Example, ...]:
    """``each`` new examples of every class (or in all), shuffled; their inputs are added to ``used``."""
    draw = draw_for(task, purpose)
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
    draw.r.shuffle(rows)
    return tuple(rows)
