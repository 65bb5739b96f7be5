"""What a few-shot task is: examples, k-shot samples, a metric. Plain data, no torch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol, cast, get_args

from softstart.errors import SoftstartError

Kind = Literal["classification", "text2text"]


def check_kind(kind: str, where: str | None = None) -> Kind:
    """The kind, if it is one.

    Raises:
        SoftstartError: it is not.
    """
    if kind not in get_args(Kind):
        raise SoftstartError(
            f"unknown kind '{kind}'", where=where, fix=f"Use one of {', '.join(get_args(Kind))}."
        )
    return cast(Kind, kind)


@dataclass(frozen=True, slots=True)
class Example:
    """One text-to-text example: an input and every accepted answer (the first is the reference)."""

    input: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """One k-shot draw of a task, named by its seed (CrossFit: 13, 21, 42, 87, 100)."""

    seed: int
    train: tuple[Example, ...]
    dev: tuple[Example, ...]


@dataclass(frozen=True)
class Task:
    """A few-shot task: its samples, one test set for all of them, its metric and where it comes from.

    ``metric`` is the name or import path of a metric, see ``softstart.gym.metrics``. ``category`` is a path
    in the task ontology, broad to narrow ("classification/emotion").
    """

    name: str
    kind: Kind
    metric: str
    category: str
    samples: Mapping[int, Sample]
    test: tuple[Example, ...]
    source: str = field(default="", compare=False)
    published: tuple[str, ...] = field(default=(), compare=False)
    """The versions of the published gym ("v1", "v2") that its files equal, byte for byte."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What is odd about its rows, one sentence each, to be said before anything is tuned."""

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The label words of a classification task, sorted; empty for text-to-text tasks."""
        if self.kind != "classification":
            return ()
        return tuple(sorted({e.outputs[0] for s in self.samples.values() for e in s.train if e.outputs}))

    @property
    def shots(self) -> int:
        """k of the samples: training examples per label for classification, all of them for text-to-text."""
        train = next(iter(self.samples.values())).train
        if self.kind != "classification":
            return len(train)
        return max(Counter(example.outputs[0] for example in train if example.outputs).values(), default=0)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that can change a score: metric, kind and every example."""
        h = hashlib.sha256(f"{self.name}\0{self.kind}\0{self.metric}".encode())
        for seed in sorted(self.samples):
            for split, rows in (("train", self.samples[seed].train), ("dev", self.samples[seed].dev)):
                h.update(f"\1{seed}\0{split}".encode())
                _update(h, rows)
        h.update(b"\1test")
        _update(h, self.test)
        return h.hexdigest()


class Gym(Protocol):
    """A collection of few-shot tasks: a CrossFit folder, the mini gym, your own files."""

    @property
    def name(self) -> str:
        """A short name for reports ("mini", or the folder's path)."""

    @property
    def version(self) -> int | None:
        """The version of the mini gym's settings; None for every other gym."""

    def tasks(self) -> Sequence[str]:
        """The names of all tasks, sorted."""

    def load(self, task: str) -> Task:
        """Read one task. Raises SoftstartError if there is no such task or its files are broken."""


def _update(h: hashlib._Hash, rows: Sequence[Example]) -> None:
    for row in rows:
        h.update(("\0".join((row.input, *row.outputs)) + "\2").encode())
