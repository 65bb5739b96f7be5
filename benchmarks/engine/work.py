"""What everybody computes: models of published shapes with random weights, batches of realistic lengths."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from transformers import T5Config, T5ForConditionalGeneration

from softstart.backbone import TINY, Backbone, Batch, T5Backbone, collate, load_backbone

PROMPT = 100
RAGGED = (151, 60, 23, 93, 40, 34, 85, 106)
"""Text lengths of one batch: 31 % of it is padding when it is run as it is."""

# T5 v1.1: width, feed-forward width, layers of each stack, heads; 64 a head.
SHAPES = {
    "micro": (32, 64, 2, 2),
    "tiny": (256, 512, 4, 4),
    "small": (512, 1024, 8, 6),
    "base": (768, 2048, 12, 12),
    "large": (1024, 2816, 24, 16),
}


@dataclass(frozen=True)
class Work:
    """One model, a prompt [P, d] for each run, and a batch of rows for each."""

    inner_lr: ClassVar[float] = 0.3
    hide_from_higher: ClassVar[bool] = False

    shape: str
    runs: int = 1
    rows: int = 8
    ragged: bool = True
    steps: int = 5
    """Steps of a run in one round."""
    prompt: int = PROMPT
    """Rows of a prompt."""
    text: int = 70
    """Tokens of every text when they are of equal length: about the mean of the ragged ones."""
    alone: int = 4
    """Peers that train one run after the other are timed on this many runs in a round."""

    @cached_property
    def model(self) -> Any:
        """A transformers model as it comes; peers get copies of it."""
        if self.shape == "embedded":
            return load_backbone(TINY, device="cpu").model
        torch.manual_seed(0)
        width, inner, layers, heads = SHAPES[self.shape]
        return T5ForConditionalGeneration(
            T5Config(
                vocab_size=1000 if self.shape == "micro" else 32128,
                d_model=width,
                d_ff=inner,
                d_kv=64,
                num_layers=layers,
                num_heads=heads,
                dropout_rate=0.0,
                feed_forward_proj="gated-gelu",
                tie_word_embeddings=False,
                decoder_start_token_id=0,
                pad_token_id=0,
                eos_token_id=1,
            )
        ).eval()

    def plain(self) -> Any:
        """A frozen copy for a peer."""
        if self.shape == "embedded":
            from softstart.backbone import kernels

            model = copy.deepcopy(self.model)
            for module in model.modules():
                if type(module) is kernels.Linear:
                    module.__class__ = torch.nn.Linear
            model.config.dropout_rate = 0.0
            return model.requires_grad_(False)
        return copy.deepcopy(self.model).requires_grad_(False)

    @cached_property
    def backbone(self) -> Backbone:
        """The same network run by softstart."""
        return self.backbone_in(torch.float32)

    def backbone_in(self, dtype: torch.dtype) -> Backbone:
        """The same network run by softstart with weights of another precision."""
        tiny = load_backbone(TINY, device="cpu", dtype=str(dtype).removeprefix("torch."))
        if self.shape == "embedded":
            return tiny
        return T5Backbone(copy.deepcopy(self.model).to(dtype), tiny.tokenizer)

    @staticmethod
    def loss(model: Any, prompt: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The loss of transformers' own pass, the prompt joined to the embeddings by hand."""
        text = model.get_input_embeddings()(batch.input_ids)
        embeds = torch.cat((prompt.expand(len(batch), -1, -1), text), 1)
        mask = torch.cat((batch.attention_mask.new_ones(len(batch), len(prompt)), batch.attention_mask), 1)
        loss: torch.Tensor = model(inputs_embeds=embeds, attention_mask=mask, labels=batch.labels).loss
        return loss

    @property
    def in_turn(self) -> range:
        """The runs that those peers take."""
        return range(min(self.runs, self.alone))

    @cached_property
    def flops(self) -> float:
        """Model FLOPs of a step of one run, padding not counted."""
        batch = self.batch(0)
        return sum(flops.gradient for _, flops in self.backbone.whole_rows(batch, self.prompt))

    @cached_property
    def starts(self) -> torch.Tensor:
        """[R, P, d]."""
        g = torch.Generator().manual_seed(1)
        rows = torch.randint(5, 900, (self.runs, self.prompt), generator=g)
        return self.model.get_input_embeddings().weight.detach()[rows].clone()

    def batch(self, run: int, seed: int = 0) -> Batch:
        """The rows of one run."""
        return self.joined([run], seed)

    def joined(self, runs: list[int], seed: int = 0) -> Batch:
        """The rows of several runs in one batch."""
        texts, outputs, owners = [], [], []
        for owner, run in enumerate(runs):
            g = torch.Generator().manual_seed(1000 * seed + run)
            lengths = (RAGGED if self.ragged else (self.text,) * 8)[: self.rows]
            texts += [torch.randint(5, 900, (n,), generator=g).tolist() for n in lengths]
            outputs += [torch.randint(5, 900, (2 + i % 4,), generator=g).tolist() for i in range(self.rows)]
            owners += [owner] * self.rows
        return collate(texts, outputs, owners, pad=0)
