"""The architecture: a T5 v1.1 with untied embeddings, and a start that lets attention match equal words."""

from __future__ import annotations

import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

#: Width, feed-forward width, heads, layers of each stack.
SHAPE = {"d_model": 128, "d_ff": 384, "num_heads": 4, "d_kv": 32, "num_layers": 3}


def build_model(
    vocab_size: int, seed: int, *, match_content: bool = True, **shape: int
) -> T5ForConditionalGeneration:
    """A fresh model. Embedding and head are two tensors, and stay two when the model is saved and loaded.

    transformers 5 ties the two whatever the config says, unless they differ in the checkpoint, so they are
    untied here, after construction. ``tie_word_embeddings=False`` is written to the config because loading
    reads it to decide whether to scale the decoder's output (T5 v1.1 does not).
    """
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=vocab_size,
        feed_forward_proj="gated-gelu_pytorch_tanh",  # the function of "gated-gelu", computed in one kernel
        dropout_rate=0.0,
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
        **{**SHAPE, **shape},
    )
    model = T5ForConditionalGeneration(config)
    nn.init.normal_(model.shared.weight, std=1.0)
    model.lm_head.weight = nn.Parameter(torch.randn_like(model.shared.weight) * 0.05)
    model.config.tie_word_embeddings = False
    if match_content:
        _match_content(model)
    return model


@torch.no_grad()
def _match_content(model: T5ForConditionalGeneration) -> None:
    """Start half of the encoder's heads as "find the same word", the others as "look at neighbors".

    With query and key equal to one random projection, equal words attract each other; the bias at distance
    zero keeps a word from finding itself. Without this start, yes/no documents stay at chance for very long.
    """
    heads, width = model.config.num_heads, model.config.d_kv
    matching = heads // 2
    for block in model.encoder.block:
        attention = block.layer[0].SelfAttention
        shared = torch.randn(matching * width, model.config.d_model) * 0.04
        attention.q.weight[: matching * width] = shared
        attention.k.weight[: matching * width] = shared
    bias = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    half = model.config.relative_attention_num_buckets // 2
    bias[0, :matching] = -8.0
    bias[[0, 1, 2, half + 1, half + 2], matching:] += 3.0
