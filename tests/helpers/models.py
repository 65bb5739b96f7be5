"""Small random models, prompts and batches that the numerics are checked on."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from softstart.backbone import Batch, T5Backbone, collate
from softstart.gym.task import Example, Sample, Task
from softstart.training.encoding import EncodedTask, TextFormat, encode_task

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


def prompts(
    backbone: T5Backbone, runs: int = 4, length: int = 3, scale: float = 1.0, seed: int = 1
) -> torch.Tensor:
    """A random stack [R, P, d]."""
    g = torch.Generator().manual_seed(seed)
    stack = torch.randn(runs, length, backbone.width, generator=g, dtype=backbone.prompt_dtype)
    return stack * scale


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference relative to the size of b."""
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-300))


def toy_task(name: str, labels: tuple[str, ...] = ("w3", "w4"), rows: int = 8, seed: int = 0) -> Task:
    """A classification task on words: the first word decides the label."""
    g = torch.Generator().manual_seed(seed)

    def example(i: int) -> Example:
        label = i % len(labels)
        words = torch.randint(10, VOCAB, (int(torch.randint(2, 9, (1,), generator=g)),), generator=g)
        first = 10 + 20 * label + int(words[0]) % 20
        return Example(" ".join(f"w{w}" for w in [first, *words.tolist()]), (labels[label],))

    samples = {
        s: Sample(s, tuple(map(example, range(rows))), tuple(map(example, range(rows)))) for s in (13, 21)
    }
    return Task(name, "classification", "ACC", "classification/toy", samples, tuple(map(example, range(12))))


PLAIN = TextFormat(template="{input}")


def reads_with(tokenizer, continues_input: bool = False) -> SimpleNamespace:
    """What encoding needs of a backbone, without a model."""
    table = SimpleNamespace(weight=torch.empty(len(tokenizer), 0))
    return SimpleNamespace(
        name="words", tokenizer=tokenizer, continues_input=continues_input, embedding=table
    )


def toy_encoded(backbone: T5Backbone, name: str = "toy", seed: int = 0) -> EncodedTask:
    """``toy_task`` as token rows."""
    return encode_task(toy_task(name, seed=seed), backbone, PLAIN)


class SavedBytes:
    """Bytes that autograd keeps for backward passes: how many at most at any time."""

    def __init__(self):
        self.live = self.peak = 0

    def __enter__(self):
        counter = self

        class Kept:
            def __init__(self, tensor):
                self.tensor = tensor
                counter.live += tensor.nbytes
                counter.peak = max(counter.peak, counter.live)

            def __del__(self):
                counter.live -= self.tensor.nbytes

        self.hooks = torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *exc):
        self.hooks.__exit__(*exc)
