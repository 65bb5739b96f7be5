"""Plain prompt tuning (Lester et al., 2021): the soft prompt begins with frequent words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import AfterValidator

from softstart.training.baselines.base import Baseline
from softstart.training.configs import PromptSpec, known_init


@dataclass(frozen=True)
class PromptTuning(Baseline):
    """What learned starts are compared with; its runs pack with those that begin at learned starts."""

    label: ClassVar[str] = "PT"
    color: ClassVar[str | None] = "#8f9298"
    trains: ClassVar[str] = "the prompt"
    init: Annotated[str | None, AfterValidator(known_init)] = None
    """Where its prompts begin: an initializer as under ``prompt.init``; None: the one declared there."""

    def begins(self, spec: PromptSpec) -> PromptSpec:
        """The prompts of a study with the start of this method."""
        return spec if self.init is None else spec.model_copy(update={"init": self.init})
