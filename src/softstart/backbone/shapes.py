"""Published shapes of T5, to plan work on checkpoints whose files are not on this machine."""

from __future__ import annotations

from typing import Any

import torch

T5_V1_1 = {
    "small": (512, 1024, 8, 6),
    "base": (768, 2048, 12, 12),
    "large": (1024, 2816, 24, 16),
    "xl": (2048, 5120, 24, 32),
    "xxl": (4096, 10240, 24, 64),
}
"""Size → width, feed-forward width, layers of each stack, heads. A head is 64 wide."""


def t5_config(size: str) -> Any:
    """The transformers configuration of a T5 v1.1 of this size."""
    from transformers import T5Config

    width, inner, layers, heads = T5_V1_1[size]
    config = T5Config(
        vocab_size=32128, d_model=width, d_ff=inner, d_kv=64, num_layers=layers, num_heads=heads,
        feed_forward_proj="gated-gelu", decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
        tie_word_embeddings=False,
    )  # fmt: skip
    return config


def untie(model: Any) -> Any:
    """Give a model without weights a separate output layer, as checkpoints of T5 v1.1 have it.

    In a model made from its configuration, transformers 5 ties the output layer to the embedding.
    """
    if str(getattr(model.config, "feed_forward_proj", "")).startswith("gated"):
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight), requires_grad=False)
    return model


def published(name: str) -> Any | None:
    """The configuration of a T5 v1.1, LM-adapted or Flan checkpoint of the hub; None for any other name."""
    tail = name.rpartition("/")[2].replace("_", "-")
    for size in T5_V1_1:
        if tail in (f"t5-v1-1-{size}", f"t5-{size}-lm-adapt", f"flan-t5-{size}"):
            return t5_config(size)
    return None
