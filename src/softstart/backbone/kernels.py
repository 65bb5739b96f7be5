"""Building blocks of a forward pass that cost less than the ones torch or transformers choose.

Every function here equals its plain formula up to rounding and can be differentiated with respect to all its
tensors, and twice unless it says otherwise. ``benchmarks/engine`` measures what each of them saves.
"""

from __future__ import annotations

import ctypes
import math
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from softstart.backbone import tangents
from softstart.backbone.devices import processor

FEW_ROWS = 64
"""With fewer rows than this, oneDNN's set-up costs more than its faster arithmetic saves."""

# GELU's tanh form is x/2 (1 + tanh z) with z = sqrt(2 / pi) (x + 0.044715 x³). As tanh z = 2 sigmoid(2z) - 1,
# it is x sigmoid(2z), and the factor of z doubles.
_GELU = math.sqrt(8 / math.pi)
_CUBIC = 0.044715

KEPT = 256 << 20
"""Bytes of freed memory that a process keeps for its next activations."""


@cache
def keep_freed_memory() -> None:
    """Let this process keep up to ``KEPT`` bytes it has freed (only on Linux with glibc).

    By default glibc returns large activations to the system after every step, and the next step pays a page
    fault for each 4 KB of them.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(-3, KEPT)  # M_MMAP_THRESHOLD
    mallopt(-1, KEPT)  # M_TRIM_THRESHOLD


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x Wᵀ: [..., K] and [N, K] → [..., N].

    In float32 on a CPU the product is oneDNN's, except on Intel processors. Torch's default, MKL, is the
    fastest on Intel, but it does not use AVX-512 on AMD, which halves its speed there.
    """
    if tangents.carrying():
        return tangents.mapped(x, lambda z: _linear(z, weight), lambda g: _linear(g, weight.t()))
    return _linear(x, weight)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    if x.numel() < FEW_ROWS * x.shape[-1] or not _onednn(x):
        # Of a part of a tensor, torch makes one product a row, each of which reads the weight again.
        return functional.linear(x.contiguous(), weight)
    product: Tensor = _Linear.apply(x, weight)
    return product


def _onednn(x: Tensor) -> bool:
    return (
        x.dtype == torch.float32 and x.device.type == "cpu" and not _mkl_leads() and _pointwise() is not None
    )


@cache
def _mkl_leads() -> bool:
    """Whether torch multiplies with MKL on an Intel processor.

    The name decides, not a measurement: the same machine always computes the same bits.
    """
    return torch.backends.mkl.is_available() and "Intel" in processor()


@cache
def _pointwise() -> Any:
    """oneDNN's product, a private operator of torch; None if this version lacks it or has changed it."""
    try:
        product = torch.ops.mkldnn._linear_pointwise
        x, weight = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]])
        same = torch.equal(product(x, weight, None, "none", [], ""), torch.tensor([[11.0, 17.0]]))
    except (AttributeError, RuntimeError, TypeError):
        return None
    return product if same else None


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        product: Tensor = _pointwise()(x, weight, None, "none", [], "")
        return product

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (g,) = gradients
        x, weight = ctx.saved_tensors
        return (
            linear(g, weight.t()) if ctx.needs_input_grad[0] else None,
            linear(g.flatten(0, -2).t(), x.flatten(0, -2).t()) if ctx.needs_input_grad[1] else None,
        )


class Linear(nn.Linear):
    """``nn.Linear`` that multiplies with ``linear``. Setting ``__class__`` turns a module into one."""

    def forward(self, input: Tensor) -> Tensor:
        """As ``nn.Linear``."""
        product = linear(input, self.weight)
        return product if self.bias is None else tangents.plus(product, self.bias)


def joined(*modules: nn.Linear) -> Tensor:
    """The weights [N, K] of several linear maps of the same input, one below the other: [ΣN, K].

    After ``lay_out``, and while the weights are frozen, this is a view: no copy, no memory.
    """
    first = modules[0].weight
    if not first.requires_grad:
        memory = first.untyped_storage().data_ptr()
        ends = [m.weight.storage_offset() + m.weight.numel() for m in modules]
        # Each weight but the first begins where the one before it ends, in the same memory.
        if all(
            m.weight.untyped_storage().data_ptr() == memory and m.weight.storage_offset() == end
            for m, end in zip(modules[1:], ends, strict=False)
        ):
            rows = sum(m.weight.shape[0] for m in modules)
            return first.detach().as_strided((rows, first.shape[1]), (first.shape[1], 1))
    return torch.cat([m.weight for m in modules])


@torch.no_grad()
def lay_out(*modules: nn.Linear) -> None:
    """Move the weights of the modules next to each other in memory; their values and names stay."""
    together = torch.cat([m.weight for m in modules])
    for module, part in zip(modules, together.split([m.weight.shape[0] for m in modules]), strict=True):
        module.weight.data = part


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, twice: bool = False) -> Tensor:
    """x / rms(x) times the weights [d], over the last axis; statistics in float32 at least (T5's layer norm).

    ``twice``: differentiable twice.
    """
    if x.is_cuda and not twice:
        return functional.rms_norm(x, weight.shape, weight, eps)
    if twice:
        return tangents.rms_norm(x, weight, eps)
    normed: Tensor = _RMSNorm.apply(x, weight, eps)
    return normed


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).to(x.dtype).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (g,) = gradients
        x, weight, scale = ctx.saved_tensors
        wide = x.to(scale.dtype)
        dx = dweight = None
        if ctx.needs_input_grad[1]:
            dweight = (g * wide * scale).flatten(0, -2).sum(0).to(weight.dtype)
        if ctx.needs_input_grad[0]:
            inner = (g * weight).to(scale.dtype)
            along = (inner * wide).mean(-1, keepdim=True).mul_(scale.pow(3))
            dx = inner.mul_(scale).addcmul_(wide, along, value=-1).to(x.dtype)
        return dx, dweight, None


