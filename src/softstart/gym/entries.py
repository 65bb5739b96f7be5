"""A gym of catalog entries whose samples are drawn in memory, without files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from softstart.errors import SoftstartError, did_you_mean
from softstart.gym.build import Job, draw, sample
from softstart.gym.catalog import crossfit_catalog
from softstart.gym.catalog.schema import Entry
from softstart.gym.lines import Line
from softstart.gym.sampling import SEEDS
from softstart.gym.task import Example, Sample, Task


class EntryGym:
    """The tasks of catalog entries, drawn in memory when they are loaded.

    Args:
        entries: by name, as ``read_catalog`` and ``crossfit_catalog`` give them.
        name: for reports.
        shots: k of the samples; by default what each entry says.
        seeds: of the samples.
    """

    version: int | None = None

    def __init__(
        self,
        entries: Mapping[str, Entry],
        name: str,
        *,
        shots: int | None = None,
        seeds: Sequence[int] = SEEDS,
    ) -> None:
        self.entries, self._name, self.shots, self.seeds = entries, name, shots, seeds
        self._drawn: dict[str, Task] = {}

    @property
    def name(self) -> str:
        """Where the entries come from."""
        return self._name

    def tasks(self) -> tuple[str, ...]:
        """The names of all entries, sorted."""
        return tuple(sorted(self.entries))

    def load(self, task: str) -> Task:
        """Read the rows of a task and draw its samples, once.

        Raises:
            SoftstartError: no such entry, or rows that cannot be loaded or do not fit.
        """
        if task not in self.entries:
            fix = did_you_mean(task, self.entries) or f"It has {len(self.entries)} other tasks."
            raise SoftstartError(f"unknown task '{task}'", where=self.name, fix=fix)
        if task not in self._drawn:
            entry = self.entries[task]
            shipped = crossfit_catalog().get(task) == entry
            self._drawn[task] = self._draw(Job(entry, Path(), shipped, seeds=self.seeds, k=self.shots))
        return self._drawn[task]

    def _draw(self, job: Job) -> Task:
        entry, drawn = job.entry, draw(job)
        samples = {}
        for seed in self.seeds:
            train, dev = sample(job, drawn, seed)
            samples[seed] = Sample(seed, examples_of(train), examples_of(dev))
        test = examples_of(drawn.test)
        source = f"{self.name}, k={job.shots}"
        return Task(entry.name, entry.kind, entry.metric, entry.category, samples, test, source=source)


def examples_of(lines: Sequence[Line]) -> tuple[Example, ...]:
    """Lines as they come back from a folder: white space around them gone, cut at every TAB."""
    cut = ("\t".join(line).strip().split("\t") for line in lines)
    return tuple(Example(text, tuple(answers)) for text, *answers in cut)
