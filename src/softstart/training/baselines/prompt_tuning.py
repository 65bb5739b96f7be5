"""Plain prompt tuning (Lester et al., 2021): the soft prompt begins with frequent words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from softstart.training.baselines.base import Baseline


@dataclass(frozen=True)
class PromptTuning(Baseline):
    """What learned starts are compared with; its runs pack with those that begin at learned starts."""

    label: ClassVar[str] = "PT"
    color: ClassVar[str | None] = "#8f9298"
    trains: ClassVar[str] = "the prompt"
