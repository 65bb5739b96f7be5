"""Backbones that read once what rows begin with: what serves a batch, what is shared, what it costs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from softstart.backbone.base import Backbone
from softstart.backbone.batch import IGNORE, Batch
from softstart.backbone.causal_once import OncePasses
from softstart.backbone.flops import Flops
from softstart.backbone.quantization import refuse_second_order
from softstart.errors import SoftstartError
from softstart.prompt.kinds import Pairs

LOG = logging.getLogger("softstart")


class ReadingOnce(Backbone):
    """A causal model whose prompts, or texts, are read once for many rows (``causal_once``)."""

    read_once: bool = True
    """Read what rows begin with once; False: read every row as a whole."""
    text_cache: int | None = None
    """Bytes for the keys and values of texts that have been read; None: see ``text_cache.default_budget``."""
    processes: int = 1
    """How many processes share the memory for them."""
    text_cache_dtype: torch.dtype | None = None
    """What they are kept in; None: the model's dtype."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._once: OncePasses | None = None
        self._shared: tuple[Tensor, list[Tensor]] | None = None
        super().__init__(*args, **kwargs)

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
        """``once``, where it serves prompts of P = ``length`` rows; SoftstartError: nothing serves them."""
        if not length or self.once is None:
            return None
        first = self._place.first == "prompt"
        textless = first and not int(batch.attention_mask.sum(1).min())  # an output right behind its prompt
        hidden, read = batch.hidden, self.kind.read_rows(length)
        if hidden is not None and read and (first or bool(hidden.all(1).any())):
            return None  # rows of a run have other prompts, or none
        if seed is None and not textless:
            return self.once
        if read:
            return None
        raise SoftstartError(
            f"a key-value prompt cannot be used {'under dropout' if seed is not None else 'without a text'}",
            fix="Set dropout: false." if seed is not None else "Use a template that is never empty.",
        )

    def computed_rows(self, batch: Batch, prompt_length: int) -> list[tuple[int, Flops]]:
        """As ``Backbone.computed_rows``: prompts before the text count once a run, kept texts not at all;
        SoftstartError as ``nll``.
        """
        if self._once_of_length(prompt_length, batch, batch.seed) is None:
            return super().computed_rows(batch, prompt_length)
        texts = batch.attention_mask.sum(1).tolist()
        outputs = (batch.labels != IGNORE).sum(1).tolist()
        prompts = batch.prompt_lengths(prompt_length).tolist()
        if self._place.first == "text":
            triples = zip(prompts, texts, outputs, strict=True)
            return [(p + t, self.row_flops(p, t, before=text)) for p, text, t in triples]
        shared, rows = {run: self.kind.read_rows(prompt_length) for run in batch.run.tolist()}, []
        for run, prompt, text, output in zip(batch.run.tolist(), prompts, texts, outputs, strict=True):
            once, flops = shared.pop(run, 0), self.row_flops(text, output, before=prompt)
            rows.append((once + text + output, flops + self.row_flops(once, 0)))
        return rows

    def _pairs(self, once: OncePasses, prompts: Tensor, *, fused: bool = True) -> Pairs:
        """Keys and values of prompts [R, P, D] that stand before the text."""
        return self.kind.pairs(prompts, partial(once.read_prompts, fused=fused))

    @property
    def key_value_shape(self) -> tuple[int, int, int]:
        """As ``FrozenModel.key_value_shape``; SoftstartError: rows are read as a whole."""
        return self._needed_once().shape

    @torch.no_grad()
    def keys_and_values(self, embeddings: Tensor) -> Pairs:
        """As ``FrozenModel.keys_and_values``, [N, P, d]; SoftstartError: rows are read as a whole."""
        return self._needed_once().read_prompts(embeddings.to(self.device))

    def _needed_once(self) -> OncePasses:
        if self.once is None:
            raise SoftstartError(
                f"backbone '{self.name}' takes no key-value prompts: it reads rows as a whole",
                fix="Use a listed model type without gradient_checkpointing, or kind: embeddings.",
            )
        return self.once

    @property
    def text_tokens_read(self) -> int:
        """As ``Backbone.text_tokens_read``."""
        return self._once.texts.tokens_read if self._once else 0

    @contextlib.contextmanager
    def sharing(self, prompts: Tensor, batch: Batch, *, twice: bool = False) -> Iterator[list[Tensor] | None]:
        """As ``Backbone.sharing``: keys and values [G, R, P, h] of prompts before the text; SoftstartError as
        ``nll``.
        """
        once = (
            self._once_for(prompts, batch, batch.seed, twice=twice) if self._place.first == "prompt" else None
        )
        if once is None or not self.kind.read_rows(prompts.shape[1]):
            yield None
            return
        tensors = [tensor for pair in self._pairs(once, prompts, fused=not twice) for tensor in pair]
        self._shared = (prompts, tensors)
        try:
            yield tensors
        finally:
            self._shared = None
