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

from softstart.backbone import Backbone
from softstart.errors import SoftstartError
from softstart.progress import Progress, silent
from softstart.prompt import similarity
from softstart.training.adaptation import Adapted, AdaptRun, adapt
from softstart.training.configs import AdaptConfig, MetaConfig
from softstart.training.encoding import EncodedTask, Rows
from softstart.training.meta_training import MetaTrained
from softstart.training.objective import Work

SOURCES, EMBEDDINGS, START = "sources", "embeddings", "start"
"""Names of what SPoT keeps besides the mean of the source prompts: [N, P, d], [N, P, d] and θ₀ [P, d]."""

ALL = 0
"""The name of the single sample that all samples of a source task become."""

GLANCE = 2
"""Dev rows scored where a pack is saved; the scores are not used."""


@dataclass(frozen=True)
class Near:
    """The start [P, d] chosen for a target, its similarity to every source [N], and the work it took."""

    start: Tensor
    similarity: Tensor
    work: Work

    @property
    def source(self) -> int:
        """The index of the source."""
        return int(self.similarity.argmax())


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
    label: ClassVar[str] = "SPoT"
    color: ClassVar[str] = "#7145df"

    def learn(
        self,
        backbone: Backbone,
        tasks: Sequence[EncodedTask],
        start: Tensor,
        config: MetaConfig,
        *,
        samples: Sequence[int] | None = None,
        checkpoint: Path | None = None,
        progress: Progress = silent,
    ) -> MetaTrained:
        """Tune a prompt for every source task from one start [P, d]; the result's prompt is their mean.

        The prompts are the last ones, tuned on the train rows of all samples; ``further`` holds them under
        ``SOURCES`` and ``EMBEDDINGS`` [N, P, d], and the start [P, d] under ``START``.

        Raises:
            SoftstartError: as ``adapt``, or nothing to learn from.
        """
        if not tasks:
            raise SoftstartError("no source task has an example to learn from", fix="Check the gym's files.")
        early = min(self.embedding_steps, config.steps)
        runs = [AdaptRun(start, _joined(task, samples), ALL, config.lr, config.seed) for task in tasks]
        tuned = adapt(
            backbone, runs, replace(self._tuning(config, config.steps), budgets=(early,)),
            checkpoint=checkpoint, progress=lambda n, note="": progress(n / len(runs), note),
        )  # fmt: skip
        prompts = torch.stack([result.prompt for result in tuned])
        embeddings = torch.stack([result.kept.get(early, result.prompt) for result in tuned])
        further = {SOURCES: prompts, EMBEDDINGS: embeddings, START: start.to(prompts)}
        return MetaTrained(prompts.mean(0), _curve(tuned), Work.of(tuned), further)

    def nearest(
        self,
        backbone: Backbone,
        library: Mapping[str, Tensor],
        cells: Sequence[tuple[EncodedTask, int, int]],
        config: MetaConfig,
    ) -> list[Near]:
        """The start of every target: the source prompt nearest to one tuned briefly on it.

        Args:
            backbone: the frozen model.
            library: what ``learn`` left in ``further``: [N, P, d], [N, P, d] and [P, d].
            cells: task, sample and seed (of the order of the rows) of every target.
            config: as in ``learn``.
        """
        brief = self._tuning(config, min(self.embedding_steps, config.steps))
        runs = [AdaptRun(library[START], _seen(task, [s]), s, config.lr, seed) for task, s, seed in cells]
        chosen = []
        for result in adapt(backbone, runs, brief):
            near = similarity(result.prompt, library[EMBEDDINGS])
            start = library[SOURCES][int(near.argmax())]
            chosen.append(Near(start, near, Work.of([result])))
        return chosen

    def _tuning(self, config: MetaConfig, steps: int) -> AdaptConfig:
        return AdaptConfig(
            steps=steps, batch_size=self.query_size, eval_every=config.checkpoint_every, eval_start=False,
            select="last", optimizer=config.optimizer, lr_unit=config.lr_unit, loss=config.loss,
            dropout=config.dropout,
            max_tokens=config.max_tokens,
        )  # fmt: skip


def _curve(tuned: Sequence[Adapted]) -> list[dict[str, float]]:
    """The mean training loss of all source prompts at every step of their curves."""
    losses: dict[int, list[float]] = {}
    for result in tuned:
        for step, _, loss in result.curve:
            if math.isfinite(loss):
                losses.setdefault(step, []).append(loss)
    return [{"step": step, "query": sum(all_) / len(all_)} for step, all_ in sorted(losses.items())]


def _joined(task: EncodedTask, samples: Sequence[int] | None) -> EncodedTask:
    """A task whose one sample ``ALL`` has the train rows of the given samples, or of all."""
    chosen = sorted(task.train) if samples is None else samples
    parts = [task.train[sample] for sample in chosen]
    names = ("inputs", "outputs", "references")
    rows = Rows(*([row for part in parts for row in getattr(part, name)] for name in names))
    dev = _seen(task, chosen[:1]).dev[chosen[0]]
    return replace(task, train={ALL: rows}, dev={ALL: dev})


def _seen(task: EncodedTask, samples: Sequence[int]) -> EncodedTask:
    """A task with a few dev rows only."""
    dev = {s: task.dev[s] for s in samples}
    cut = {sample: rows.first(GLANCE) for sample, rows in dev.items()}
    return replace(task, dev=cut)
