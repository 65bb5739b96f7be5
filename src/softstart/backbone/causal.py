"""Decoder-only language models: the label tokens follow the text in the same sequence."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from softstart.backbone.base import Backbone, summed_nll
from softstart.backbone.decoding import Decoding, plain_generation
from softstart.errors import SoftstartError
from softstart.prompt.placement import suffix


class CausalBackbone(Backbone):
    """GPT-2, OPT, GPT-NeoX (Pythia), Llama, Mistral, Qwen, Gemma and others of their kind.

    A row is ``[prompt | text | output | padding]``. No token sees what comes after it, so padding on the
    right needs no mask and positions count from the row's first vector whatever its neighbors are.
    """

    model_types: ClassVar[tuple[str, ...]] = (
        "gpt2", "opt", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text",
    )  # fmt: skip
    peft_task: ClassVar[str] = "CAUSAL_LM"
    continues_input: ClassVar[bool] = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        plain_generation(self.model, self.tokenizer)

    def encode(self, embeds: Tensor, mask: Tensor) -> Tensor:
        """The embeddings [B, P+S, d] themselves: text and output are read in one pass."""
        return embeds

    def logits(self, state: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Logits [B, T, V] at the positions before each label token.

        Raises:
            SoftstartError: a row without prompt and text.
        """
        texts, length = mask.sum(1), labels.shape[1]
        first = _shortest(mask) - 1
        self.fits(state.shape[1] + length)
        joined, _ = suffix(self.embedding(labels.clamp_min(0)), state, mask)
        # The head is the widest layer: only where some row has a label.
        span = torch.arange(first, int(texts.max()) - 1 + length, device=joined.device)
        out = self.model(inputs_embeds=joined, logits_to_keep=span, use_cache=False).logits
        wanted = (texts - 1 - first)[:, None] + torch.arange(length, device=texts.device)
        found: Tensor = out[torch.arange(len(out), device=out.device)[:, None], wanted.to(out.device)]
        return found.to(labels.device)

    def reader(self, embeds: Tensor, mask: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """As ``Backbone.reader``: keys and values of texts [B, S, d] are kept, padded on the left.

        Raises:
            SoftstartError: a row without prompt and text.
        """
        # An unlisted family may keep something else; eager attention turns masks of float64 models into NaN.
        if self.model.config.model_type not in self.model_types or embeds.dtype == torch.float64:
            return super().reader(embeds, mask)
        _shortest(mask)
        joined, flags = left_padded(embeds, mask)
        read = self.model(
            inputs_embeds=joined, attention_mask=flags, position_ids=_positions(flags),
            logits_to_keep=1, use_cache=True,
        )  # fmt: skip

        def nll(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            self.fits(mask.shape[1] + labels.shape[1])
            past, told = copy.copy(read.past_key_values), labels[:, :-1]
            past.layers = [copy.copy(layer) for layer in past.layers]
            for layer in past.layers:
                layer.batch_select_indices(rows.to(layer.keys.device))
            seen = torch.cat((flags[rows], torch.ones_like(told)), 1)
            logits = read.logits[rows]
            if told.shape[1]:
                rest = self.model(
                    inputs_embeds=self.embedding(told.clamp_min(0)), attention_mask=seen,
                    position_ids=_positions(seen)[:, -told.shape[1] :], past_key_values=past,
                )  # fmt: skip
                logits = torch.cat((logits, rest.logits), 1)
            return summed_nll(logits.to(labels.device), labels)

        return nll

    def generate_ids(self, embeds: Tensor, mask: Tensor, decoding: Decoding) -> Tensor:
        """Token ids [B, T] by greedy or beam search; the repetition penalty counts generated tokens only."""
        self.fits(mask.shape[1] + decoding.max_new_tokens)
        joined, flags = left_padded(embeds, mask)
        ids: Tensor = self.model.generate(inputs_embeds=joined, attention_mask=flags, **decoding.arguments)
        return ids


def _shortest(mask: Tensor) -> int:
    """Tokens of the shortest row; there has to be one to predict from."""
    length = int(mask.sum(1).min())
    if length == 0:
        raise SoftstartError(
            "a row has neither prompt nor text to predict its output from",
            fix="Use a prompt, or a template that is never empty.",
        )
    return length


def _positions(mask: Tensor) -> Tensor:
    """Positions [B, S] that count from each row's first vector."""
    return (mask.cumsum(1) - 1).clamp_min(0)


def left_padded(embeds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Right-padded rows [B, S, d] with mask [B, S], moved so that all of them end in the last column."""
    length = mask.shape[1]
    place = torch.arange(length, device=mask.device) + mask.sum(1, keepdim=True)
    source = place % length
    return embeds.gather(1, source[..., None].expand_as(embeds)), mask.gather(1, source)
