"""Layers of T5 v1.1 compiled by torch, for first-order passes in which small kernels cost much, as on a GPU.

The arithmetic of ``t5_layers`` in functions of tensors only, so that one compiled layer serves a whole stack
with any number of rows of any length (compiled once for rows with padding, once for rows without, once more
where a size is one). On a CPU padding is left out, and the parts before and after attention are compiled.
Compiled layers are for training only: they cannot be differentiated twice (for that, see ``tangents``), have
no dropout, and repay their seconds of compilation over many steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from softstart.backbone import compiling, kernels, t5_layers
from softstart.backbone.compiling import compiled, of_any_size
from softstart.backbone.t5_layers import Pass
from softstart.backbone.unpadded import Unpadded
from softstart.errors import SoftstartError


def refuse(model: Any) -> None:
    """Refuse a model that has other layers than those compiled here, by a SoftstartError."""
    dense = model.encoder.block[0].layer[-1].DenseReluDense
    if not hasattr(dense, "wi_0") or model.config.dense_act_fn not in t5_layers.TANH_GELU:
        raise SoftstartError(
            "only T5 v1.1 and mT5, whose feed-forward layers are gated, can be compiled",
            fix="Leave compile out.",
        )


def serves(settings: Pass) -> bool:
    """Whether the compiled layers can do this pass."""
    return torch.is_grad_enabled() and not settings.twice and not settings.dropout


def encode(stack: Any, embeds: Tensor, mask: Tensor, bias: Tensor, settings: Pass) -> Tensor:
    """As ``t5_layers.encode``."""
    layout = t5_layers.unpadded(mask)
    if layout is not None:
        x = _encode_unpadded(stack, layout.pack(embeds), bias, layout)
        return layout.unpack(settings.norm(stack.final_layer_norm, x))
    layer, x = compiled(_encoder_layer, compiling.BACKEND), embeds
    if not bool(mask.all()):
        bias = bias + t5_layers.closed_bias(mask, bias.dtype)
    bias = bias.expand(len(x), -1, -1, -1)
    of_any_size((bias, 0, 2, 3))
    for block in stack.block:
        weights = (*_self_weights(block.layer[0]), *_dense_weights(block.layer[-1]))
        of_any_size((x, 0, 1))
        x = layer(x, bias, *weights, *_heads_and_eps(block))
    return settings.norm(stack.final_layer_norm, x)


def _encode_unpadded(stack: Any, x: Tensor, bias: Tensor, layout: Unpadded) -> Tensor:
    before, after = (
        compiled(_before_attention, compiling.BACKEND),
        compiled(_after_attention, compiling.BACKEND),
    )
    for block in stack.block:
        norm, joined, out = _self_weights(block.layer[0])
        heads, eps = _heads_and_eps(block)
        of_any_size((x, 1))
        attended = layout.attention(before(x, norm, joined, eps), heads, bias, fused=True)
        of_any_size((attended, 1))
        x = after(x, attended, out, *_dense_weights(block.layer[-1]), eps)
    return x


def decode(stack: Any, ids: Tensor, states: Tensor, mask: Tensor, bias: Tensor, settings: Pass) -> Tensor:
    """As ``t5_layers.decode``, which also takes the outputs that are longer than a head is wide."""
    if ids.shape[1] >= stack.block[0].layer[1].EncDecAttention.key_value_proj_dim:
        return t5_layers.decode(stack, ids, states, mask, bias, settings)
    layer = compiled(_decoder_layer, compiling.BACKEND)
    # With a gradient, as the input of all later layers has one: else the first would be compiled separately.
    x = stack.embed_tokens(ids).detach().requires_grad_()
    closed = t5_layers.closed_bias(mask, states.dtype)
    of_any_size((bias, 2, 3), (states, 0, 1), (closed, 0, 3))
    for block in stack.block:
        across = block.layer[1].EncDecAttention
        weights = (
            *_self_weights(block.layer[0]),
            block.layer[1].layer_norm.weight,
            *(m.weight for m in (across.q, across.k, across.v, across.o)),
            *_dense_weights(block.layer[-1]),
        )
        of_any_size((x, 0, 1))
        x = layer(x, bias, states, closed, *weights, *_heads_and_eps(block))
    return settings.norm(stack.final_layer_norm, x)


def _encoder_layer(
    x: Tensor, bias: Tensor, n1: Tensor, qkv: Tensor, o: Tensor, n2: Tensor, wi: Tensor, wo: Tensor,
    heads: int, eps: float,
) -> Tensor:  # fmt: skip
    attended = kernels.self_attention(_before_attention(x, n1, qkv, eps), heads, bias, fused=True)
    return _after_attention(x, attended, o, n2, wi, wo, eps)


def _before_attention(x: Tensor, norm: Tensor, qkv: Tensor, eps: float) -> Tensor:
    return functional.linear(kernels.rms_norm(x, norm, eps, twice=True), qkv)


def _after_attention(
    x: Tensor, attended: Tensor, o: Tensor, norm: Tensor, wi: Tensor, wo: Tensor, eps: float
) -> Tensor:
    x = x + functional.linear(attended, o)
    return x + _feed_forward(kernels.rms_norm(x, norm, eps, twice=True), wi, wo)


def _decoder_layer(
    x: Tensor, bias: Tensor, states: Tensor, closed: Tensor, n1: Tensor, qkv: Tensor, o: Tensor,
    n2: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, n3: Tensor, wi: Tensor, wo: Tensor,
    heads: int, eps: float,
) -> Tensor:  # fmt: skip
    attended = kernels.self_attention(_before_attention(x, n1, qkv, eps), heads, bias, fused=True)
    x = x + functional.linear(attended, o)
    queries = functional.linear(kernels.rms_norm(x, n2, eps, twice=True), q)
    queries = queries.view(len(x), x.shape[1], heads, -1)
    x = x + functional.linear(kernels.narrow_attention(queries, states, k, v, closed, dropout=0.0), out)
    return x + _feed_forward(kernels.rms_norm(x, n3, eps, twice=True), wi, wo)


def _feed_forward(x: Tensor, wi: Tensor, wo: Tensor) -> Tensor:
    return functional.linear(kernels.gated_gelu(functional.linear(x, wi), twice=True), wo)


def _self_weights(layer: Any) -> tuple[Tensor, Tensor, Tensor]:
    m = layer.SelfAttention
    return layer.layer_norm.weight, kernels.joined(m.q, m.k, m.v), m.o.weight


def _dense_weights(layer: Any) -> tuple[Tensor, Tensor, Tensor]:
    m = layer.DenseReluDense
    return layer.layer_norm.weight, kernels.joined(m.wi_0, m.wi_1), m.wo.weight


def _heads_and_eps(block: Any) -> tuple[int, float]:
    return block.layer[0].SelfAttention.n_heads, block.layer[0].layer_norm.variance_epsilon
