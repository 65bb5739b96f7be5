"""Kernels that carry tangents, for exact Hessian-vector products without a second backward pass.

The Hessian is symmetric, so H v is the gradient of the loss's derivative along v. Forward-mode
differentiation gives that derivative: every tensor of a forward pass carries its tangent, the derivative
along v, and one backward pass through values and tangents gives H v. Most operations carry tangents by
torch's own rules. The kernels here have closed forms that torch compiles: a value and its tangent then cost
one pass over memory. They are also those whose own rules fail when they are differentiated in turn (torch
2.13): a layer norm's tangent lacks a part of its gradient, and softmax and cross-entropy refuse.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from softstart.backbone import compiling
from softstart.backbone.compiling import of_any_size

_SQRT = math.sqrt(2 / math.pi)
_CUBIC = 0.044715

_carried = False


@contextlib.contextmanager
def carried() -> Iterator[None]:
    """Let tensors made by ``forward_ad.make_dual`` carry their tangents through the kernels here."""
    global _carried
    before, _carried = _carried, True
    try:
        with forward_ad.dual_level():
            yield
    finally:
        _carried = before


def gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], slopes: Sequence[Tensor] | None = None
) -> tuple[Tensor, ...]:
    """As ``torch.autograd.grad``, of values and tangents.

    What the forward pass saved carries tangents: a backward pass that saw them would carry them, too.
    """
    with forward_ad._set_fwd_grad_enabled(False):
        return torch.autograd.grad(outputs, inputs, slopes)


def carrying() -> bool:
    """Whether tensors may carry tangents now."""
    return _carried


def mapped(x: Tensor, forth: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
    """A linear map of x that has no tangent of its own, given with its transpose: ``forth(x)``.

    torch would carry a tangent of zeros for what the map holds, which is slow on a CPU.
    """
    if not _carried:
        return forth(x)
    value: Tensor = _Map.apply(x, forth, back)
    return value


class _Map(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, forth: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.forth, ctx.back = forth, back
        return forth(forward_ad.unpack_dual(x).primal)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(gradients[0]), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        value: Tensor = ctx.forth(tangents[0])
        return value


def times(x: Tensor, factor: float) -> Tensor:
    """x times a number."""
    return mapped(x, lambda z: z * factor, lambda g: g * factor)


def product(x: Tensor, matrix: Tensor) -> Tensor:
    """x @ matrix, whether or not the matrix carries a tangent."""
    if not _carried or forward_ad.unpack_dual(matrix).tangent is not None:
        return x @ matrix
    return mapped(x, lambda z: z @ matrix, lambda g: g @ matrix.transpose(-2, -1))


def plus(x: Tensor, constant: Tensor) -> Tensor:
    """x plus what is broadcast to its shape and carries no tangent."""
    if not _carried:
        return x + constant
    value: Tensor = _Plus.apply(x, constant)
    return value


class _Plus(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, constant: Tensor) -> Tensor:
        return x + constant

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return tangents[0].view_as(tangents[0])


def constant(x: Tensor) -> Tensor:
    """A tensor whose tangent is zero, for operations of others: a dense one is faster than torch's own."""
    if not _carried:
        return x
    dual: Tensor = forward_ad.make_dual(x, torch.zeros_like(x))
    return dual


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) times the weights [d], over the last axis; statistics in float32 at least."""
    pair = _pair(x.flatten(0, -2)) if _carried else None
    if pair is None:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt()).to(x.dtype) * weight
    of_any_size(*((part, 0) for part in pair))
    return _dual(_rms_norm, *pair, weight, eps).view(x.shape)


def _rms_norm(x: Tensor, moved: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    kind = torch.promote_types(x.dtype, torch.float32)
    value, tangent = _scaled(x.to(kind), moved.to(kind), eps)
    return value.to(x.dtype) * weight, tangent.to(x.dtype) * weight


def _scaled(wide: Tensor, along: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Rows [n, d] divided by their root mean square, with the tangent."""
    scale = (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
    shrink = scale.square() * (wide * along).mean(-1, keepdim=True)
    return wide * scale, (along - wide * shrink) * scale


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """As ``functional.layer_norm`` over the last axis, whose own tangents lack a part of their gradient."""
    pair = _pair(x.flatten(0, -2)) if _carried else None
    if pair is None:
        return functional.layer_norm(x, weight.shape, weight, bias, eps)
    of_any_size(*((part, 0) for part in pair))
    return _dual(_layer_norm, *pair, weight, bias, eps).view(x.shape)


def _layer_norm(x: Tensor, moved: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    kind = torch.promote_types(x.dtype, torch.float32)
    wide, along = x.to(kind), moved.to(kind)
    value, tangent = _scaled(wide - wide.mean(-1, keepdim=True), along - along.mean(-1, keepdim=True), eps)
    return (value * weight + bias).to(x.dtype), (tangent * weight).to(x.dtype)


def gated(a: Tensor, b: Tensor, activation: str) -> Tensor:
    """An activation of a, times b; ``activation`` is a name of ``ACTIVATIONS``."""
    pairs = (_pair(a.flatten(0, -2)), _pair(b.flatten(0, -2))) if _carried else (None, None)
    if pairs[0] is None or pairs[1] is None:
        return ACTIVATIONS[activation](a) * b
    parts = (*pairs[0], *pairs[1])
    of_any_size(*((part, 0) for part in parts))
    return _dual(_gated, *parts, activation).view(a.shape)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu_tanh": lambda a: functional.gelu(a, approximate="tanh"),
    "gelu": functional.gelu,
}
"""Activations of gated feed-forward layers."""


def _gated(a: Tensor, da: Tensor, b: Tensor, db: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    if activation == "silu":
        share = torch.sigmoid(a)
        value = a * share
        slope = share + value * (1 - share)
    elif activation == "gelu_tanh":
        tanh = torch.tanh(_SQRT * (a + _CUBIC * a * a * a))
        value = 0.5 * a * (1 + tanh)
        slope = 0.5 * (1 + tanh) + 0.5 * a * (1 - tanh * tanh) * _SQRT * (1 + 3 * _CUBIC * a * a)
    else:
        share = 0.5 * (1 + torch.erf(a / math.sqrt(2)))
        value = a * share
        slope = share + a * torch.exp(-0.5 * a * a) / math.sqrt(2 * math.pi)
    return value * b, slope * da * b + value * db


def softmax(scores: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(scores + bias) over the last axis, in float32 at least; [B, H, T, S] where there is a bias."""
    shape = scores.shape
    pair = _pair(scores.flatten(0, -2) if bias is None else scores) if _carried else None
    if pair is None:
        wide = torch.promote_types(scores.dtype, torch.float32)
        return torch.softmax(scores if bias is None else scores + bias, -1, dtype=wide).to(scores.dtype)
    if bias is None:
        of_any_size(*((part, 0, 1) for part in pair))
        return _dual(_softmax, *pair).view(shape)
    of_any_size(*((part, 0, 2, 3) for part in (*pair, bias)))
    return _dual(_softmax, *pair, bias)


def _softmax(scores: Tensor, moved: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    kind = torch.promote_types(scores.dtype, torch.float32)
    shares = torch.softmax(scores if bias is None else scores + bias, -1, dtype=kind)
    along = shares * moved.to(kind)
    return shares.to(scores.dtype), (along - shares * along.sum(-1, keepdim=True)).to(scores.dtype)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The negative log-likelihood of each label [n] under logits [n, V]; 0 where a label is negative."""
    pair = _pair(logits) if _carried else None
    if pair is None:
        return functional.cross_entropy(logits, labels, reduction="none")
    of_any_size(*((part, 0) for part in (*pair, labels)))
    return _dual(_cross_entropy, *pair, labels)


def _cross_entropy(logits: Tensor, moved: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    total = torch.logsumexp(logits, -1)
    given, at = labels >= 0, labels.clamp_min(0)[:, None]
    value = total - logits.gather(1, at).squeeze(1)
    mean = (torch.exp(logits - total[:, None]) * moved).sum(-1)
    tangent = mean - moved.gather(1, at).squeeze(1)
    return value.where(given, 0.0), tangent.where(given, 0.0)


def _pair(x: Tensor) -> tuple[Tensor, Tensor] | None:
    """A tensor and its tangent, as compiled kernels take them; None: it carries none."""
    value, tangent = forward_ad.unpack_dual(x)
    if tangent is None:
        return None
    return _NoView.apply(value), _NoView.apply(tangent)


class _NoView(torch.autograd.Function):
    """The same numbers in the same memory, but no view: a kernel is compiled anew for each kind of view."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        same: Tensor = x.new_empty(0).set_(x)  # type: ignore[call-overload]
        return same

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def _dual(function: Callable[..., tuple[Tensor, Tensor]], *arguments: Any) -> Tensor:
    value, tangent = compiling.compiled(function, compiling.BACKEND)(*arguments)
    dual: Tensor = forward_ad.make_dual(value, tangent)
    return dual
