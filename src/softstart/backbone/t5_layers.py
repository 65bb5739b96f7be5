"""T5's forward pass and greedy decoding on the weights of a transformers model, with little overhead.

The numbers are those of transformers' modules up to rounding (tests: float64, with and without dropout, every
kind of feed-forward), from fewer and faster kernels: products by ``kernels.linear``, joined query/key/value
and gate maps, one attention bias for all layers, no padding in the encoder (on a CPU, without dropout), no
keys and values for short outputs, and finished rows leave the batch. A stack is transformers' ``T5Stack``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from softstart.backbone import kernels, tangents
from softstart.backbone.batch import IGNORE
from softstart.backbone.unpadded import Unpadded

TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh")
"""transformers' names for GELU in its tanh form."""


@dataclass(frozen=True)
class Pass:
    """Settings of one forward pass."""

    dropout: float = 0.0
    """The probability of dropout."""
    twice: bool = False
    """Whether the result can be differentiated twice."""
    activation: str = ""
    """transformers' name of the activation in gated feed-forward layers."""

    def drop(self, x: Tensor) -> Tensor:
        """Dropout."""
        return functional.dropout(x, self.dropout) if self.dropout else x

    def norm(self, module: Any, x: Tensor) -> Tensor:
        """The layer norm of a transformers module."""
        return kernels.rms_norm(x, module.weight, module.variance_epsilon, twice=self.twice)


def unpadded(mask: Tensor) -> Unpadded | None:
    """The layout of an encoder's rows without padding; None on a GPU, where attention in small groups is
    slower than padding.
    """
    return Unpadded.of(mask) if mask.device.type == "cpu" else None


def encode(stack: Any, embeds: Tensor, mask: Tensor, bias: Tensor, settings: Pass) -> Tensor:
    """Encoder output [B, S, d] of embeddings [B, S, d].

    Args:
        stack: the encoder.
        embeds: text and prompt.
        mask: [B, S], 1 on text and prompt.
        bias: position bias [1, H, S, S].
        settings: dropout and differentiability.
    """
    layout = None if settings.dropout else unpadded(mask)  # transformers draws masks for padding too
    if layout is not None:
        x = layout.pack(embeds)
    else:
        x = settings.drop(embeds)
        if not bool(mask.all()):
            bias = bias + closed_bias(mask, bias.dtype)
    for block in stack.block:
        x, _ = _self_attention(block.layer[0], x, bias, settings, layout=layout)
        x = _feed_forward(block.layer[-1], x, settings)
    x = settings.drop(settings.norm(stack.final_layer_norm, x))
    return x if layout is None else layout.unpack(x)


def decode(stack: Any, ids: Tensor, states: Tensor, mask: Tensor, bias: Tensor, settings: Pass) -> Tensor:
    """Decoder output [B, T, d] for output tokens [B, T] by teacher forcing.

    Args:
        stack: the decoder.
        ids: decoder input ids.
        states: encoder output [B, S, d].
        mask: [B, S], 1 on text and prompt.
        bias: position bias [1, H, T, T], closed to later positions.
        settings: dropout and differentiability.
    """
    x = settings.drop(stack.embed_tokens(ids))
    closed = closed_bias(mask, states.dtype)
    for block in stack.block:
        x, _ = _self_attention(block.layer[0], x, bias, settings)
        x = _cross_attention(block.layer[1], x, states, closed, settings)
        x = _feed_forward(block.layer[-1], x, settings)
    return settings.drop(settings.norm(stack.final_layer_norm, x))


def position_bias(stack: Any, length: int) -> Tensor:
    """The position bias of a stack [1, H, length, length]; a decoder's is closed to later positions."""
    bias: Tensor = stack.block[0].layer[0].SelfAttention.compute_bias(length, length)
    if stack.is_decoder:
        later = torch.ones(length, length, dtype=torch.bool, device=bias.device).triu(1)
        bias = bias.masked_fill(later, torch.finfo(bias.dtype).min)
    return bias.contiguous()


def lay_out(model: Any) -> None:
    """Move weights that are read together next to each other in memory."""
    for stack in (model.encoder, model.decoder):
        for block in stack.block:
            attention, dense = block.layer[0].SelfAttention, block.layer[-1].DenseReluDense
            kernels.lay_out(attention.q, attention.k, attention.v)
            if hasattr(dense, "wi_0"):
                kernels.lay_out(dense.wi_0, dense.wi_1)


@dataclass
class _Search:
    """State of greedy decoding for the rows that are still decoded together."""

    rows: Tensor
    """[b]: their indices in the batch."""
    going: Tensor
    """[b]: whether they have not ended yet."""
    states: Tensor
    """[b, S, d]: encoder output."""
    closed: Tensor
    """[b, 1, 1, S]: the bias that hides padding."""
    past: list[tuple[Tensor, Tensor] | None]
    """Keys and values of the tokens so far, for each layer."""

    def keep(self, which: Tensor) -> None:
        """Drop all but the given rows."""
        self.rows, self.going = self.rows[which], self.going[which]
        self.states, self.closed = self.states[which], self.closed[which]
        self.past = [kv and (kv[0][which], kv[1][which]) for kv in self.past]


