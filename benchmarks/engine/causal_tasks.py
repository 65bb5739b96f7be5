"""Whole pieces of work on a causal model: scoring a test set under several prompts, and adaptations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from benchmarks.engine.causal import BOUND, CausalWork, encoded, joined, tuned
from benchmarks.engine.timing import Contender
from benchmarks.engine.whole_runs import Adaptation, likelihoods

from softstart.backbone import IGNORE, Backbone, Batch, candidates_tensor
from softstart.training.encoding import EncodedTask
from softstart.training.evaluation import text_batch


@dataclass(frozen=True)
class Scoring:
    """Rows of a test set under R prompts."""

    work: CausalWork
    rows: int = 500
    peers: int = 1
    """Prompts that the peer is timed on in a round."""

    @property
    def task(self) -> EncodedTask:
        """The first task of the work."""
        return encoded(self.work.shape, self.work.tasks[0], self.work.gym)

    def softstart(self, placement: str) -> Contender:
        """All prompts together; every call reads the texts anew."""
        task, prompts = self.task, self.work.starts
        inputs = task.test.inputs[: self.rows]
        runs = [run for run in range(len(prompts)) for _ in inputs]
        candidates = candidates_tensor([task.label_ids] * len(runs), IGNORE)

        def score() -> torch.Tensor:
            backbone = self.work.placed(placement)
            batch = text_batch(backbone, [*inputs] * len(prompts), runs)
            return backbone.rank(prompts, batch, candidates, BOUND).view(len(prompts), -1)

        return score

    def peft(self) -> Contender:
        """PEFT's model, one prompt after the other."""
        made, prompt = tuned(self.work)
        inputs = self.task.test.inputs[: self.rows]

        def score() -> torch.Tensor:
            found = []
            for run in range(min(self.peers, len(self.work.starts))):
                prompt.data.copy_(self.work.starts[run])
                found.append(likelihoods(made, inputs, self.task.label_ids, label_losses).flatten())
            return torch.stack(found)

        return score


@dataclass(frozen=True)
class CausalAdaptation(Adaptation[CausalWork]):
    """Runs take turns through the tasks of the work, then through the samples of each."""

    rate: ClassVar[float] = 0.01

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return self.work.tasks

    def encoded(self, name: str) -> EncodedTask:
        """A task as tokens."""
        return encoded(self.work.shape, name, self.work.gym)

    def placed(self, placement: str, dtype: torch.dtype | None) -> Backbone:
        """The model as softstart runs it, no text read yet."""
        return self.work.placed(placement, dtype=dtype)

    def tuned(self, dtype: torch.dtype) -> tuple[Any, torch.nn.Parameter]:
        """PEFT's model and its prompt."""
        return tuned(self.work, dtype)

    def given(self, batch: Batch) -> dict[str, torch.Tensor]:
        """A batch as the peer's model takes it."""
        return joined(batch)

    def losses(self, made: Any, batch: Batch) -> torch.Tensor:
        """What the peer's model loses on the output of each row: [B]."""
        return label_losses(made, batch)


def label_losses(made: Any, batch: Batch) -> torch.Tensor:
    """What a causal model loses on the output of each row: [B]."""
    given = joined(batch)
    wanted = given.pop("labels")
    logits = made(**given).logits[:, -wanted.shape[1] :]
    losses: torch.Tensor = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), wanted[:, 1:], ignore_index=IGNORE, reduction="none"
    )
    return losses.sum(1)
