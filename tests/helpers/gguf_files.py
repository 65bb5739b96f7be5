"""GGUF files of small random models, written as llama.cpp's converter writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import transformers

from helpers.families import random_model
from helpers.models import VOCAB

ARCHITECTURES = {
    "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma2": "gemma2",
    "gemma3_text": "gemma3", "gpt2": "gpt2",
}  # fmt: skip
"""Family → what GGUF calls it."""


def write_gguf(
    path: Path,
    family: str = "llama",
    *,
    model: transformers.PreTrainedModel | None = None,
    further: dict[str, Any] | None = None,
    drop: str | None = None,
    surplus: str | None = None,
    quantize: bool = False,
) -> transformers.PreTrainedModel:
    """Write a random model as a GGUF file and return it.

    Args:
        path: the file.
        family: of the model.
        model: it, if not a random one of the family.
        further: metadata keys and values to add, or to put in the place of others.
        drop: leave this tensor out.
        surplus: add a tensor of this name.
        quantize: round matrices to 8 bits (Q8_0) where their rows are long enough.
    """
    import torch

    model = model or random_model(family, torch.float32)
    arch = ARCHITECTURES[family]
    writer = gguf.GGUFWriter(path, arch)
    for key, value in {**_facts(model.config, arch), **_tokenizer(arch), **(further or {})}.items():
        _add(writer, key, value)
    names = gguf.get_tensor_name_map(
        next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch), model.config.num_hidden_layers
    )
    written = set()
    for key, tensor in model.state_dict().items():
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        tied = model.config.tie_word_embeddings and name == "output.weight"
        if name is None or name in written or name == drop or tied:
            continue
        written.add(name)
        array = _as_gguf(name, tensor.numpy(), model.config, arch)
        kind = gguf.GGMLQuantizationType.Q8_0
        if quantize and array.ndim == 2 and array.shape[1] % 32 == 0:
            writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    if surplus:
        writer.add_tensor(surplus, np.ones(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    adders = {
        str: writer.add_string, int: writer.add_uint32, float: writer.add_float32, list: writer.add_array
    }  # fmt: skip
    adders[type(value)](key, value)


def _facts(config: Any, arch: str) -> dict[str, Any]:
    if arch == "gpt2":
        values = {
            "context_length": config.n_positions, "embedding_length": config.n_embd,
            "feed_forward_length": 4 * config.n_embd, "block_count": config.n_layer,
            "attention.head_count": config.n_head, "attention.layer_norm_epsilon": config.layer_norm_epsilon,
        }  # fmt: skip
    else:
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        values = {
            "context_length": config.max_position_embeddings, "embedding_length": config.hidden_size,
            "feed_forward_length": config.intermediate_size, "block_count": config.num_hidden_layers,
            "attention.head_count": config.num_attention_heads,
            "attention.head_count_kv": config.num_key_value_heads,
            "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
            "attention.key_length": head, "attention.value_length": head, "rope.dimension_count": head,
            "vocab_size": config.vocab_size,
        }  # fmt: skip
        if "sliding_window" in type(config).__annotations__ and arch.startswith("gemma"):
            values["attention.sliding_window"] = config.sliding_window
        rope = config.rope_parameters
        rope = rope.get("full_attention", rope)
        values["rope.freq_base"] = float(rope["rope_theta"])
    return {f"{arch}.{key}": value for key, value in values.items()} | {"general.file_type": 0}


def _tokenizer(arch: str) -> dict[str, Any]:
    """A vocabulary of words w0 … of ``VOCAB`` tokens: byte-level, or Gemma's kind."""
    tokens, merges = ["<pad>", "</s>", "<unk>", "w", "Ġ", *"0123456789", "Ġw"], ["Ġ w"]
    for digit in "0123456789":
        for first in ("w", "Ġw"):
            tokens.append(first + digit)
            merges.append(f"{first} {digit}")
    for i in range(VOCAB - len(tokens)):
        tokens.append(f"Ġw{1 + i // 10}{i % 10}")
        merges.append(f"Ġw{1 + i // 10} {i % 10}")
    kind = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.merges": merges}
    if arch.startswith("gemma"):
        tokens = [token.replace("Ġ", "▁") for token in tokens]
        kind = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": [-float(i) for i in range(VOCAB)]}
    return kind | {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3] + [1] * (VOCAB - 3), "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 2,
    }  # fmt: skip


def _as_gguf(name: str, array: np.ndarray, config: Any, arch: str) -> np.ndarray:
    if arch == "llama" and (".attn_q." in name or ".attn_k." in name):
        heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
        # llama.cpp rotates neighboring entries where transformers rotates halves.
        split = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
        array = split.swapaxes(1, 2).reshape(array.shape)
    if arch.startswith("gemma") and "norm.weight" in name:
        array = array + 1
    if arch == "gpt2" and name.startswith("blk.") and array.ndim == 2:
        array = array.T
    return np.ascontiguousarray(array, dtype=np.float32)
