"""The training objective: losses, gradients and Hessian-vector products of many runs, and their work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

from softstart.backbone import Backbone, Batch, tangents
from softstart.backbone.batch import PASS
from softstart.backbone.flops import Flops
from softstart.training.kept_graphs import Graph, KeptGraphs, explaining_refusals
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
        for part, shares in _shares(backbone, leaf, batch, max_tokens, loss, twice or keep):
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
    for part, shares in _shares(backbone, leaf, batch, max_tokens, loss, twice=False):
        for slope, more in zip(slopes, torch.autograd.grad(shares.sum(), cut), strict=True):
            slope += more
        losses.index_add_(0, part.run, shares.detach())
    (gradient,) = torch.autograd.grad(read, leaf, slopes)
    return losses, gradient


def run_hvps(
    backbone: Backbone,
    prompts: Tensor,
    batch: Batch,
    vectors: Tensor,
    max_tokens: int | None = None,
    *,
    loss: RowLoss = TOKEN_MEAN,
) -> Tensor:
    """Hessian-vector products H_r v_r of every run's loss: two [R, P, d] → [R, P, d].

    By double backward, or with compiled kernels by tangents and one backward pass (``_products_along``).

    Raises:
        SoftstartError: the backbone cannot be differentiated twice.
    """
    if backbone.carries_tangents and batch.seed is None:
        return _products_along(backbone, prompts, batch, vectors, max_tokens, loss)
    product = torch.zeros_like(prompts)
    leaf = prompts.detach().requires_grad_()
    with explaining_refusals(), backbone.sharing(leaf, batch, twice=True) as shared:
        if shared is not None:
            return _products_through_shared(backbone, leaf, shared, batch, vectors, max_tokens, loss)
        for _, shares in _shares(backbone, leaf, batch, max_tokens, loss, twice=True):
            (gradient,) = torch.autograd.grad(shares.sum(), leaf, create_graph=True)
            product += torch.autograd.grad((gradient * vectors).sum(), leaf)[0]
    return product


def _products_through_shared(
    backbone: Backbone,
    leaf: Tensor,
    shared: list[Tensor],
    batch: Batch,
    vectors: Tensor,
    max_tokens: int | None,
    loss: RowLoss,
) -> Tensor:
    """As ``run_hvps`` for a loss L(s(p)) of what prompts p share, in the memory of one micro-batch.

    With J the Jacobian of s and H the Hessian of L with respect to s, the product is
    Jᵀ H (J v) + ∇ₚ ((∂L/∂s)ᵀ J v), where ∂L/∂s is constant in the second term.
    """
    read = list(shared)
    zeros = [torch.zeros_like(tensor, requires_grad=True) for tensor in read]
    (pulled,) = torch.autograd.grad(read, leaf, zeros, create_graph=True)  # Jᵀ w, linear in w
    pushed = torch.autograd.grad((pulled * vectors).sum(), zeros, retain_graph=True)  # J v
    shared[:] = cut = [tensor.detach().requires_grad_() for tensor in read]
    slopes, curved = ([torch.zeros_like(tensor) for tensor in read] for _ in range(2))
    for _, shares in _shares(backbone, leaf, batch, max_tokens, loss, twice=True):
        gradient = torch.autograd.grad(shares.sum(), cut, create_graph=True)
        along = cast(Tensor, sum((g * u).sum() for g, u in zip(gradient, pushed, strict=True)))
        for slope, more in zip(slopes, gradient, strict=True):
            slope += more.detach()
        for curve, more in zip(curved, torch.autograd.grad(along, cut), strict=True):
            curve += more
    (first,) = torch.autograd.grad(read, leaf, curved, retain_graph=True)
    (pulled,) = torch.autograd.grad(read, leaf, slopes, create_graph=True)
    (second,) = torch.autograd.grad((pulled * vectors).sum(), leaf)
    return first + second


def _products_along(
    backbone: Backbone, prompts: Tensor, batch: Batch, vectors: Tensor, max_tokens: int | None, loss: RowLoss
) -> Tensor:
    """As ``run_hvps``, as the gradient of the losses' derivative along the vectors, in the memory of one
    micro-batch.

    What prompts share is cut from them with its tangent: a loss's derivative has a gradient by both.
    """
    leaf, along = prompts.detach().requires_grad_(), vectors.detach().requires_grad_()
    product = torch.zeros_like(prompts)
    with tangents.carried():
        moving = forward_ad.make_dual(leaf, along)
        with backbone.sharing(moving, batch, twice=True) as shared:
            read = [part for tensor in shared or () for part in forward_ad.unpack_dual(tensor)]
            cut = [part.detach().requires_grad_() for part in read]
            if shared is not None:
                shared[:] = [forward_ad.make_dual(*pair) for pair in zip(cut[::2], cut[1::2], strict=True)]
            slopes = [torch.zeros_like(part) for part in cut]
            for _, shares in _shares(backbone, moving, batch, max_tokens, loss, twice=True):
                slope = forward_ad.unpack_dual(shares.sum()).tangent
                if shared is None:
                    product += torch.autograd.grad(slope, leaf)[0]
                    continue
                for total, more in zip(slopes, torch.autograd.grad(slope, cut), strict=True):
                    total += more
            if shared is not None:
                (product,) = torch.autograd.grad(read, leaf, slopes)
    return product


def _shares(
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


class Worked(Protocol):
    """What counts the work of a run, see ``Work``."""

    tokens: int
    flops: float
    computed_tokens: int
    computed_flops: float


@dataclass
class Work:
    """The work of training so far: tokens (prompt, text and output) and model FLOPs."""

    tokens: int = 0
    flops: float = 0.0
    """As if every row were read whole: the same for every placement, kernel and machine."""
    computed_tokens: int = 0
    computed_flops: float = 0.0
    """Without what was read once for many rows, see ``Backbone.computed_rows``."""

    def add(self, tokens: int, flops: float, computed_tokens: int = 0, computed_flops: float = 0.0) -> None:
        """Count more."""
        self.tokens, self.flops = self.tokens + tokens, self.flops + flops
        self.computed_tokens += computed_tokens
        self.computed_flops += computed_flops

    @classmethod
    def of(cls, counters: Sequence[Worked]) -> Work:
        """The sum of several counters."""
        total = cls()
        for one in counters:
            total.add(one.tokens, one.flops, one.computed_tokens, one.computed_flops)
        return total


@contextmanager
def counting(
    of_run: Callable[[int], Worked],
    backbone: Backbone,
    batch: Batch,
    prompt_length: int,
    price: Callable[[Flops], float] = lambda flops: flops.gradient,
    *,
    read: bool = True,
) -> Iterator[None]:
    """Count the work of every row of a batch for its run, once the block has done it.

    Texts that were read in the block to be kept went forward only, whatever the price; every row counts an
    equal share of them.

    Args:
        of_run: what counts the work of a run, by the run's number.
        backbone: the model.
        batch: rows of all runs.
        prompt_length: P.
        price: what of a row's FLOPs was computed: by default a gradient by the prompt.
        read: count tokens too; False where they were counted with an earlier pass.
    """
    before = backbone.text_tokens_read
    yield
    kept, rows = backbone.text_tokens_read - before, len(batch)
    whole, computed = (
        of_rows(batch, prompt_length) for of_rows in (backbone.whole_rows, backbone.computed_rows)
    )
    for row, run in enumerate(batch.run.tolist()):
        (tokens, flops), (fewer, fewer_flops) = whole[row], computed[row]
        share = kept * (row + 1) // rows - kept * row // rows  # whole numbers whose sum is ``kept``
        counter = of_run(run)
        counter.tokens += tokens if read else 0
        counter.flops += price(flops)
        counter.computed_tokens += share + (fewer if read else 0)
        counter.computed_flops += price(fewer_flops) + (backbone.row_flops(share, 0).forward if share else 0)


@dataclass
class PromptObjective:
    """The losses that an algorithm sees: a backbone, what is minimized, and bounds on memory.

    ``work`` counts what the algorithm asks for. ``memory_budget``, in bytes, is for the graphs of inner
    gradients; it saves recomputation and changes no number beyond rounding (see ``KeptGraphs``).
    """

    backbone: Backbone
    max_tokens: int | None = None
    memory_budget: int | None = None
    loss: RowLoss = TOKEN_MEAN
    work: Work = field(default_factory=Work)
    graphs: KeptGraphs = field(init=False)

    def __post_init__(self) -> None:
        self.graphs = KeptGraphs(self.backbone.device, self.memory_budget)

    def expect(self, batches: Sequence[Batch]) -> None:
        """Announce that ``hvp`` will follow for the next gradients, those on ``batches``, in reverse."""
        self.graphs.expect(batches)

    def gradient(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(losses [R], gradients [R, P, d]); see ``run_gradients``."""
        with self._counting(prompts, batch):
            return self._counted_gradient(prompts, batch)

    def _counted_gradient(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        if not self.graphs.awaits(batch):
            return self._gradient(prompts, batch)
        graph = self.graphs.begin(prompts, batch)
        if graph is None:
            # Other kernels draw other dropout masks: those of this pass must be those of its recomputation.
            return self._gradient(prompts, batch, twice=batch.seed is not None)
        with graph.measured(self._weights), explaining_refusals():
            losses, gradient = self._gradient(prompts, batch, graph=graph)
        self.graphs.keep(graph)
        return losses, gradient

    def hvp(self, prompts: Tensor, batch: Batch, vectors: Tensor) -> Tensor:
        """Hessian-vector products [R, P, d]; see ``run_hvps``."""
        graph = self.graphs.take(prompts, batch)
        if graph is None:
            with self._counting(prompts, batch, lambda flops: flops.hvp):
                return run_hvps(self.backbone, prompts, batch, vectors, self.max_tokens, loss=self.loss)
        # The gradient whose graph was kept was counted when it was asked for.
        with self._counting(prompts, batch, lambda flops: flops.hvp - flops.gradient, read=False):
            return graph.hvp(vectors)

    def _counting(
        self,
        prompts: Tensor,
        batch: Batch,
        price: Callable[[Flops], float] = lambda flops: flops.gradient,
        *,
        read: bool = True,
    ) -> AbstractContextManager[None]:
        return counting(lambda run: self.work, self.backbone, batch, prompts.shape[1], price, read=read)

    def _gradient(
        self, prompts: Tensor, batch: Batch, *, twice: bool = False, graph: Graph | None = None
    ) -> tuple[Tensor, Tensor]:
        return run_gradients(
            self.backbone, prompts, batch, self.max_tokens, loss=self.loss, twice=twice, graph=graph
        )

    @cached_property
    def _weights(self) -> set[int]:
        storages = [p.untyped_storage() for p in self.backbone.model.parameters()]
        return {storage.data_ptr() or storage._cdata for storage in storages}
