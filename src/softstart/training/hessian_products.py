"""Exact Hessian-vector products of many runs: by double backward, or by tangents and compiled kernels."""

from __future__ import annotations

import logging
import time
from typing import cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

from softstart.backbone import Backbone, Batch, tangents
from softstart.errors import SoftstartError
from softstart.training.gradients import TOKEN_MEAN, shares_of
from softstart.training.kept_graphs import explaining_refusals
from softstart.training.losses import RowLoss

LOG = logging.getLogger("softstart")

BOUNDS = {torch.float64: 1e-5, torch.float32: 1e-2}
"""How far products by tangents may be from those by double backward, relative to their norm."""
ROUNDED = 0.25
"""The same for dtypes of few digits."""


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

    By double backward; on a backbone that was compiled, by tangents (``backbone.tangents``), whose first
    product is checked. Under dropout it is always double backward.

    Raises:
        SoftstartError: the backbone cannot be differentiated twice.
    """
    given = (backbone, prompts, batch, vectors, max_tokens, loss)
    if not backbone.carries_tangents or batch.seed is not None:
        return _by_double_backward(*given)
    if backbone.tangents_checked:
        return _by_tangents(*given)
    return _first_by_tangents(*given)


def _first_by_tangents(
    backbone: Backbone, prompts: Tensor, batch: Batch, vectors: Tensor, max_tokens: int | None, loss: RowLoss
) -> Tensor:
    """The first product by tangents; where it is not that of double backward, no other one is tried.

    Layers may have operations whose derivatives torch does not carry, and their kernels must compile.
    """
    expected = _by_double_backward(backbone, prompts, batch, vectors, max_tokens, loss)
    began = time.monotonic()
    try:
        product = _by_tangents(backbone, prompts, batch, vectors, max_tokens, loss)
        far = float((product - expected).norm() / expected.norm().clamp_min(1e-30))
        close = far <= BOUNDS.get(backbone.embedding.weight.dtype, ROUNDED)
        problem = "" if close else f"by tangents they are {far:.2g} away"
    except (SoftstartError, RuntimeError) as error:  # torch says so of what it cannot carry
        problem = (str(error).splitlines() or [type(error).__name__])[0]
    if problem:
        LOG.warning("%s: Hessian-vector products are not compiled (%s)", backbone.name, problem)
        backbone.carries_tangents = False
        return expected
    LOG.info(
        "%s: kernels of Hessian-vector products compiled in %.0f s", backbone.name, time.monotonic() - began
    )
    backbone.tangents_checked = True
    return product


def _by_double_backward(
    backbone: Backbone, prompts: Tensor, batch: Batch, vectors: Tensor, max_tokens: int | None, loss: RowLoss
) -> Tensor:
    product = torch.zeros_like(prompts)
    leaf = prompts.detach().requires_grad_()
    with explaining_refusals(), backbone.sharing(leaf, batch, twice=True) as shared:
        if shared is not None:
            return _products_through_shared(backbone, leaf, shared, batch, vectors, max_tokens, loss)
        for _, shares in shares_of(backbone, leaf, batch, max_tokens, loss, twice=True):
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
    """As ``_by_double_backward`` for a loss L(s(p)) of what prompts p share, in the memory of a micro-batch.

    With J the Jacobian of s and H the Hessian of L with respect to s, the product is
    Jᵀ H (J v) + ∇ₚ ((∂L/∂s)ᵀ J v), where ∂L/∂s is constant in the second term.
    """
    read = list(shared)
    zeros = [torch.zeros_like(tensor, requires_grad=True) for tensor in read]
    (pulled,) = torch.autograd.grad(read, leaf, zeros, create_graph=True)  # Jᵀ w, linear in w
    pushed = torch.autograd.grad((pulled * vectors).sum(), zeros, retain_graph=True)  # J v
    shared[:] = cut = [tensor.detach().requires_grad_() for tensor in read]
    slopes, curved = ([torch.zeros_like(tensor) for tensor in read] for _ in range(2))
    for _, shares in shares_of(backbone, leaf, batch, max_tokens, loss, twice=True):
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


def _by_tangents(
    backbone: Backbone, prompts: Tensor, batch: Batch, vectors: Tensor, max_tokens: int | None, loss: RowLoss
) -> Tensor:
    """As the gradient of the losses' derivative along the vectors, in the memory of one micro-batch.

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
            for _, shares in shares_of(backbone, moving, batch, max_tokens, loss, twice=True):
                slope = forward_ad.unpack_dual(shares.sum()).tangent
                if shared is None:
                    product += tangents.gradients([slope], [leaf])[0]
                    continue
                for total, more in zip(slopes, tangents.gradients([slope], cut), strict=True):
                    total += more
            if shared is not None:
                (product,) = tangents.gradients(read, [leaf], slopes)
    return product