@torch.no_grad()
def greedy(
    model: Any, states: Tensor, mask: Tensor, bias: Tensor, *, max_new_tokens: int, penalty: float
) -> Tensor:
    """Greedy decoding, as transformers' ``generate`` without beams.

    Args:
        model: the T5 model; its configuration names the start, end and padding tokens.
        states: encoder output [B, S, d].
        mask: [B, S].
        bias: position bias of the decoder, at least ``max_new_tokens`` long.
        max_new_tokens: bound on the output.
        penalty: repetition penalty; 1.0 for none.

    Returns:
        Token ids [B, 1 + longest output], each row from the start token to its end token, then padding.
    """
    config, stack = model.generation_config, model.decoder
    settings = Pass(activation=model.config.dense_act_fn)
    batch = len(states)
    ids = states.new_full((batch, 1 + max_new_tokens), config.pad_token_id, dtype=torch.long)
    ids[:, 0] = config.decoder_start_token_id
    rows = torch.arange(batch, device=ids.device)
    closed = closed_bias(mask, states.dtype)
    search = _Search(rows, torch.ones_like(rows, dtype=torch.bool), states, closed, [None] * len(stack.block))
    length = 1
    for step in range(max_new_tokens):
        x = stack.embed_tokens(ids[search.rows, step : step + 1])
        now = bias[:, :, step : step + 1, : step + 1]
        for i, block in enumerate(stack.block):
            x, search.past[i] = _self_attention(block.layer[0], x, now, settings, search.past[i])
            x = _cross_attention(block.layer[1], x, search.states, search.closed, settings)
            x = _feed_forward(block.layer[-1], x, settings)
        logits = head(model, settings.norm(stack.final_layer_norm, x)[:, 0]).float()
        if penalty != 1.0:
            seen = ids[search.rows, : step + 1]
            scores = logits.gather(1, seen)
            logits.scatter_(1, seen, torch.where(scores < 0, scores * penalty, scores / penalty))
        chosen = logits.argmax(1).where(search.going, config.pad_token_id)
        ids[search.rows, step + 1] = chosen
        length = step + 2
        search.going = search.going & (chosen != config.eos_token_id)
        left = int(search.going.sum())
        if left == 0:
            break
        # Dropping finished rows copies the others' keys and values: it pays once a quarter has finished.
        if left < 0.75 * len(chosen):
            search.keep(search.going.nonzero().squeeze(1))
    return ids[:, :length]


def head(model: Any, hidden: Tensor) -> Tensor:
    """Logits [..., V] of decoder output [..., d]."""
    if getattr(model.config, "scale_decoder_outputs", False):
        hidden = hidden * model.config.d_model**-0.5
    return kernels.linear(hidden, model.lm_head.weight)


def label_losses(model: Any, hidden: Tensor, labels: Tensor) -> Tensor:
    """NLL of the labels [B, T] summed over each row [B], from decoder output [B, T, d].

    Only the positions of labels go through the head.
    """
    places = (labels != IGNORE).flatten().nonzero().squeeze(1)  # row * T + position
    logits = head(model, hidden.flatten(0, 1).index_select(0, places))
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = tangents.cross_entropy(logits, labels.flatten()[places])
    sums = torch.zeros(len(labels), dtype=losses.dtype, device=losses.device)
    return sums.index_add(0, places // labels.shape[1], losses)


def _self_attention(
    layer: Any,
    x: Tensor,
    bias: Tensor,
    settings: Pass,
    past: tuple[Tensor, Tensor] | None = None,
    layout: Unpadded | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    module = layer.SelfAttention
    rows, length, _ = x.shape
    weight = kernels.joined(module.q, module.k, module.v)
    qkv = kernels.linear(settings.norm(layer.layer_norm, x), weight)
    if layout is not None:
        out = layout.attention(qkv, module.n_heads, bias, fused=not settings.twice)
        return x + kernels.linear(out, module.o.weight), None
    q, k, v = qkv.view(rows, length, 3, module.n_heads, -1).permute(2, 0, 3, 1, 4)  # [B, H, S, D] each
    if past is not None:
        k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
    out = kernels.attention(q, k, v, bias, dropout=settings.dropout, fused=not settings.twice)
    out = kernels.linear(out.transpose(1, 2).reshape(rows, length, -1), module.o.weight)
    return x + settings.drop(out), (k, v)


def _cross_attention(layer: Any, x: Tensor, states: Tensor, closed: Tensor, settings: Pass) -> Tensor:
    module = layer.EncDecAttention
    rows, length, _ = x.shape
    shape = (rows, -1, module.n_heads, module.key_value_proj_dim)
    q = kernels.linear(settings.norm(layer.layer_norm, x), module.q.weight).view(shape)
    if length < module.key_value_proj_dim:
        out = kernels.narrow_attention(
            q, states, module.k.weight, module.v.weight, closed, dropout=settings.dropout
        )
    else:
        k, v = (kernels.linear(states, w.weight).view(shape).transpose(1, 2) for w in (module.k, module.v))
        bias = closed.expand(-1, -1, length, -1)
        out = kernels.attention(
            q.transpose(1, 2), k, v, bias, dropout=settings.dropout, fused=not settings.twice
        )
        out = out.transpose(1, 2).reshape(rows, length, -1)
    return x + settings.drop(kernels.linear(out, module.o.weight))


def _feed_forward(layer: Any, x: Tensor, settings: Pass) -> Tensor:
    dense, h = layer.DenseReluDense, settings.norm(layer.layer_norm, x)
    if not hasattr(dense, "wi_0"):
        h = dense.act(kernels.linear(h, dense.wi.weight))
    elif settings.activation in TANH_GELU:
        h = kernels.gated_gelu(
            kernels.linear(h, kernels.joined(dense.wi_0, dense.wi_1)), twice=settings.twice
        )
    else:
        h = dense.act(kernels.linear(h, dense.wi_0.weight)) * kernels.linear(h, dense.wi_1.weight)
    return x + settings.drop(kernels.linear(settings.drop(h), dense.wo.weight))


def closed_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A bias [B, 1, 1, S] that hides padding: 0 where the mask is 1, else the lowest number."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(
        mask == 0, torch.finfo(dtype).min
    )[:, None, None]
