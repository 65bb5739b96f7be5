"""Whole adaptations, from starts to test scores, and the script that they are compared with.

The peer is what a competent user writes with PEFT: rows sorted by length, batches of 32 without gradients,
every label word as an output of its own, AdamW, the best prompt of five dev evaluations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from benchmarks.engine.causal import BOUND, CausalWork
from benchmarks.engine.timing import Contender
from benchmarks.engine.work import Work

from softstart.backbone import Backbone, Batch, collate
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig
from softstart.training.encoding import EncodedTask, Rows
from softstart.training.evaluation import Evaluation, Job, evaluate
from softstart.training.optimizers import AdamW

W = TypeVar("W", CausalWork, Work)
TOGETHER = 32
"""Rows of a batch of the peer that needs no gradient."""
SAMPLES = (13, 21, 42, 87, 100)


@dataclass(frozen=True)
class Adaptation(ABC, Generic[W]):
    """R runs, each from its start to its test score: steps with five dev evaluations, then the test rows.

    Runs take turns through the tasks, then through the samples of each.
    """

    work: W
    steps: int = 100
    rows: int = 500
    peers: int = 1
    """Runs that the peer is timed on in a round."""
    rate: ClassVar[float]
    """Learning rate of AdamW."""
    bound: ClassVar[int] = BOUND
    """Tokens of a pass."""

    @property
    @abstractmethod
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""

    @abstractmethod
    def encoded(self, name: str) -> EncodedTask:
        """A task as tokens."""

    @abstractmethod
    def placed(self, placement: str, dtype: torch.dtype | None) -> Backbone:
        """The model as softstart runs it, no text read yet."""

    @abstractmethod
    def tuned(self, dtype: torch.dtype) -> tuple[Any, torch.nn.Parameter]:
        """PEFT's model and its prompt."""

    @abstractmethod
    def given(self, batch: Batch) -> dict[str, torch.Tensor]:
        """A batch as the peer's model takes it."""

    @abstractmethod
    def losses(self, made: Any, batch: Batch) -> torch.Tensor:
        """What the peer's model loses on the output of each row: [B]."""

    def task(self, run: int) -> EncodedTask:
        """The task of a run."""
        return self.encoded(self.tasks[run % len(self.tasks)])

    def sample(self, run: int) -> int:
        """The sample of a run."""
        return SAMPLES[run // len(self.tasks) % len(SAMPLES)]

    def softstart(self, placement: str, dtype: torch.dtype | None = None) -> Contender:
        """``adapt`` and ``evaluate`` of all runs together; every call reads the texts anew. The answer holds
        test scores [R, 1].
        """
        config = AdaptConfig(
            steps=self.steps, eval_every=self.steps // 5, eval_start=False, batch_size=8,
            optimizer=AdamW(weight_decay=0.0), max_tokens=self.bound,
        )  # fmt: skip
        evaluation = Evaluation(scoring="rank", max_tokens=self.bound)
        numbers = range(self.work.runs)
        runs = [AdaptRun(self.work.starts[r], self.task(r), self.sample(r), self.rate) for r in numbers]
        backbone = self.placed(placement, dtype)

        def run() -> torch.Tensor:
            tuned = torch.stack([result.prompt for result in adapt(backbone, runs, config, evaluation)])
            jobs = [Job(r, self.task(r), self.task(r).test.first(self.rows)) for r in numbers]
            scores = evaluate(backbone, tuned, jobs, evaluation)
            backbone.keep_texts(None)  # whoever comes next needs the memory
            return torch.tensor([[score] for score in scores])

        return run

    def peft(self, dtype: torch.dtype = torch.float32) -> Contender:
        """A script with PEFT's model, one run after the other."""
        made, prompt = self.tuned(dtype)
        return lambda: torch.tensor(
            [[self._alone(made, prompt, run)] for run in range(min(self.peers, self.work.runs))]
        )

    def _alone(self, made: Any, prompt: torch.nn.Parameter, run: int) -> float:
        """One run of the script: its test score."""
        task = self.task(run)
        train, dev = task.train[self.sample(run)], task.dev[self.sample(run)]

        def score(rows: Rows) -> float:
            best = likelihoods(made, rows.inputs, task.label_ids, self.losses).argmax(1).tolist()
            right = [task.labels[i] in wanted for i, wanted in zip(best, rows.references, strict=True)]
            return sum(right) / len(right)

        prompt.data.copy_(self.work.starts[run])
        optimizer = torch.optim.AdamW([prompt], lr=self.rate, weight_decay=0.0)
        generator, best, kept = torch.Generator().manual_seed(0), -1.0, prompt.detach().clone()
        order: list[int] = []
        for step in range(1, self.steps + 1):
            if len(order) < 8:
                order += torch.randperm(len(train.inputs), generator=generator).tolist()
            now, order = order[:8], order[8:]
            pairs = [(train.inputs[i], train.outputs[i][0]) for i in now]
            batch = collate([t for t, _ in pairs], [o for _, o in pairs], [0] * len(pairs), pad=0)
            optimizer.zero_grad()
            made(**self.given(batch)).loss.backward()
            optimizer.step()
            if step % (self.steps // 5) == 0 and (found := score(dev)) > best:
                best, kept = found, prompt.detach().clone()
        prompt.data.copy_(kept)
        return score(task.test.first(self.rows))


@torch.no_grad()
def likelihoods(
    made: Any,
    inputs: Sequence[list[int]],
    labels: Sequence[list[int]],
    losses: Callable[[Any, Batch], torch.Tensor],
) -> torch.Tensor:
    """Log-likelihoods [N, C] of every label word after every input, in batches of rows sorted by length."""
    order = sorted(range(len(inputs)), key=lambda i: len(inputs[i]))
    scores = torch.empty(len(inputs), len(labels))
    for first in range(0, len(order), TOGETHER):
        rows = order[first : first + TOGETHER]
        texts = [inputs[i] for i in rows for _ in labels]
        batch = collate(texts, [*labels] * len(rows), [0] * len(texts), pad=0)
        scores[rows] = -losses(made, batch).view(len(rows), -1).float()
    return scores
