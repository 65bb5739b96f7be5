"""The training objective over stacked prompts: losses, gradients and Hessian-vector products of many runs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from softstart.backbone import IGNORE, Backbone, Batch


def run_losses(backbone: Backbone, prompts: Tensor, batch: Batch) -> Tensor:
    """Token-mean NLL of each run: prompts [R, P, d] → [R] nats per label token (0 for a run without rows)."""
    sums, _ = backbone.nll(prompts, batch, seed=batch.seed)
    totals = torch.zeros(len(prompts), dtype=sums.dtype, device=sums.device).index_add(0, batch.run, sums)
    return totals / _token_counts(batch, len(prompts)).to(sums.dtype)


def run_gradients(
    backbone: Backbone, prompts: Tensor, batch: Batch, max_tokens: int | None = None
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

    Returns:
        (token-mean losses [R], gradients [R, P, d]).
    """
    weights = 1.0 / _token_counts(batch, len(prompts)).to(prompts.dtype)  # [R]
    losses = torch.zeros(len(prompts), dtype=prompts.dtype, device=prompts.device)
    gradient = torch.zeros_like(prompts)
    for part in _parts(batch, max_tokens, prompts.shape[1]):
        leaf = prompts.detach().requires_grad_()
        sums, _ = backbone.nll(leaf, part, seed=part.seed)
        weighted = sums.to(prompts.dtype) * weights[part.run]
        gradient += torch.autograd.grad(weighted.sum(), leaf)[0]
        losses.index_add_(0, part.run, weighted.detach())
    return losses, gradient


def run_hvps(
    backbone: Backbone, prompts: Tensor, batch: Batch, vectors: Tensor, max_tokens: int | None = None
) -> Tensor:
    """Hessian-vector products H_r v_r of every run's loss by double backward: two [R, P, d] → [R, P, d]."""
    weights = 1.0 / _token_counts(batch, len(prompts)).to(prompts.dtype)
    product = torch.zeros_like(prompts)
    for part in _parts(batch, max_tokens, prompts.shape[1]):
        leaf = prompts.detach().requires_grad_()
        sums, _ = backbone.nll(leaf, part, seed=part.seed, twice=True)
        weighted = sums.to(prompts.dtype) * weights[part.run]
        (gradient,) = torch.autograd.grad(weighted.sum(), leaf, create_graph=True)
        product += torch.autograd.grad((gradient * vectors).sum(), leaf)[0]
    return product


@dataclass(frozen=True)
class PromptObjective:
    """The loss an algorithm sees: a backbone with a bound on the tokens of one forward pass."""

    backbone: Backbone
    max_tokens: int | None = None

    def gradient(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(losses [R], gradients [R, P, d]); see ``run_gradients``."""
        return run_gradients(self.backbone, prompts, batch, self.max_tokens)

    def hvp(self, prompts: Tensor, batch: Batch, vectors: Tensor) -> Tensor:
        """Hessian-vector products [R, P, d]; see ``run_hvps``."""
        return run_hvps(self.backbone, prompts, batch, vectors, self.max_tokens)


def _token_counts(batch: Batch, runs: int) -> Tensor:
    counts = torch.zeros(runs, dtype=torch.long, device=batch.run.device)
    return counts.index_add(0, batch.run, (batch.labels != IGNORE).sum(1)).clamp_min(1)


def _parts(batch: Batch, max_tokens: int | None, prompt_length: int) -> list[Batch]:
    parts = [part for _, part in batch.micro_batches(max_tokens, prompt_length)]
    if batch.seed is None:
        return parts
    # Every micro-batch needs masks of its own, the same ones whenever the batch is seen again.
    return [replace(part, seed=batch.seed + i) for i, part in enumerate(parts)]