def gated_gelu(both: Tensor, *, twice: bool = False) -> Tensor:
    """gelu(a) b of the halves of [..., 2 f]: [..., f], with the tanh form of GELU (T5 v1.1).

    ``twice``: differentiable twice.
    """
    # The version below saves arithmetic on a CPU but launches more kernels: on a GPU, GELU is a single one.
    if twice or both.is_cuda:
        a, b = both.chunk(2, -1)
        return tangents.gated(a, b, "gelu_tanh")
    gated: Tensor = _GatedGELU.apply(both)
    return gated


class _GatedGELU(torch.autograd.Function):
    # A sigmoid is several times cheaper than torch's tanh and gelu_backward; backward needs it again.
    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        a, b = both.chunk(2, -1)
        gate = torch.addcmul(a.new_tensor(_GELU), a, a, value=_GELU * _CUBIC).mul_(a).sigmoid_()
        ctx.save_for_backward(both, gate)
        return (gate * a).mul_(b)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (g,) = gradients
        both, gate = ctx.saved_tensors
        a, b = both.chunk(2, -1)
        out = torch.empty_like(both)
        da, db = out.chunk(2, -1)
        # d(a gate)/da = gate + a gate' with gate' = gate (1 - gate) dz/da, in place: one tensor is held.
        slope = torch.addcmul(a.new_tensor(_GELU), a, a, value=3 * _GELU * _CUBIC).mul_(a)
        torch.ops.aten.sigmoid_backward.grad_input(slope, gate, grad_input=slope)
        slope.add_(gate).mul_(g)
        torch.mul(slope, b, out=da)
        torch.mul(gate, a, out=db).mul_(g)
        return out


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, *, dropout: float, fused: bool) -> Tensor:
    """softmax(q kᵀ + bias) v without scaling: [B, H, T, D], [B, H, S, D] twice → [B, H, T, D].

    Args:
        q: queries.
        k: keys.
        v: values.
        bias: added to the scores; [B or 1, H or 1, T or 1, S].
        dropout: on the probabilities.
        fused: use torch's fused kernels, which cannot be differentiated twice; not with dropout.
    """
    # A GPU's fused kernel has dropout, but the same seed gave different bits (benchmarks/gpu).
    if fused and not dropout:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
    shares = tangents.softmax(q @ k.transpose(2, 3), bias)
    return functional.dropout(shares, dropout) @ v


def self_attention(qkv: Tensor, heads: int, bias: Tensor, *, fused: bool) -> Tensor:
    """``attention`` of joined queries, keys and values [B, T, 3 H D] to themselves: [B, T, H D].

    Args:
        qkv: queries, keys and values of every token.
        heads: H.
        bias: as in ``attention``.
        fused: as in ``attention``.
    """
    rows, length, _ = qkv.shape
    q, k, v = qkv.view(rows, length, 3, heads, -1).permute(2, 0, 3, 1, 4)  # [B, H, T, D] each
    out = attention(q, k, v, bias, dropout=0.0, fused=fused)
    return out.transpose(1, 2).reshape(rows, length, -1)


def narrow_attention(
    q: Tensor, states: Tensor, key: Tensor, value: Tensor, bias: Tensor, *, dropout: float
) -> Tensor:
    """Attention of a few queries to many states that never forms the states' keys and values.

    The key map is applied to the queries instead (q·Ks = Kᵀq·s) and the value map to the attended means. In
    exact arithmetic that is the same, and it takes H T d multiplications for each state instead of d H D: it
    pays while T < D.

    Args:
        q: queries [B, T, H, D].
        states: [B, S, d].
        key: weight of the key map [H D, d].
        value: weight of the value map [H D, d].
        bias: added to the scores; [B or 1, 1, 1, S].
        dropout: on the probabilities.

    Returns:
        [B, T, H D].
    """
    rows, count, heads, width = q.shape
    key, value = key.view(heads, width, -1), value.view(heads, width, -1)
    mapped = _to_states(q, key).flatten(1, 2)  # [B, H T, d]
    scores = torch.bmm(mapped, states.transpose(1, 2)).view(rows, heads, count, -1)
    shares = functional.dropout(tangents.softmax(scores, bias), dropout)
    means = torch.bmm(shares.flatten(1, 2), states).view(rows, heads, count, -1)
    return _to_heads(means, value).flatten(2)


def _to_states(heads: Tensor, weight: Tensor) -> Tensor:
    """[B, T, H, D] through the transposed maps of every head [H, D, d]: [B, H, T, d]."""
    return tangents.mapped(
        heads,
        lambda z: torch.einsum("bthx,hxd->bhtd", z, weight),
        lambda g: torch.einsum("bhtd,hxd->bthx", g, weight),
    )


def _to_heads(states: Tensor, weight: Tensor) -> Tensor:
    """[B, H, T, d] through the maps of every head [H, D, d]: [B, T, H, D]."""
    return tangents.mapped(
        states,
        lambda z: torch.einsum("bhtd,hxd->bthx", z, weight),
        lambda g: torch.einsum("bthx,hxd->bhtd", g, weight),
    )
