"""Small random models and batches that the numerics are checked on."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from hypothesis import settings
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration
from transformers.models.t5 import modeling_t5

from softstart.backbone import Batch, T5Backbone, collate

settings.register_profile("softstart", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("softstart")

VOCAB = 60


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Words w3 … w59 as tokens 3 … 59; no training, no files."""
    vocab = {"<pad>": 0, "</s>": 1, "<unk>": 2, **{f"w{i}": i for i in range(3, VOCAB)}}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def random_t5(
    dtype: torch.dtype = torch.float64, placement: str = "prefix", seed: int = 0, dropout: float = 0.0
) -> T5Backbone:
    """A two-layer T5 v1.1 with random weights."""
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=VOCAB, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=3, dropout_rate=dropout,
        feed_forward_proj="gated-gelu", decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCAB, 16) * 0.7)
    model.config.tie_word_embeddings = False
    return T5Backbone(model.to(dtype), word_tokenizer(), name="random-t5", placement=placement)


def random_batch(
    lengths: list[tuple[int, int, int]], seed: int = 0, dropout_seed: int | None = None
) -> Batch:
    """Random rows from (text length, output length, run) triples."""
    g = torch.Generator().manual_seed(seed)

    def ids(n: int) -> list[int]:
        return torch.randint(3, VOCAB, (n,), generator=g).tolist()

    return collate(
        [ids(s) for s, _, _ in lengths],
        [ids(t) for _, t, _ in lengths],
        [r for _, _, r in lengths],
        pad=0,
        seed=dropout_seed,
    )


@pytest.fixture
def exact_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A T5 layer norm that keeps its input's dtype: transformers' takes the variance in float32 always."""

    def forward(self: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * hidden * scale

    monkeypatch.setattr(modeling_t5.T5LayerNorm, "forward", forward)


@pytest.fixture
def t5(exact_norm: None) -> T5Backbone:
    """The float64 reference model."""
    return random_t5()


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference relative to the size of b."""
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-300))
