"""Decoder-only language models: the label tokens follow the text in the same sequence."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from softstart.backbone.base import Backbone, Reader, summed_nll
from softstart.backbone.batch import IGNORE, Batch
from softstart.backbone.candidates import NODES, sets_of
from softstart.backbone.causal_compiled import carry_tangents
from softstart.backbone.causal_reading import ReadingOnce
from softstart.backbone.decoding import Decoding, plain_generation
from softstart.errors import SoftstartError
from softstart.prompt.placement import suffix

LOG = logging.getLogger("softstart")
CPU_TOKENS = 4096
"""On a CPU a pass of more tokens, each of which costs thousands of numbers, is slower by token."""
READ = 4
"""Tokens of a text that has been read cost a row about as much as one that is read now: only attention."""


class CausalBackbone(ReadingOnce):
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

    def compile(self) -> None:
        """As ``Backbone.compile``: the kernels of Hessian-vector products."""
        carry_tangents(self.model)
        self.carries_tangents = True

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
        return _continuing(self, embeds, mask)

    def generate_ids(self, embeds: Tensor, mask: Tensor, decoding: Decoding) -> Tensor:
        """Token ids [B, T] by greedy or beam search; the repetition penalty counts generated tokens only."""
        self.check_window(mask.shape[1] + decoding.max_new_tokens)
        joined, flags = left_padded(embeds, mask)
        settings = decoding.arguments_after_embeddings
        ids: Tensor = self.model.generate(inputs_embeds=joined, attention_mask=flags, **settings)
        return ids

    # What a row begins with is read once (``causal_once``).

    def nll(
        self, prompts: Tensor, batch: Batch, *, seed: int | None = None, twice: bool = False
    ) -> tuple[Tensor, Tensor]:
        """As ``Backbone.nll``: prompts [R, P, D] → sums [B] and counts [B]; SoftstartError: as there."""
        once = self._once_for(prompts, batch, seed, twice=twice)
        if once is None:
            return super().nll(prompts, batch, seed=seed, twice=twice)
        if self._place.first == "text":
            sums = once.after_texts(prompts, batch, fused=not twice)
        else:
            shared = self._shared[1] if self._shared and self._shared[0] is prompts else None
            pairs = list(zip(shared[::2], shared[1::2], strict=True)) if shared else None
            read = pairs or self._pairs(once, prompts, fused=not twice)
            sums = once.after_prompts(read, batch, fused=not twice)
        return sums, (batch.labels != IGNORE).sum(1)

    @torch.no_grad()
    def rank(
        self,
        prompts: Tensor,
        batch: Batch,
        candidates: Tensor,
        max_tokens: int | None = None,
        of: Tensor | None = None,
    ) -> Tensor:
        """As ``Backbone.rank``: [L, C, T] → [B, C]; beginnings are read once for a row. SoftstartError."""
        once = self._once_for(prompts, batch) if batch.hidden is None else None
        if once is None:
            return super().rank(prompts, batch, candidates, max_tokens, of)
        _, choices, length = candidates.shape
        self.check_window(prompts.shape[1] + batch.input_ids.shape[1] + length)
        sets, of = sets_of(candidates, of, max_tokens)
        scores = torch.full((len(batch), choices), -torch.inf, dtype=self.prompt_dtype, device=self.device)
        pairs = self._pairs(once, prompts) if self._place.first == "prompt" else None
        for rows, part in self.parts(batch, max_tokens, prompts.shape[1]):
            at_once = _nodes(max_tokens, part, length)
            for some, tree, likely in once.rank(prompts, part, sets, of[rows], at_once, pairs):
                scores[rows[some][:, None], tree.columns] = likely.to(scores.dtype)
        return scores

    @torch.no_grad()
    def part_ids(self, prompts: Tensor, part: Batch, decoding: Decoding) -> Tensor:
        """As ``Backbone.part_ids``, [B, ≤ max_new_tokens], from what has been read; SoftstartError."""
        once = self._once_for(prompts, part) if part.hidden is None else None
        if once is None:
            return super().part_ids(prompts, part, decoding)
        self.check_window(prompts.shape[1] + part.input_ids.shape[1] + decoding.max_new_tokens)
        pairs = self._pairs(once, prompts) if self._place.first == "prompt" else None
        return once.write(prompts, part, decoding, pairs)

    def parts(
        self, batch: Batch, max_tokens: int | None, extra: int, cost: int | None = None
    ) -> Iterator[tuple[Tensor, Batch]]:
        """As ``Backbone.parts``, [≤ B]; with read texts a row is little more than prompt and output.

        Where prompts are read once, padding is left out, so there is no ``cost``.
        """
        once = None if batch.seed is not None or not extra else self.once
        if once is not None and max_tokens is not None and self.device.type == "cpu":
            max_tokens = min(max_tokens, CPU_TOKENS)
        if once is None or self._place.first != "text":
            yield from super().parts(batch, max_tokens, extra, cost if once is None else None)
            return
        yield from _with_read_texts(batch, max_tokens, extra)

    def trainable_copy(self) -> Self:
        """As ``Backbone.trainable_copy``: what is trained is read as a whole."""
        twin = super().trainable_copy()
        twin.read_once, twin._once = False, None
        return twin


def _with_read_texts(batch: Batch, max_tokens: int | None, extra: int) -> Iterator[tuple[Tensor, Batch]]:
    """Parts of a batch whose texts have been read, so that a row is little more than prompt and output."""
    lengths = batch.attention_mask.sum(1)
    sizes = lengths // READ + extra + batch.labels.shape[1]
    if max_tokens is None or int(sizes.max()) * len(batch) <= max_tokens:
        yield torch.arange(len(batch), device=lengths.device), batch
        return
    order = torch.argsort(lengths, stable=True)
    few = max(1, max_tokens // int(sizes.max()))
    for rows in order.split(few):
        yield rows, batch.select(rows)


def _nodes(max_tokens: int | None, part: Batch, length: int) -> int:
    """How many nodes of candidates of ``length`` tokens a pass takes, over all of its rows."""
    if max_tokens is None:
        return len(part) * NODES
    return max_tokens * length // (length + part.input_ids.shape[1] // READ)


def _shortest(mask: Tensor) -> int:
    """Vectors of the shortest row; an output needs at least one to be predicted from."""
    length = int(mask.sum(1).min())
    if length == 0:
        raise SoftstartError(
            "a row has neither prompt nor text to predict its output from",
            fix="Use a prompt, or a template that is never empty.",
        )
    return length


def _continuing(backbone: Backbone, embeds: Tensor, mask: Tensor) -> Reader:
    """What reads labels behind texts [B, S, d] by transformers' own keys and values of them."""
    joined, flags = left_padded(embeds, mask)
    # transformers 5.24 renamed it, and drops the old name in 5.40.
    name = "cache" if "cache" in inspect.signature(backbone.model.forward).parameters else "past_key_values"
    read = backbone.model(
        inputs_embeds=joined, attention_mask=flags, position_ids=_positions(flags),
        logits_to_keep=1, use_cache=True,
    )  # fmt: skip

    def nll(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        backbone.check_window(mask.shape[1] + labels.shape[1])
        # The text's last position predicts the first label; every label but the last predicts the next.
        logits, given = read.logits[rows], labels[:, :-1]
        if given.shape[1]:
            past = copy.copy(getattr(read, name))
            past.layers = [copy.copy(layer) for layer in past.layers]  # selecting rows changes a layer
            for layer in past.layers:
                layer.batch_select_indices(rows.to(layer.keys.device))
            seen = torch.cat((flags[rows], torch.ones_like(given)), 1)
            rest = backbone.model(
                inputs_embeds=backbone.embedding(given.clamp_min(0)), attention_mask=seen,
                position_ids=_positions(seen)[:, -given.shape[1] :], **{name: past},
            )  # fmt: skip
            logits = torch.cat((logits, rest.logits), 1)
        return summed_nll(logits.to(labels.device), labels)

    return nll


def _positions(mask: Tensor) -> Tensor:
    """Positions [B, S] that count from each row's first vector."""
    return (mask.cumsum(1) - 1).clamp_min(0)


def left_padded(embeds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Right-padded rows [B, S, d] with mask [B, S], moved so that all of them end in the last column."""
    length = mask.shape[1]
    # Each row is rotated: with n vectors, column j takes column j + n modulo S, so the padding comes first.
    source = (torch.arange(length, device=mask.device) + mask.sum(1, keepdim=True)) % length
    return embeds.gather(1, source[..., None].expand_as(embeds)), mask.gather(1, source)
