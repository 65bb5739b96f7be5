"""A mixture of source prompts: softmax weights are learned first, then the prompt that they give.

    sources  tune a prompt S_n on every source task, all from one start, as SPoT does
    weights  P = Σ_n softmax(w)_n S_n: learn w, a number for each source task, on the target's train rows
    prompt   tune P as a whole

ATTEMPT (Asai et al., 2022) computes the weights of every input by a small network and adds a prompt of the
target task; MP2 (Sun et al., 2023) learns a router of each task first, then the prompts that it has chosen.
Here weights belong to a task and are learned first, as in MP2, and are a softmax, as in ATTEMPT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from softstart.backbone import Backbone, Batch
from softstart.progress import Progress, silent
from softstart.training.configs import MetaConfig, bound_of
from softstart.training.encoding import EncodedTask, to_batch
from softstart.training.gradients import run_gradients
from softstart.training.meta_training import MetaTrained
from softstart.training.objective import Work, counting
from softstart.training.optimizers import AdamW, StackedOptimizer
from softstart.training.spot import SOURCES, Near, SPoT


@dataclass(frozen=True)
class SourceMixture:
    """Source prompts are learned with ``MetaConfig`` as SPoT's are; weights by AdamW without decay."""

    weight_steps: int = 30
    """Steps in which the weights are learned."""
    weight_lr: float = 0.1
    """Their learning rate."""
    query_size: int = 8
    """Rows of a batch."""

    inner_steps: ClassVar[int] = 0
    support_size: ClassVar[int] = 0
    data: ClassVar[str] = "tasks"
    label: ClassVar[str] = "Source mixture"
    color: ClassVar[str] = "#b0508e"

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
        """Tune the source prompts [N, P, d] from one start [P, d]: ``SPoT.learn``.

        Raises:
            SoftstartError: as ``SPoT.learn``.
        """
        spot = SPoT(config.steps, self.query_size)
        return spot.learn(
            backbone, tasks, start, config, samples=samples, checkpoint=checkpoint, progress=progress
        )

    def nearest(
        self,
        backbone: Backbone,
        library: Mapping[str, Tensor],
        cells: Sequence[tuple[EncodedTask, int, int]],
        config: MetaConfig,
    ) -> list[Near]:
        """The mixture of every target; ``similarity`` is its weights [N], which sum to one.

        Args:
            backbone: the frozen model.
            library: what ``learn`` left in ``further``; the prompts [N, P, d] are used.
            cells: task, sample and seed (of the order of the rows) of every target.
            config: as in ``learn``; its loss and its bound on memory are used.
        """
        sources = library[SOURCES].to(backbone.device, backbone.prompt_dtype)
        logits = sources.new_zeros(len(cells), len(sources), 1)  # w [R, N, 1]
        works = [Work() for _ in cells]
        optimizer = StackedOptimizer(
            logits, torch.full((len(cells),), self.weight_lr, dtype=torch.float64), AdamW(weight_decay=0.0)
        )
        bound = bound_of(config, backbone.device)
        for step in range(self.weight_steps):
            batch = self._batch(backbone, cells, step)
            with counting(works.__getitem__, backbone, batch, sources.shape[1]):
                leaf = logits.clone().requires_grad_()
                prompts = mixed(leaf[..., 0], sources)
                _, slope = run_gradients(backbone, prompts.detach(), batch, bound, loss=config.loss)
                (gradient,) = torch.autograd.grad(prompts, leaf, slope)
            optimizer.step(logits, gradient)
        starts = mixed(logits[..., 0], sources)
        weights = logits[..., 0].softmax(1)
        return [Near(*each) for each in zip(starts.cpu(), weights.cpu(), works, strict=True)]

    def _batch(self, backbone: Backbone, cells: Sequence[tuple[EncodedTask, int, int]], step: int) -> Batch:
        pairs, owners, size = [], [], self.query_size
        for r, (task, sample, seed) in enumerate(cells):
            _, picked = task.train[sample].of_step(step, size, seed, sample)
            pairs += picked
            owners += [r] * len(picked)
        return to_batch(pairs, owners, backbone.tokenizer.pad_token_id).to(backbone.device)


def mixed(logits: Tensor, sources: Tensor) -> Tensor:
    """Σ_n softmax(w)_n S_n: w [R, N], S [N, P, d] → [R, P, d]."""
    return torch.einsum("rn,npd->rpd", logits.softmax(1), sources)
