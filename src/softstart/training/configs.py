"""Settings that training and studies share, as strict mappings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from softstart.backbone import Placement

Positive = Annotated[int, Field(gt=0)]


STRICT = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")
"""Unknown keys are refused."""


class PromptSpec(BaseModel):
    """The soft prompt of every run."""

    model_config = STRICT

    length: Positive = 100
    """P, the number of trained rows."""
    init: Literal["vocabulary", "task_names", "gaussian"] = "vocabulary"
    """Where plain prompt tuning and the meta-learned start begin."""
    top: Positive = 5000
    """The vocabulary start draws from this many of the first (most frequent) ordinary tokens."""
    frequent: Literal["tokenizer", "c4"] = "tokenizer"
    """Which are frequent: the first of the tokenizer, or by count in C4 (T5's vocabulary alone; drawn with
    Python's ``random``, as published)."""
    draw_per: Literal["seed", "sample", "run"] = "sample"
    """Whether plain prompt tuning starts anew for every seed (from where meta-training starts too), for every
    sample of the target task, or for every run of its grid in order (as published: another learning rate is
    then another start too)."""
    placement: Placement = "prefix"
    """Where it goes; see ``softstart.backbone.PLACEMENTS``."""
