"""Model FLOPs by formula: two for each multiplication of the published architecture, softmax and norms free.

What a faster implementation saves (padding, keys of short outputs) is not subtracted, so that achieved FLOP/s
compare machines on the same work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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


def t5_flops(config: Any, text: int, output: int) -> Flops:
    """One row through T5.

    Args:
        config: its transformers configuration.
        text: encoder length S, prompt included.
        output: label tokens T.
    """
    d, inner = config.d_model, config.num_heads * config.d_kv
    maps = (3 if config.is_gated_act else 2) * d * config.d_ff
    encoder = config.num_layers * text * (4 * d * inner + maps)
    decoder = config.num_decoder_layers * (output * (6 * d * inner + maps) + text * 2 * d * inner)
    scores = config.num_layers * text**2 + config.num_decoder_layers * (output**2 + output * text)
    return Flops(2.0 * (encoder + decoder + output * d * config.vocab_size), 4.0 * inner * scores)
