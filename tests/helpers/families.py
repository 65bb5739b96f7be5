"""A small random model of every listed family besides T5."""

from __future__ import annotations

import pytest
import torch
import transformers

from helpers.models import VOCAB, word_tokenizer
from softstart.backbone import Backbone, CausalBackbone, Seq2SeqBackbone

TOKENS = {"vocab_size": VOCAB, "pad_token_id": 0, "eos_token_id": 1}
HEADS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
ROPE = {**TOKENS, **HEADS, "bos_token_id": 1, "intermediate_size": 24}
LLAMA = {**ROPE, "num_key_value_heads": 1}
GEMMA = {**LLAMA, "head_dim": 8}
BART = {
    **TOKENS, "bos_token_id": 2, "decoder_start_token_id": 1, "d_model": 16, "max_position_embeddings": 64,
    "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
}  # fmt: skip

CAUSAL = {
    "gpt2": lambda: transformers.GPT2Config(
        **TOKENS, bos_token_id=1, n_embd=16, n_layer=2, n_head=2, n_positions=64
    ),
    "opt": lambda: transformers.OPTConfig(
        **TOKENS, **HEADS, bos_token_id=1, ffn_dim=24, word_embed_proj_dim=12
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**ROPE),
    "llama": lambda: transformers.LlamaConfig(**LLAMA),
    "mistral": lambda: transformers.MistralConfig(**LLAMA, sliding_window=4),
    "qwen2": lambda: transformers.Qwen2Config(**LLAMA),
    "qwen3": lambda: transformers.Qwen3Config(**LLAMA, head_dim=8),
    "gemma": lambda: transformers.GemmaConfig(**GEMMA),
    "gemma2": lambda: transformers.Gemma2Config(**GEMMA, sliding_window=4),
    "gemma3_text": lambda: transformers.Gemma3TextConfig(**GEMMA, sliding_window=4),
}
SEQ2SEQ = {
    "bart": lambda: transformers.BartConfig(**BART),
    "mbart": lambda: transformers.MBartConfig(**BART, scale_embedding=True),
    "pegasus": lambda: transformers.PegasusConfig(**BART),
    "umt5": lambda: transformers.UMT5Config(
        **TOKENS, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0
    ),
    "mt5": lambda: transformers.MT5Config(
        **TOKENS, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0
    ),
}
FAMILY = {**CAUSAL, **SEQ2SEQ}
UNLISTED = {
    "bloom": lambda: transformers.BloomConfig(**TOKENS, bos_token_id=1, hidden_size=16, n_layer=2, n_head=2),
    "marian": lambda: transformers.MarianConfig(**BART),
}
BROKEN = {
    "xlnet": lambda: transformers.XLNetConfig(
        vocab_size=VOCAB, d_model=16, n_layer=2, n_head=2, d_inner=24, pad_token_id=0, bos_token_id=1,
        eos_token_id=1,
    ),
    "ctrl": lambda: transformers.CTRLConfig(
        vocab_size=VOCAB, n_embd=16, dff=24, n_layer=2, n_head=2, n_positions=64
    ),
}  # fmt: skip


def random_model(
    name: str, dtype: torch.dtype = torch.float64, **changed: object
) -> transformers.PreTrainedModel:
    """A two-layer model whose random weights are large enough for outputs to differ."""
    config = {**FAMILY, **UNLISTED, **BROKEN}[name]()
    for key, value in changed.items():
        setattr(config, key, value)
    auto = (
        transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    )
    model = auto.from_config(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2 and parameter.requires_grad:  # not sinusoids
                parameter.normal_(0, 0.4, generator=generator)
    return model.to(dtype).eval()


def random_backbone(name: str, dtype: torch.dtype = torch.float64, placement: str = "prefix") -> Backbone:
    """A backbone of the family with the tokenizer of words."""
    from softstart.backbone import FAMILIES

    kind = next((f for f in FAMILIES.values() if name in f.model_types), None)
    kind = kind or (Seq2SeqBackbone if name in ("marian",) else CausalBackbone)
    return kind(random_model(name, dtype), word_tokenizer(), name=name, placement=placement)


def exact_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every softmax in the precision of its scores, at least.

    transformers takes some in float32 in float64 models too, which hides what is exact.
    """
    softmax = torch.nn.functional.softmax

    def exact(scores: torch.Tensor, dim: int, dtype: torch.dtype | None = None, **_: object) -> torch.Tensor:
        return softmax(scores, dim, dtype=torch.promote_types(scores.dtype, dtype or scores.dtype))

    monkeypatch.setattr(torch.nn.functional, "softmax", exact)


def exact_norms(model: transformers.PreTrainedModel) -> None:
    """Give every RMS norm of a model its formula in the model's own precision, in place.

    transformers computes them in float32 in float64 models too, which hides what is exact.
    """

    def forward(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        eps = getattr(module, "variance_epsilon", None) or module.eps
        weight = module.weight + 1.0 if type(module).__name__.startswith("Gemma") else module.weight
        return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight

    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = forward.__get__(module)
