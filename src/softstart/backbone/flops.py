"""Model FLOPs by formula: two for each multiplication of the published architecture, softmax and norms free.

Every family is counted by one walk through its modules: a matrix of weights acts on tokens of the text, on
output tokens or on both, and attention multiplies every query with every key. What a faster implementation
saves (padding, what is read once, keys of short outputs) is not subtracted, so that achieved FLOP/s compare
machines on the same work. Within 3 % the counts are those of torch's ``FlopCounterMode`` on transformers'
passes (``tests/backbone/test_flops.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Flops:
    """FLOPs of one forward pass: products with weights, and products of activations with each other."""

    linear: float = 0.0
    attention: float = 0.0

    @property
    def forward(self) -> float:
        """A forward pass."""
        return self.linear + self.attention

    @property
    def gradient(self) -> float:
        """Forward and backward through the activations alone: the weights are frozen."""
        return 2 * self.linear + 3 * self.attention

    @property
    def full_gradient(self) -> float:
        """Forward and backward with the gradient of every weight (fine-tuning)."""
        return 3 * self.forward

    @property
    def hvp(self) -> float:
        """A Hessian-vector product by double backward, the gradient it differentiates included."""
        return 4 * self.linear + 9 * self.attention

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.linear + other.linear, self.attention + other.attention)


@dataclass(frozen=True)
class Multiplications:
    """Multiplications of a model, from which the FLOPs of rows of any length follow.

    Where outputs continue their texts in one sequence, ``text`` acts on all its tokens and the last two
    numbers are 0; otherwise the model has an encoder and a decoder.
    """

    text: float
    """Weights that act on a token of the text; in a decoder those that make keys and values of it."""
    output: float
    """Weights that act on an output token besides, the head's included."""
    attention: float
    """Sum over the layers that read the text of their heads times the entries of a head."""
    decoder_attention: float = 0.0
    """The same of a decoder's layers, each with attention to outputs and to the text."""
    decoder: bool = False
    """Whether outputs have a decoder of their own."""

    def row(self, text: float, output: float, before: float = 0) -> Flops:
        """A forward pass of one row, or of a mean one.

        Args:
            text: tokens of the text, prompt included.
            output: label tokens.
            before: tokens that were read by an earlier pass and that the row attends to (causal models).
        """
        if self.decoder:
            linear = self.text * text + self.output * output
            scores = self.attention * text**2 + self.decoder_attention * (output**2 + output * text)
        else:
            linear = self.text * (text + output) + self.output * output
            scores = self.attention * (text + output) * (before + text + output)
        return Flops(2.0 * linear, 4.0 * scores)


def multiplications_of(model: Any) -> Multiplications:
    """Count the multiplications of a transformers model; its weights may be on the meta device.

    A mixture of experts is counted as if a token used all experts that are modules of their own, and none of
    those whose weights are one tensor.
    """
    config = model.config
    table = model.get_output_embeddings() or model.get_input_embeddings()
    head, inner, layers = _size(table), _heads(config), config.num_hidden_layers
    if not config.is_encoder_decoder:
        body = sum(size for _, size in _matrices(model, table))
        return Multiplications(body, head, layers * inner)
    encoder, decoder = model.get_encoder(), model.get_decoder()
    read, written = sum(size for _, size in _matrices(encoder, table)), head
    for name, size in _matrices(decoder, table):
        *_, part, matrix = name.split(".") if "." in name else ("", name)
        if part in _ACROSS and matrix in _KEYS_AND_VALUES:
            read += size
        else:
            written += size
    deep = getattr(config, "num_decoder_layers", None) or getattr(config, "decoder_layers", None) or layers
    return Multiplications(read, written, layers * inner, deep * inner, decoder=True)


def _heads(config: Any) -> int:
    """Heads of a layer times the entries of each; 0 for a model without attention."""
    heads = getattr(config, "num_attention_heads", None)
    width = getattr(config, "d_kv", None) or getattr(config, "head_dim", None)
    return int(heads * (width or config.hidden_size // heads)) if heads else 0


_ACROSS = ("EncDecAttention", "encoder_attn", "cross_attn", "crossattention")
_KEYS_AND_VALUES = ("k", "v", "k_proj", "v_proj", "key", "value")


def _matrices(model: nn.Module, head: nn.Module) -> Iterator[tuple[str, int]]:
    """Every matrix of weights that tokens are multiplied with, by name, but embeddings and the head."""
    for name, module in model.named_modules():
        if module is head or isinstance(module, nn.Embedding):
            continue
        if size := _size(module):
            yield name, size


def _size(module: Any) -> int:
    """The multiplications of a token with a module's own matrix; 0 if it has none."""
    # The weight of a quantized layer is packed; its sizes are not.
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return int(module.in_features) * int(module.out_features)
    weight = getattr(module, "weight", None)
    return int(weight.numel()) if isinstance(weight, nn.Parameter) and weight.ndim == 2 else 0
