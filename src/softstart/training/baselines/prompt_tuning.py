"""Plain prompt tuning (Lester et al., 2021): the soft prompt begins with frequent words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from softstart.prompt import find_initializer
from softstart.training.baselines.base import Baseline
from softstart.training.configs import ContextRows, Positive, PromptSpec, known_init


@dataclass(frozen=True)
class PromptTuning(Baseline):
    """What learned starts are compared with; its runs pack with those that begin at learned starts."""

    label: ClassVar[str] = "PT"
    color: ClassVar[str | None] = "#8f9298"
    trains: ClassVar[str] = "the prompt"
    init: Annotated[str | None, AfterValidator(known_init)] = None
    """Where its prompts begin: an initializer as under ``prompt.init``; None: the one declared there."""

    length: Positive | Literal["rows"] | None = None
    """P; ``rows``: as long as the train rows need that an initializer begins with; None: as declared."""
    demonstrations: ContextRows | None = None
    """As under ``prompt``, in place of what is declared there; this and the others: None: as declared."""
    leave_one_out: bool | None = None
    """As under ``prompt``."""
    token_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """As under ``prompt``."""

    def __post_init__(self) -> None:
        if self.length == "rows" and (self.init is None or find_initializer(self.init)[0].origins is None):
            raise ValueError("length: rows needs an init that is made of train rows, such as demonstrations")
        if self.length == "rows" and self.demonstrations is not None:
            raise ValueError("length: rows is the same as demonstrations: all, so give one of them")

    def begins(self, spec: PromptSpec) -> PromptSpec:
        """The prompts of a study with the start of this method."""
        names = ("init", "length", "demonstrations", "leave_one_out", "token_dropout")
        own: dict[str, Any] = {name: of for name in names if (of := getattr(self, name)) is not None}
        if self.length == "rows":
            own |= {"length": 0, "demonstrations": "all"}
        return spec.model_copy(update=own) if own else spec
