"""Whole pieces of work on a causal model: scoring a test set under several prompts, and an adaptation.

The peer is what a competent user writes with PEFT: rows sorted by length, batches of 32 without gradients,
every label word as the end of its row, AdamW, the best prompt of five dev evaluations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.engine.causal import BOUND, CausalWork, encoded, joined, tuned
from benchmarks.engine.timing import Contender

from softstart.backbone import IGNORE, candidates_tensor, collate
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig
from softstart.training.encoding import EncodedTask, Rows
from softstart.training.evaluation import Evaluation, Job, evaluate, text_batch
from softstart.training.optimizers import AdamW

TOGETHER = 32
"""Rows of a batch of the peer that needs no gradient."""
RATE = 0.01
SAMPLES = (13, 21, 42, 87, 100)


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
                found.append(likelihoods(made, inputs, self.task.label_ids).flatten())
            return torch.stack(found)

        return score


@dataclass(frozen=True)
class Adaptation:
    """R runs, each from its start to its test score: steps with five dev evaluations, then the test rows.

    Runs take turns through the tasks of the work, then through the samples of each.
    """

    work: CausalWork
    steps: int = 100
    rows: int = 500
    peers: int = 1
    """Runs that the peer is timed on in a round."""

    def task(self, run: int) -> EncodedTask:
        """The task of a run."""
        return encoded(self.work.shape, self.work.tasks[run % len(self.work.tasks)], self.work.gym)

    def sample(self, run: int) -> int:
        """The sample of a run."""
        return SAMPLES[run // len(self.work.tasks) % len(SAMPLES)]

    def softstart(self, placement: str, dtype: torch.dtype | None = None) -> Contender:
        """``adapt`` and ``evaluate`` of all runs together; every call reads the texts anew. The answer holds
        test scores [R, 1].
        """
        config = AdaptConfig(
            steps=self.steps, eval_every=self.steps // 5, eval_start=False, batch_size=8,
            optimizer=AdamW(weight_decay=0.0), max_tokens=BOUND,
        )  # fmt: skip
        evaluation = Evaluation(scoring="rank", max_tokens=BOUND)
        numbers = range(self.work.runs)
        runs = [AdaptRun(self.work.starts[r], self.task(r), self.sample(r), RATE) for r in numbers]
        backbone = self.work.placed(placement, dtype=dtype)

        def run() -> torch.Tensor:
            tuned = torch.stack([result.prompt for result in adapt(backbone, runs, config, evaluation)])
            jobs = [Job(r, self.task(r), self.task(r).test.first(self.rows)) for r in numbers]
            scores = evaluate(backbone, tuned, jobs, evaluation)
            backbone.keep_texts(None)  # whoever comes next needs the memory
            return torch.tensor([[score] for score in scores])

        return run

    def peft(self, dtype: torch.dtype = torch.float32) -> Contender:
        """A script with PEFT's model, one run after the other."""
        made, prompt = tuned(self.work, dtype)
        return lambda: torch.tensor(
            [[self._alone(made, prompt, run)] for run in range(min(self.peers, self.work.runs))]
        )

    def _alone(self, made: Any, prompt: torch.nn.Parameter, run: int) -> float:
        """One run of the script: its test score."""
        task = self.task(run)
        train, dev = task.train[self.sample(run)], task.dev[self.sample(run)]

        def score(rows: Rows) -> float:
            best = likelihoods(made, rows.inputs, task.label_ids).argmax(1).tolist()
            right = [task.labels[i] in wanted for i, wanted in zip(best, rows.references, strict=True)]
            return sum(right) / len(right)

        prompt.data.copy_(self.work.starts[run])
        optimizer = torch.optim.AdamW([prompt], lr=RATE, weight_decay=0.0)
        generator, best, kept = torch.Generator().manual_seed(0), -1.0, prompt.detach().clone()
        order: list[int] = []
        for step in range(1, self.steps + 1):
            if len(order) < 8:
                order += torch.randperm(len(train.inputs), generator=generator).tolist()
            now, order = order[:8], order[8:]
            pairs = [(train.inputs[i], train.outputs[i][0]) for i in now]
            batch = collate([t for t, _ in pairs], [o for _, o in pairs], [0] * len(pairs), pad=0)
            optimizer.zero_grad()
            made(**joined(batch)).loss.backward()
            optimizer.step()
            if step % (self.steps // 5) == 0 and (found := score(dev)) > best:
                best, kept = found, prompt.detach().clone()
        prompt.data.copy_(kept)
        return score(task.test.first(self.rows))


@torch.no_grad()
def likelihoods(made: Any, inputs: Sequence[list[int]], labels: Sequence[list[int]]) -> torch.Tensor:
    """Log-likelihoods [N, C] of every label word after every input, in batches of rows sorted by length."""
    order = sorted(range(len(inputs)), key=lambda i: len(inputs[i]))
    scores = torch.empty(len(inputs), len(labels))
    for first in range(0, len(order), TOGETHER):
        rows = order[first : first + TOGETHER]
        texts = [inputs[i] for i in rows for _ in labels]
        given = joined(collate(texts, [*labels] * len(rows), [0] * len(texts), pad=0))
        wanted = given.pop("labels")
        logits = made(**given).logits[:, -wanted.shape[1] :]
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].transpose(1, 2), wanted[:, 1:], ignore_index=IGNORE, reduction="none"
        )
        scores[rows] = -losses.sum(1).view(len(rows), -1).float()
    return scores
