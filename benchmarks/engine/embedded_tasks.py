"""A whole setting on the embedded model: the targets of mini-cls2cls."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from benchmarks.engine import adaptation
from benchmarks.engine.whole_runs import Adaptation
from benchmarks.engine.work import Work

from softstart.backbone import IGNORE, TINY, Backbone, Batch, load_backbone
from softstart.gym.settings import load_setting
from softstart.gym.sources import open_gym
from softstart.training.encoding import EncodedTask, TextFormat, encode_task


@cache
def _encoded(name: str) -> EncodedTask:
    """A task of the mini gym as tokens."""
    return encode_task(open_gym().load(name), load_backbone(TINY, device="cpu"), TextFormat("{input}"))


@dataclass(frozen=True)
class EmbeddedAdaptation(Adaptation[Work]):
    """R runs of the eight targets of mini-cls2cls; the prompt stands before the text."""

    rate: ClassVar[float] = 0.1
    """A tenth of what the entries of an embedding are (root mean square), about."""
    bound: ClassVar[int] = 2048

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(load_setting("mini-cls2cls").target)

    def encoded(self, name: str) -> EncodedTask:
        """A task as tokens."""
        return _encoded(name)

    def placed(self, placement: str, dtype: torch.dtype | None) -> Backbone:
        """The model as softstart runs it."""
        return load_backbone(TINY, device="cpu")

    def tuned(self, dtype: torch.dtype) -> tuple[Any, torch.nn.Parameter]:
        """PEFT's model, with a prompt of the encoder alone."""
        return adaptation.tuned(self.work, dtype)

    def given(self, batch: Batch) -> dict[str, torch.Tensor]:
        """A batch as the peer's model takes it."""
        return {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "labels": batch.labels,
        }

    def losses(self, made: Any, batch: Batch) -> torch.Tensor:
        """What the peer's model loses on the output of each row: [B]."""
        logits = made(**self.given(batch)).logits
        losses: torch.Tensor = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), batch.labels, ignore_index=IGNORE, reduction="none"
        )
        return losses.sum(1)
