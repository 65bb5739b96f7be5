"""The training objective over stacked prompts: losses, gradients and Hessian-vector products of many runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from softstart.backbone import IGNORE, Backbone, Batch
from softstart.backbone.batch import PASS
from softstart.backbone.flops import Flops
from softstart.training.kept_graphs import Graph, KeptGraphs, twice_or_told


def run_losses(backbone: Backbone, prompts: Tensor, batch: Batch) -> Tensor:
    """Token-mean NLL of each run: prompts [R, P, d] → [R] nats per label token (0 for a run without rows)."""
    sums, _ = backbone.nll(prompts, batch, seed=batch.seed)
    totals = torch.zeros(len(prompts), dtype=sums.dtype, device=sums.device).index_add(0, batch.run, sums)
    return totals / _token_counts(batch, len(prompts)).to(sums.dtype)


def run_gradients(
    backbone: Backbone,
    prompts: Tensor,
    batch: Batch,
    max_tokens: int | None = None,
    *,
    twice: bool = False,
    graph: Graph | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss and gradient of every run from shared forward passes.

    Each run's loss reads only its own prompt, so the gradient of the summed losses with respect to the stack
    is the stack of the separate gradients. Rows are regrouped by length into micro-batches; the result is the
    same for any grouping.

    Args:
        backbone: the frozen model.
        prompts: [R, P, d].
        batch: rows of all runs.
        max_tokens: bound on the tokens of one forward pass.
        twice: use the kernels that second derivatives use.
        graph: filled with what a later Hessian-vector product at these prompts needs.

    Returns:
        (token-mean losses [R], gradients [R, P, d]).
    """
    weights = 1.0 / _token_counts(batch, len(prompts)).to(prompts.dtype)  # [R]
    losses = torch.zeros(len(prompts), dtype=prompts.dtype, device=prompts.device)
    gradient = torch.zeros_like(prompts)
    for part in _parts(backbone, batch, max_tokens, prompts.shape[1]):
        leaf = prompts.detach().requires_grad_()
        sums, _ = backbone.nll(leaf, part, seed=part.seed, twice=twice or graph is not None)
        weighted = sums.to(prompts.dtype) * weights[part.run]
        (slope,) = torch.autograd.grad(weighted.sum(), leaf, create_graph=graph is not None)
        gradient += slope.detach()
        losses.index_add_(0, part.run, weighted.detach())
        if graph is not None:
            graph.parts.append((leaf, slope))
    return losses, gradient


def run_hvps(
    backbone: Backbone, prompts: Tensor, batch: Batch, vectors: Tensor, max_tokens: int | None = None
) -> Tensor:
    """Hessian-vector products H_r v_r of every run's loss by double backward: two [R, P, d] → [R, P, d].

    Raises:
        SoftstartError: the backbone cannot be differentiated twice.
    """
    weights = 1.0 / _token_counts(batch, len(prompts)).to(prompts.dtype)
    product = torch.zeros_like(prompts)
    for part in _parts(backbone, batch, max_tokens, prompts.shape[1]):
        leaf = prompts.detach().requires_grad_()
        with twice_or_told():
            sums, _ = backbone.nll(leaf, part, seed=part.seed, twice=True)
            weighted = sums.to(prompts.dtype) * weights[part.run]
            (gradient,) = torch.autograd.grad(weighted.sum(), leaf, create_graph=True)
            product += torch.autograd.grad((gradient * vectors).sum(), leaf)[0]
    return product


@dataclass
class Work:
    """What training has read and computed so far: tokens (prompt, text and output) and model FLOPs."""

    tokens: int = 0
    flops: float = 0.0

    def add(self, tokens: int, flops: float) -> None:
        """Count more."""
        self.tokens, self.flops = self.tokens + tokens, self.flops + flops


def row_work(backbone: Backbone, batch: Batch, prompt_length: int) -> list[tuple[int, Flops]]:
    """(tokens, FLOPs) of one forward pass of every row, its padding not counted."""
    texts = (batch.attention_mask.sum(1) + prompt_length).tolist()
    outputs = (batch.labels != IGNORE).sum(1).tolist()
    return [(s + t, backbone.row_flops(s, t)) for s, t in zip(texts, outputs, strict=True)]


@dataclass
class PromptObjective:
    """The loss an algorithm sees: a backbone with a bound on the tokens of one forward pass.

    ``work`` counts what the algorithm asks for. ``memory_budget``, in bytes, is for the graphs of inner
    gradients; what it buys is recomputation, never other numbers but for rounding (see ``KeptGraphs``).
    """

    backbone: Backbone
    max_tokens: int | None = None
    memory_budget: int | None = None
    work: Work = field(default_factory=Work)
    graphs: KeptGraphs = field(init=False)

    def __post_init__(self) -> None:
        self.graphs = KeptGraphs(self.backbone.device, self.memory_budget)

    def expect(self, batches: Sequence[Batch]) -> None:
        """Announce that ``hvp`` will follow for the next gradients, those on ``batches``, in reverse."""
        self.graphs.expect(batches)

    def gradient(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(losses [R], gradients [R, P, d]); see ``run_gradients``."""
        for tokens, flops in row_work(self.backbone, batch, prompts.shape[1]):
            self.work.add(tokens, flops.gradient)
        if not self.graphs.awaits(batch):
            return run_gradients(self.backbone, prompts, batch, self.max_tokens)
        graph = self.graphs.begin(prompts, batch)
        if graph is None:
            # Other kernels draw other dropout masks: those of this pass must be those of its recomputation.
            twice = batch.seed is not None
            return run_gradients(self.backbone, prompts, batch, self.max_tokens, twice=twice)
        with graph.measured(self._weights), twice_or_told():
            found = run_gradients(self.backbone, prompts, batch, self.max_tokens, graph=graph)
        self.graphs.keep(graph)
        return found

    def hvp(self, prompts: Tensor, batch: Batch, vectors: Tensor) -> Tensor:
        """Hessian-vector products [R, P, d]; see ``run_hvps``."""
        graph = self.graphs.take(prompts, batch)
        for tokens, flops in row_work(self.backbone, batch, prompts.shape[1]):
            # The gradient that a kept graph is of was counted when it was asked for.
            self.work.add(0 if graph else tokens, flops.hvp - (flops.gradient if graph else 0.0))
        if graph is not None:
            return graph.hvp(vectors)
        return run_hvps(self.backbone, prompts, batch, vectors, self.max_tokens)

    @cached_property
    def _weights(self) -> set[int]:
        storages = [p.untyped_storage() for p in self.backbone.model.parameters()]
        return {storage.data_ptr() or storage._cdata for storage in storages}


def _token_counts(batch: Batch, runs: int) -> Tensor:
    counts = torch.zeros(runs, dtype=torch.long, device=batch.run.device)
    return counts.index_add(0, batch.run, (batch.labels != IGNORE).sum(1)).clamp_min(1)


def _parts(backbone: Backbone, batch: Batch, max_tokens: int | None, prompt_length: int) -> list[Batch]:
    # A GPU is better filled than spared some padding.
    cost = PASS if backbone.device.type == "cpu" else None
    parts = [part for _, part in backbone.parts(batch, max_tokens, prompt_length, cost)]
    if batch.seed is None:
        return parts
    # Every micro-batch needs masks of its own, the same ones whenever the batch is seen again.
    return [replace(part, seed=batch.seed + i) for i, part in enumerate(parts)]
