"""Decoder-only language models: the label tokens follow the text in the same sequence."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from softstart.backbone.base import Backbone, Reader, summed_nll
from softstart.backbone.batch import IGNORE, Batch
from softstart.backbone.candidates import NODES, sets_of
from softstart.backbone.causal_once import OncePasses
from softstart.backbone.decoding import Decoding, plain_generation
from softstart.backbone.flops import Flops
from softstart.backbone.quantization import refuse_second_order
from softstart.errors import SoftstartError
from softstart.prompt.placement import suffix

LOG = logging.getLogger("softstart")
PASS_TOKENS = 4096
"""On a CPU a pass of more tokens, each of which costs thousands of numbers, is slower by token."""
READ = 4
"""Tokens of a text that has been read cost a row about as much as one that is read now: only attention."""


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
    read_once: bool = True
    """Read what rows begin with once; False: read every row as a whole."""
    text_cache: int | None = None
    """Bytes for the keys and values of texts that have been read; None: see ``text_cache.default_budget``."""
    processes: int = 1
    """How many processes share the memory for them."""
    text_cache_dtype: torch.dtype | None = None
    """What they are kept in; None: the model's dtype."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._once: OncePasses | None = None
        self._shared: tuple[Tensor, list[Tensor]] | None = None
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
        settings = decoding.arguments_after_embeddings
        ids: Tensor = self.model.generate(inputs_embeds=joined, attention_mask=flags, **settings)
        return ids

    # What a row begins with is read once (``causal_once``).

    @property
    def once(self) -> OncePasses | None:
        """Passes that read nothing twice; None where rows are read as a whole."""
        # Layers that are computed again would be so with transformers' attention.
        recomputed = getattr(self.model, "recomputes_layers", False)
        if not self.read_once or self._place.first is None or recomputed:
            return None
        if self._once is None and self.model.config.model_type in self.model_types:
            made = OncePasses(
                self.model, self.embedding, self.text_cache, self.text_cache_dtype, self.processes
            )
            self._once = made if made.reach_attention() else None
        if self._once is None:
            LOG.info("%s: rows are read as a whole, for its attention is not a known one", self.name)
            self.read_once = False
        return self._once

    def keep_texts(self, mib: int | None, processes: int = 1) -> None:
        """As ``Backbone.keep_texts``; texts that are kept already are let go."""
        self.text_cache, self.processes = None if mib is None else mib << 20, processes
        self._once = None

    def _once_for(
        self, prompts: Tensor, batch: Batch, seed: int | None = None, *, twice: bool = False
    ) -> OncePasses | None:
        """``once``, where it serves these prompts [R, P, d] and rows; SoftstartError: they do not fit."""
        if twice:
            refuse_second_order(self.name, self.quantization)
        once = self._once_of_length(prompts.shape[1], batch, seed)
        if once is None:
            return None
        self.check_width(prompts)
        self.check_window(prompts.shape[1] + batch.input_ids.shape[1])
        self.check_window(prompts.shape[1] + batch.input_ids.shape[1] + batch.labels.shape[1])
        return once

    def _once_of_length(self, length: int, batch: Batch, seed: int | None) -> OncePasses | None:
        """``once``, where it serves prompts of P = ``length`` vectors."""
        if seed is not None or not length or self.once is None:
            return None
        if self._place.first == "prompt" and not int(batch.attention_mask.sum(1).min()):
            return None  # an output right behind its prompt
        return self.once

    def computed_rows(self, batch: Batch, prompt_length: int) -> list[tuple[int, Flops]]:
        """As ``Backbone.computed_rows``: prompts before the text count once a run, kept texts not at all."""
        if self._once_of_length(prompt_length, batch, batch.seed) is None:
            return super().computed_rows(batch, prompt_length)
        texts = batch.attention_mask.sum(1).tolist()
        outputs = (batch.labels != IGNORE).sum(1).tolist()
        if self._place.first == "text":
            return [
                (prompt_length + output, self.row_flops(prompt_length, output, before=text))
                for text, output in zip(texts, outputs, strict=True)
            ]
        rows, seen = [], set[int]()
        for run, text, output in zip(batch.run.tolist(), texts, outputs, strict=True):
            tokens, flops = text + output, self.row_flops(text, output, before=prompt_length)
            if run not in seen:
                tokens, flops = tokens + prompt_length, flops + self.row_flops(prompt_length, 0)
            seen.add(run)
            rows.append((tokens, flops))
        return rows

    @property
    def text_tokens_read(self) -> int:
        """As ``Backbone.text_tokens_read``."""
        return self._once.texts.tokens_read if self._once else 0

    @contextlib.contextmanager
    def sharing(self, prompts: Tensor, batch: Batch, *, twice: bool = False) -> Iterator[list[Tensor] | None]:
        """As ``Backbone.sharing``: keys and values [G, R, P, h] of every layer of prompts before the text."""
        once = (
            self._once_for(prompts, batch, batch.seed, twice=twice) if self._place.first == "prompt" else None
        )
        if once is None:
            yield None
            return
        tensors = [tensor for pair in once.read_prompts(prompts, fused=not twice) for tensor in pair]
        self._shared = (prompts, tensors)
        try:
            yield tensors
        finally:
            self._shared = None

    def nll(
        self, prompts: Tensor, batch: Batch, *, seed: int | None = None, twice: bool = False
    ) -> tuple[Tensor, Tensor]:
        """As ``Backbone.nll``: prompts [R, P, d] → sums [B] and counts [B]."""
        once = self._once_for(prompts, batch, seed, twice=twice)
        if once is None:
            return super().nll(prompts, batch, seed=seed, twice=twice)
        if self._place.first == "text":
            sums = once.after_texts(prompts, batch, fused=not twice)
        else:
            shared = self._shared[1] if self._shared and self._shared[0] is prompts else None
            pairs = list(zip(shared[::2], shared[1::2], strict=True)) if shared else None
            read = pairs or once.read_prompts(prompts, fused=not twice)
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
        """As ``Backbone.rank``: candidates [L, C, T] → [B, C]; shared beginnings are read once for a row."""
        once = self._once_for(prompts, batch)
        if once is None:
            return super().rank(prompts, batch, candidates, max_tokens, of)
        _, choices, length = candidates.shape
        self.check_window(prompts.shape[1] + batch.input_ids.shape[1] + length)
        sets, of = sets_of(candidates, of, max_tokens)
        scores = torch.full((len(batch), choices), -torch.inf, dtype=self.prompt_dtype, device=self.device)
        for rows, part in self.parts(batch, max_tokens, prompts.shape[1]):
            at_once = _nodes(max_tokens, part, length)
            ranked = once.rank(prompts, part, sets, of[rows], at_once, first=self._place.first == "prompt")
            for some, tree, likely in ranked:
                scores[rows[some][:, None], tree.columns] = likely.to(scores.dtype)
        return scores

    def part_ids(self, prompts: Tensor, part: Batch, decoding: Decoding) -> Tensor:
        """As ``Backbone.part_ids``, [B, ≤ max_new_tokens]; outputs continue from what has been read."""
        once = self._once_for(prompts, part)
        if once is None:
            return super().part_ids(prompts, part, decoding)
        self.check_window(prompts.shape[1] + part.input_ids.shape[1] + decoding.max_new_tokens)
        return once.write(prompts, part, decoding, first=self._place.first == "prompt")

    def parts(
        self, batch: Batch, max_tokens: int | None, extra: int, cost: int | None = None
    ) -> Iterator[tuple[Tensor, Batch]]:
        """As ``Backbone.parts``, [≤ B]; with read texts a row is little more than prompt and output.

        Where prompts are read once, padding is left out, so there is no ``cost``.
        """
        once = None if batch.seed is not None or not extra else self.once
        if once is not None and max_tokens is not None and self.device.type == "cpu":
            max_tokens = min(max_tokens, PASS_TOKENS)
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


def _positions(mask: Tensor) -> Tensor:
    """Positions [B, S] that count from each row's first vector."""
    return (mask.cumsum(1) - 1).clamp_min(0)


def left_padded(embeds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Right-padded rows [B, S, d] with mask [B, S], moved so that all of them end in the last column."""
    length = mask.shape[1]
    # Each row is rotated: with n vectors, column j takes column j + n modulo S, so the padding comes first.
    source = (torch.arange(length, device=mask.device) + mask.sum(1, keepdim=True)) % length
    return embeds.gather(1, source[..., None].expand_as(embeds)), mask.gather(1, source)
