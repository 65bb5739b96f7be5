"""Losses and gradients of many runs from shared forward passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from softstart.backbone import Backbone, Batch
from softstart.backbone.batch import PASS
from softstart.training.kept_graphs import Graph
from softstart.training.losses import RowLoss, TokenMean

TOKEN_MEAN = TokenMean()


def run_losses(backbone: Backbone, prompts: Tensor, batch: Batch, loss: RowLoss = TOKEN_MEAN) -> Tensor:
    """The loss of each run under prompts [R, P, d]: [R], differentiable; 0 for a run without rows."""
    values = loss.values(backbone, prompts, batch)
    totals = torch.zeros(len(prompts), dtype=values.dtype, device=values.device)
    totals = totals.index_add(0, batch.run, values)
    return totals / loss.divisors(batch, len(prompts)).to(values.dtype)


def weight_loss(backbone: Backbone, batch: Batch, loss: RowLoss = TOKEN_MEAN) -> Tensor:
    """The loss of one run without a prompt, a scalar that is differentiable by the weights (fine-tuning)."""
    nothing = torch.zeros(1, 0, backbone.width, dtype=backbone.prompt_dtype, device=backbone.device)
    return loss.values(backbone, nothing, batch).sum() / loss.divisors(batch, 1)[0]


def run_gradients(
    backbone: Backbone,
    prompts: Tensor,
    batch: Batch,
    max_tokens: int | None = None,
    *,
    loss: RowLoss = TOKEN_MEAN,
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
        max_tokens: upper bound on the tokens of one forward pass.
        loss: what is minimized.
        twice: use the kernels that second derivatives use.
        graph: filled with what a later Hessian-vector product at these prompts needs.

    Returns:
        (losses [R], gradients [R, P, d]).
    """
    losses = torch.zeros(len(prompts), dtype=prompts.dtype, device=prompts.device)
    gradient, keep = torch.zeros_like(prompts), graph is not None
    leaf = prompts.detach().requires_grad_()
    with backbone.sharing(leaf, batch, twice=twice or keep) as shared:
        if shared is not None and not keep:
            return _through_shared(backbone, leaf, shared, batch, max_tokens, loss)
        totals: list[Tensor] = []
        for part, shares in shares_of(backbone, leaf, batch, max_tokens, loss, twice or keep):
            losses.index_add_(0, part.run, shares.detach())
            totals.append(shares.sum())
            if shared is None:
                gradient += _slope(totals.pop(), leaf, graph)
        if totals:  # one graph, for the micro-batches have a part of it in common
            gradient += _slope(torch.stack(totals).sum(), leaf, graph)
    return losses, gradient


def _slope(total: Tensor, leaf: Tensor, graph: Graph | None) -> Tensor:
    """The gradient of a loss by the prompts [R, P, d]; its graph is kept if it is asked for."""
    (slope,) = torch.autograd.grad(total, leaf, create_graph=graph is not None)
    if graph is not None:
        graph.parts.append((leaf, slope))
    return slope.detach()


def _through_shared(
    backbone: Backbone,
    leaf: Tensor,
    shared: list[Tensor],
    batch: Batch,
    max_tokens: int | None,
    loss: RowLoss,
) -> tuple[Tensor, Tensor]:
    """As ``run_gradients``, with one backward pass through the prompts for all micro-batches.

    ``shared`` is what ``Backbone.sharing`` gave: it is cut from the prompts, its gradient is added up over
    the micro-batches and then taken through the prompts.
    """
    losses = torch.zeros(len(leaf), dtype=leaf.dtype, device=leaf.device)
    read = list(shared)
    shared[:] = cut = [tensor.detach().requires_grad_() for tensor in read]
    slopes = [torch.zeros_like(tensor) for tensor in read]
    for part, shares in shares_of(backbone, leaf, batch, max_tokens, loss, twice=False):
        for slope, more in zip(slopes, torch.autograd.grad(shares.sum(), cut), strict=True):
            slope += more
        losses.index_add_(0, part.run, shares.detach())
    (gradient,) = torch.autograd.grad(read, leaf, slopes)
    return losses, gradient


def shares_of(
    backbone: Backbone, leaf: Tensor, batch: Batch, max_tokens: int | None, loss: RowLoss, twice: bool
) -> Iterator[tuple[Batch, Tensor]]:
    """Micro-batches, each with its rows' shares [b] of the losses under prompts ``leaf`` [R, P, d]."""
    weights = 1.0 / loss.divisors(batch, len(leaf)).to(leaf.dtype)  # [R]
    for part in _micro_batches(backbone, batch, max_tokens, leaf.shape[1]):
        values = loss.values(backbone, leaf, part, twice=twice)
        yield part, values.to(leaf.dtype) * weights[part.run]


def _micro_batches(
    backbone: Backbone, batch: Batch, max_tokens: int | None, prompt_length: int
) -> list[Batch]:
    # Filling a GPU is worth more than the padding it takes.
    cost = PASS if backbone.device.type == "cpu" else None
    parts = [part for _, part in backbone.parts(batch, max_tokens, prompt_length, cost)]
    if batch.seed is None:
        return parts
    # Each micro-batch needs its own masks, and the same ones whenever the batch is seen again.
    return [replace(part, seed=batch.seed + i) for i, part in enumerate(parts)]
