"""SPoT, soft prompt transfer (Vu et al., 2022, section 4, "targeted"): start from the nearest source prompt.

    sources     tune a prompt on every source task, all from one start θ₀
    embeddings  the same prompts after the first few steps stand for their tasks
    target      tune a prompt from θ₀ for as many steps; start from the source prompt whose embedding is
                nearest to it by cosine, averaged over all pairs of rows

SPoT's "generic" transfer, one prompt tuned on a mixture of source tasks, is ``MultiTask``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from softstart.algorithms import Algorithm
from softstart.backbone import Backbone
from softstart.errors import SoftstartError
from softstart.progress import Progress, silent
from softstart.prompt import similarity
from softstart.training.adaptation import AdaptConfig, Adapted, AdaptRun, adapt
from softstart.training.encoding import EncodedTask, Rows
from softstart.training.meta_training import MetaConfig, MetaTrained, meta_train
from softstart.training.objective import Work

SOURCES, EMBEDDINGS, START = "sources", "embeddings", "start"
"""Names of what SPoT leaves beside the mean of the source prompts: [N, P, d], [N, P, d] and θ₀ [P, d]."""

ALL = 0
"""The name of the one sample that all samples of a source task become."""

GLANCE = 2
"""Dev rows that are scored where a pack is saved; nobody looks at the scores."""


@dataclass(frozen=True)
class SPoT:
    """SPoT. Of ``MetaConfig`` a source prompt takes steps, lr, optimizer, seed, dropout and max_tokens."""

    embedding_steps: int = 50
    """Steps after which a prompt stands for its task."""
    query_size: int = 8
    """Rows of a batch."""

    inner_steps: ClassVar[int] = 0
    support_size: ClassVar[int] = 0
    data: ClassVar[str] = "tasks"


TRANSFERS = {"spot": SPoT}


@dataclass(frozen=True)
class Near:
    """The start [P, d] chosen for a target, its similarity to every source [N], and what that took."""

    start: Tensor
    similarity: Tensor
    tokens: int
    flops: float

    @property
    def source(self) -> int:
        """Which source."""
        return int(self.similarity.argmax())


def learn(
    backbone: Backbone,
    algorithm: Algorithm | SPoT,
    tasks: Sequence[EncodedTask],
    start: Tensor,
    config: MetaConfig,
    *,
    samples: Sequence[int] | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> MetaTrained:
    """``meta_train``, or for SPoT a prompt for every source task: the result's prompt is their mean [P, d].

    The prompts are the last ones, tuned on the train rows of all samples; ``further`` holds them under
    ``SOURCES`` and ``EMBEDDINGS`` [N, P, d], and the start [P, d] under ``START``.

    Raises:
        SoftstartError: as ``meta_train`` and ``adapt``, or nothing to learn from.
    """
    if not isinstance(algorithm, SPoT):
        return meta_train(
            backbone, algorithm, tasks, start, config,
            samples=samples, checkpoint=checkpoint, progress=progress,
        )  # fmt: skip
    if not tasks:
        raise SoftstartError("no source task has an example to learn from", fix="Check the gym's files.")
    early = min(algorithm.embedding_steps, config.steps)
    runs = [AdaptRun(start, _joined(task, samples), ALL, config.lr, config.seed) for task in tasks]
    how = _tuning(algorithm, config, config.steps)
    tuned = adapt(
        backbone, runs, replace(how, budgets=(early,)), checkpoint=checkpoint,
        progress=lambda n, note="": progress(n / len(runs), note),
    )  # fmt: skip
    prompts = torch.stack([result.prompt for result in tuned])
    embeddings = torch.stack([result.kept.get(early, result.prompt) for result in tuned])
    further = {SOURCES: prompts, EMBEDDINGS: embeddings, START: start.to(prompts)}
    work = Work(sum(result.tokens for result in tuned), sum(result.flops for result in tuned))
    return MetaTrained(prompts.mean(0), _curve(tuned), work, further)


def nearest(
    backbone: Backbone,
    library: Mapping[str, Tensor],
    cells: Sequence[tuple[EncodedTask, int, int]],
    algorithm: SPoT,
    config: MetaConfig,
) -> list[Near]:
    """The start of every target: the source prompt nearest to one tuned briefly on it.

    Args:
        backbone: the frozen model.
        library: what ``learn`` left in ``further``: [N, P, d], [N, P, d] and [P, d].
        cells: task, sample and seed (of the order of the rows) of every target.
        algorithm: as in ``learn``.
        config: as in ``learn``.
    """
    how = _tuning(algorithm, config, min(algorithm.embedding_steps, config.steps))
    runs = [AdaptRun(library[START], _seen(task, [s]), s, config.lr, seed) for task, s, seed in cells]
    found = []
    for result in adapt(backbone, runs, how):
        near = similarity(result.prompt, library[EMBEDDINGS])
        start = library[SOURCES][int(near.argmax())]
        found.append(Near(start, near, result.tokens, result.flops))
    return found


def _tuning(algorithm: SPoT, config: MetaConfig, steps: int) -> AdaptConfig:
    return AdaptConfig(
        steps=steps, batch_size=algorithm.query_size, eval_every=config.checkpoint_every, eval_start=False,
        select="last", optimizer=config.optimizer, dropout=config.dropout, max_tokens=config.max_tokens,
    )  # fmt: skip


def _curve(tuned: Sequence[Adapted]) -> list[dict[str, float]]:
    """The mean training loss of all source prompts at every step it was noted at."""
    losses: dict[int, list[float]] = {}
    for result in tuned:
        for step, _, loss in result.curve:
            if math.isfinite(loss):
                losses.setdefault(step, []).append(loss)
    return [{"step": step, "query": sum(found) / len(found)} for step, found in sorted(losses.items())]


def _joined(task: EncodedTask, samples: Sequence[int] | None) -> EncodedTask:
    """A task whose one sample ``ALL`` has the train rows of some samples, or of all."""
    chosen = sorted(task.train) if samples is None else samples
    parts = [task.train[sample] for sample in chosen]
    names = ("inputs", "outputs", "references")
    rows = Rows(*([row for part in parts for row in getattr(part, name)] for name in names))
    dev = _seen(task, chosen[:1]).dev[chosen[0]]
    return replace(task, train={ALL: rows}, dev={ALL: dev})


def _seen(task: EncodedTask, samples: Sequence[int]) -> EncodedTask:
    """A task with a few dev rows only."""
    dev = {s: task.dev[s] for s in samples}
    cut = {s: Rows(r.inputs[:GLANCE], r.outputs[:GLANCE], r.references[:GLANCE]) for s, r in dev.items()}
    return replace(task, dev=cut)
