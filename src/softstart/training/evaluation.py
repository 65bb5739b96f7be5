"""Predict and score with many prompts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from torch import Tensor

from softstart.backbone import IGNORE, Backbone, Batch, Decoding, candidates_tensor, collate
from softstart.gym.metrics import F1Labels, companions, score
from softstart.training.encoding import EncodedTask, Rows
from softstart.training.identity import Added, Unkeyed

Scoring = Literal["generate", "rank"]


@dataclass(frozen=True)
class Evaluation:
    """How predictions are made.

    ``scoring="generate"`` decodes freely and compares strings, as the published protocol does. ``"rank"``
    picks the most likely label word of a classification task: another, easier metric; other tasks are
    generated all the same.
    """

    decoding: Decoding = Decoding()
    """How outputs are generated."""
    scoring: Scoring = "generate"
    """``generate`` or ``rank``."""
    f1_labels: Annotated[F1Labels, Added("union")] = "union"
    """Over which labels Classification-F1 is a mean, on dev and on test (see ``gym.metrics.F1Labels``)."""
    bounded: Annotated[bool, Added(True)] = True
    """Generate no more tokens than the longest train or dev output of a task and two; False: as many as the
    decoding allows, as the published protocol does."""
    max_tokens: Annotated[int | None, Unkeyed()] = 32768
    """Bound on the tokens of one forward pass."""


@dataclass(frozen=True)
class Job:
    """Rows of a task to predict with prompt ``prompt`` of a stack."""

    prompt: int
    task: EncodedTask
    rows: Rows


def predict(backbone: Backbone, prompts: Tensor, jobs: Sequence[Job], how: Evaluation) -> list[list[str]]:
    """Predictions of every job, stripped of surrounding white space, in row order.

    Jobs share forward passes; each is decoded exactly as it would be alone.

    Args:
        backbone: the frozen model.
        prompts: [R, P, d].
        jobs: what to predict with which prompt.
        how: decoding and scoring.
    """
    if backbone.rows_interact and len(jobs) > 1:
        return [predict(backbone, prompts, [job], how)[0] for job in jobs]
    out: list[list[str]] = [[] for _ in jobs]
    ranked = [i for i, job in enumerate(jobs) if how.scoring == "rank" and job.task.labels]
    _collect(out, ranked, jobs, _rank(backbone, prompts, [jobs[i] for i in ranked], how))
    # One search runs to the same number of new tokens for all its rows, so a bound is a group.
    free = set(range(len(jobs))) - set(ranked)
    most = how.decoding.max_new_tokens
    bounds = {i: min(jobs[i].task.max_new_tokens, most) if how.bounded else most for i in free}
    for bound in sorted(set(bounds.values())):
        group = sorted(i for i in free if bounds[i] == bound)
        decoding = replace(how.decoding, max_new_tokens=bound)
        texts = backbone.generate(
            prompts, _batch(backbone, [jobs[i] for i in group]), decoding, how.max_tokens
        )
        _collect(out, group, jobs, texts)
    return out


@dataclass(frozen=True)
class Assessment:
    """The metric of a job's task on its rows, and what is reported beside it (see ``metrics.companions``)."""

    score: float
    companions: dict[str, float]


def assess(backbone: Backbone, prompts: Tensor, jobs: Sequence[Job], how: Evaluation) -> list[Assessment]:
    """Predict and score every job; see ``predict``."""
    return [
        Assessment(
            score(
                job.task.metric, texts, job.rows.references, f1_labels=how.f1_labels, labels=job.task.labels
            ),
            companions(job.task.labels, job.task.metric, texts, job.rows.references),
        )
        for job, texts in zip(jobs, predict(backbone, prompts, jobs, how), strict=True)
    ]


def evaluate(backbone: Backbone, prompts: Tensor, jobs: Sequence[Job], how: Evaluation) -> list[float]:
    """The scores of ``assess`` under prompts [R, P, d]: fractions, one a job."""
    return [assessed.score for assessed in assess(backbone, prompts, jobs, how)]


def _rank(backbone: Backbone, prompts: Tensor, jobs: Sequence[Job], how: Evaluation) -> list[str]:
    if not jobs:
        return []
    per_row = [job.task.label_ids for job in jobs for _ in range(len(job.rows))]
    candidates = candidates_tensor(per_row, IGNORE).to(backbone.device)
    best = backbone.rank(prompts, _batch(backbone, jobs), candidates, how.max_tokens).argmax(1).tolist()
    labels = [job.task.labels for job in jobs for _ in range(len(job.rows))]
    return [words[choice] for words, choice in zip(labels, best, strict=True)]


def _batch(backbone: Backbone, jobs: Sequence[Job]) -> Batch:
    inputs = [ids for job in jobs for ids in job.rows.inputs]
    return text_batch(backbone, inputs, [job.prompt for job in jobs for _ in range(len(job.rows))])


def text_batch(backbone: Backbone, inputs: Sequence[Sequence[int]], runs: Sequence[int]) -> Batch:
    """Inputs without outputs, row i using prompt ``runs[i]``, on the backbone's device."""
    batch = collate(inputs, [[]] * len(inputs), runs, pad=backbone.tokenizer.pad_token_id)
    return batch.to(backbone.device)


def _collect(out: list[list[str]], which: Sequence[int], jobs: Sequence[Job], texts: Sequence[str]) -> None:
    start = 0
    for i in which:
        stop = start + len(jobs[i].rows)
        out[i] = [text.strip() for text in texts[start:stop]]
        start = stop


def no_prompt(backbone: Backbone) -> Tensor:
    """A stack with one prompt of length zero: the backbone as it is (full fine-tuning)."""
    return torch.zeros(1, 0, backbone.width, dtype=backbone.prompt_dtype, device=backbone.device)
