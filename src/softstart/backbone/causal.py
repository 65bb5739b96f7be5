"""Decoder-only language models: the label tokens follow the text in the same sequence."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor

from softstart.backbone.base import Backbone, Reader, summed_nll
from softstart.backbone.decoding import Decoding, plain_generation
from softstart.errors import SoftstartError
from softstart.prompt.placement import suffix


class CausalBackbone(Backbone):
    """GPT-2, OPT, GPT-NeoX (Pythia), Llama, Mistral, Qwen, Gemma and similar families.

    A row is ``[prompt | text | output | padding]``. No token sees what comes after it, so padding on the
    right needs no mask, and positions count from the row's first vector whatever its neighbors are.
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
        self.check_window(state.shape[1] + length)
        joined, _ = suffix(self.embedding(labels.clamp_min(0)), state, mask)
        # The head is the widest layer, so it runs only at positions where some row has a label. A row of n
        # vectors predicts its labels at n - 1, n, …: column n - 1 - first of the result and those after it.
        span = torch.arange(first, int(texts.max()) - 1 + length, device=joined.device)
        out = self.model(inputs_embeds=joined, logits_to_keep=span, use_cache=False).logits
        columns = (texts - 1 - first)[:, None] + torch.arange(length, device=texts.device)
        at_labels: Tensor = out[torch.arange(len(out), device=out.device)[:, None], columns.to(out.device)]
        return at_labels.to(labels.device)

    def reader(self, embeds: Tensor, mask: Tensor) -> Reader:
        """As ``Backbone.reader``: the keys and values of texts [B, S, d] are kept, padded on the left.

        Raises:
            SoftstartError: a row without prompt and text.
        """
        # Other model types may keep something else; eager attention turns masks of float64 models into NaN.
        if self.model.config.model_type not in self.model_types or embeds.dtype == torch.float64:
            return super().reader(embeds, mask)
        _shortest(mask)
        joined, flags = left_padded(embeds, mask)
        read = self.model(
            inputs_embeds=joined, attention_mask=flags, position_ids=_positions(flags),
            logits_to_keep=1, use_cache=True,
        )  # fmt: skip

        def nll(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            self.check_window(mask.shape[1] + labels.shape[1])
            # The text's last position predicts the first label; every label but the last predicts the next.
            logits, given = read.logits[rows], labels[:, :-1]
            if given.shape[1]:
                past = copy.copy(read.past_key_values)
                past.layers = [copy.copy(layer) for layer in past.layers]  # selecting rows changes a layer
                for layer in past.layers:
                    layer.batch_select_indices(rows.to(layer.keys.device))
                seen = torch.cat((flags[rows], torch.ones_like(given)), 1)
                rest = self.model(
                    inputs_embeds=self.embedding(given.clamp_min(0)), attention_mask=seen,
                    position_ids=_positions(seen)[:, -given.shape[1] :], past_key_values=past,
                )  # fmt: skip
                logits = torch.cat((logits, rest.logits), 1)
            return summed_nll(logits.to(labels.device), labels)

        return nll

    def generate_ids(self, embeds: Tensor, mask: Tensor, decoding: Decoding) -> Tensor:
        """Token ids [B, T] by greedy or beam search; the repetition penalty counts generated tokens only."""
        self.check_window(mask.shape[1] + decoding.max_new_tokens)
        joined, flags = left_padded(embeds, mask)
        ids: Tensor = self.model.generate(inputs_embeds=joined, attention_mask=flags, **decoding.arguments)
        return ids


def _shortest(mask: Tensor) -> int:
    """Vectors of the shortest row; an output needs at least one to be predicted from."""
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
    # Each row is rotated: with n vectors, column j takes column j + n modulo S, so the padding comes first.
    source = (torch.arange(length, device=mask.device) + mask.sum(1, keepdim=True)) % length
    return embeds.gather(1, source[..., None].expand_as(embeds)), mask.gather(1, source)
