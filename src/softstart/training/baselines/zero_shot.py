"""The backbone as it is, without a prompt: what every other number begins from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from pydantic import AfterValidator

from softstart.training.baselines.base import Given, Learned, Test, Unpacked
from softstart.training.evaluation import SCORINGS, Evaluation, Job, assess, evaluate, no_prompt


def known_scoring(name: str | None) -> str | None:
    """A name of ``SCORINGS`` or None; ValueError for any other."""
    return name if name is None else SCORINGS.check(name)


ScoringName = Annotated[str | None, AfterValidator(known_scoring)]


@dataclass(frozen=True)
class ZeroShot(Unpacked):
    """The text alone, scored as the study scores or in another way (``rank``, a calibrated one)."""

    label: ClassVar[str] = "Zero-shot"
    color: ClassVar[str | None] = "#495f44"
    uses: ClassVar[tuple[str, ...]] = ()
    trains: ClassVar[str] = "nothing"
    work: ClassVar[str] = "zero-shot prediction"
    seeded: ClassVar[bool] = False
    scoring: ScoringName = None
    """A name of ``softstart.training.evaluation.SCORINGS``; None: that of the study."""

    def predicts_with(self, evaluation: Evaluation) -> Evaluation:
        """Under its own scoring."""
        return replace(evaluation, scoring=self.scoring) if self.scoring else evaluation

    def run(self, given: Given, test: Test) -> Learned:
        """Nothing is learned: dev rows are scored only to be shown."""
        backbone, task, evaluation = given.backbone, given.task, self.predicts_with(given.evaluation)
        nothing = no_prompt(backbone)
        (dev,) = evaluate(backbone, nothing, [Job(0, task, task.dev[given.sample])], evaluation)
        test(0, lambda: assess(backbone, nothing, [Job(0, task, task.test)], evaluation)[0])
        given.progress(1.0)
        return Learned(dev=dev, curve=[(0, dev, math.nan)])
