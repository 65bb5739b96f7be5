"""What a baseline is: a method that starts from scratch on every target task."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from inspect import isabstract
from typing import Any, ClassVar

from softstart.backbone import Backbone
from softstart.progress import Progress, silent
from softstart.training.encoding import EncodedTask
from softstart.training.evaluation import Assessment, Evaluation
from softstart.training.objective import Work

SOURCES, TRAIN, DEV = "source tasks", "train rows", "dev rows"
"""What a method may use besides the text that it predicts from."""


@dataclass(frozen=True)
class Baseline:
    """A method that learns nothing from source tasks: how reports write it, what it uses and what it trains.

    It is a frozen dataclass whose fields are its settings.
    """

    label: ClassVar[str]
    """How reports write it."""
    color: ClassVar[str | None] = None
    """Its color in reports, a hex code; None: a spare one."""
    uses: ClassVar[tuple[str, ...]] = (TRAIN, DEV)
    """What it may use: of ``SOURCES``, ``TRAIN``, ``DEV``."""
    trains: ClassVar[str]
    """What it trains, in a few words."""
    elsewhere: ClassVar[Mapping[str, str]] = {}
    """Fields that a study declares for itself, by the name that they have there."""


@dataclass(frozen=True)
class Given:
    """What a run of an unpacked baseline gets.

    Args:
        backbone: the frozen model, or that of ``Unpacked.other_weights``.
        task: the target task.
        sample: which k-shot sample.
        lr: a learning rate of the method's grid.
        seed: of whatever it draws.
        evaluation: how the study predicts and scores.
        progress: receives shares of the whole, 0 to 1.
    """

    backbone: Backbone
    task: EncodedTask
    sample: int
    lr: float
    seed: int
    evaluation: Evaluation
    progress: Progress = silent


@dataclass
class Learned(Work):
    """The outcome of a run of an unpacked baseline, with its work; fields that ``Adapted`` has mean the same.

    ``trained`` counts the trained parameters, ``stored`` the bytes that a prediction needs besides the
    backbone.
    """

    dev: float = math.nan
    best_step: int = 0
    steps: int = 0
    status: str = "done"
    curve: Sequence[tuple[int, float, float]] = ()
    trained: int = 0
    stored: int = 0


Test = Callable[[int, Callable[[], Assessment]], None]
"""Records the test score of the state chosen after so many steps; the second argument computes it."""


@dataclass(frozen=True)
class Unpacked(Baseline, ABC):
    """A baseline that trains no prompt: every run is a piece of work of its own, and is tested there."""

    work: ClassVar[str]
    """Its work in progress and messages."""
    seeded: ClassVar[bool] = True
    """Whether its numbers depend on the seed of a run."""

    @property
    def other_weights(self) -> str | None:
        """The name of a backbone that it begins with in place of the study's."""
        return None

    @property
    def rates(self) -> Sequence[float]:
        """Its grid of learning rates; a single 0 where it has none."""
        return (0.0,)

    @property
    def budgets(self) -> tuple[int, ...]:
        """The steps at which it is compared; 0: it takes none."""
        return (0,)

    def cost(self, train: int) -> tuple[float, float, float]:
        """The estimated work of a run on so many train rows (0: not known).

        Returns:
            (rows that go forward and backward once, how often dev is evaluated, how often test is).
        """
        return 0.0, 1.0, 1.0

    def identity_parts(self, kind: str) -> dict[str, Any]:
        """What the key of a run holds of it; ``kind`` is what studies call it."""
        return {"baseline": kind, "settings": self}

    def predicts_with(self, evaluation: Evaluation) -> Evaluation:
        """How it predicts in a study that predicts by ``evaluation``."""
        return evaluation

    @abstractmethod
    def run(self, given: Given, test: Test) -> Learned:
        """Learn a sample of a target task, and test what was learned at every budget."""


def is_baseline(thing: Any) -> bool:
    """Whether an object is the class of a baseline that can be made."""
    made = isinstance(thing, type) and issubclass(thing, Baseline) and not isabstract(thing)
    return made and is_dataclass(thing)
