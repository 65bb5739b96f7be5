"""Passes of a causal model that read nothing twice: prompts once a run, or texts once for good.

With the prompt before the text, ``[prompt | text | output]``, the R prompts are read once a step and the rows
of a run attend to theirs. With the prompt after the text, ``[text | prompt | output]``, each text is read
once and kept (``TextCache``), and a row is only its prompt and its output. Both give the numbers of a row
that is read as a whole, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from softstart.backbone.base import token_nll
from softstart.backbone.batch import IGNORE, Batch
from softstart.backbone.candidates import Tree
from softstart.backbone.decoding import Decoding
from softstart.backbone.devices import device_of
from softstart.backbone.read_once import Branches, Context, Reading, reading, recorded
from softstart.backbone.searches import beam_search, greedy_search
from softstart.backbone.text_cache import TextCache
from softstart.backbone.unpadded import Unpadded
from softstart.prompt.kinds import Pairs
from softstart.prompt.placement import suffix

ONE = (0,)
"""The place of a vector whose logits are computed because a model has to end with some."""
FULL = 0.9
"""Padding is left out of a pass unless tokens fill this share of it."""


@dataclass
class OncePasses:
    """The passes over one model.

    Args:
        model: the transformers model.
        embedding: its input embedding.
        budget: bytes for texts that have been read, see ``TextCache``.
        dtype: what they are kept in, see ``TextCache``.
        processes: how many share the memory, see ``TextCache``.
    """

    model: Any
    embedding: nn.Module
    budget: int | None = None
    dtype: torch.dtype | None = None
    processes: int = 1

    shape: tuple[int, int, int] = (0, 0, 0)
    """Layers, heads of keys in each, entries of a head, as ``reach_attention`` found them."""

    def __post_init__(self) -> None:
        self.texts = TextCache(self.read_texts, self.budget, self.dtype, self.processes)

    def reach_attention(self) -> bool:
        """Whether every layer attends by ``read_once``; a model with code of its own may not."""
        record: dict[int, tuple[Tensor, Tensor]] = {}
        token = torch.zeros(1, 1, dtype=torch.long, device=device_of(self.embedding))
        try:
            with torch.no_grad():
                self._pass(self.embedding(token), Reading(record=record), ONE)
        except TypeError:  # it takes no argument ``read``
            return False
        if len(record) != int(self.model.config.num_hidden_layers):
            return False
        _, heads, _, width = record[0][0].shape
        self.shape = (len(record), heads, width)
        return True

    # What is read once.

    @torch.no_grad()
    def read_texts(self, ids: Tensor, mask: Tensor) -> Pairs:
        """Keys and values of texts [C, S] that stand at the beginning."""
        record: dict[int, tuple[Tensor, Tensor]] = {}
        self._pass(self.embedding(ids), Reading(record=record), ONE, mask.sum(1))
        return recorded(record)

    def read_prompts(self, prompts: Tensor, *, fused: bool = True) -> Pairs:
        """Keys and values of prompts [R, P, d] that stand at the beginning, with their graph."""
        record: dict[int, tuple[Tensor, Tensor]] = {}
        embeds = prompts.to(next(self.embedding.parameters()).dtype)
        self._pass(embeds, Reading(record=record, fused=fused), ONE)
        return recorded(record)

    # Losses.

    def after_prompts(self, pairs: Pairs, batch: Batch, *, fused: bool = True) -> Tensor:
        """Sums of the labels' NLL [B] of rows ``[text | output]`` whose prompts have been read."""
        texts = batch.attention_mask.sum(1)
        joined, _ = suffix(
            self.embedding(batch.labels[:, :-1].clamp_min(0)),
            self.embedding(batch.input_ids),
            batch.attention_mask,
        )
        read = Reading([Context(pairs, of=batch.run, hidden=batch.hidden)], fused=fused)
        return self._label_sums(joined, read, texts, batch.labels)

    def after_texts(self, prompts: Tensor, batch: Batch, *, fused: bool = True) -> Tensor:
        """Sums of the labels' NLL [B] of rows whose texts have been read and whose prompts follow them."""
        context, order = self._texts(batch)
        if order is not None:
            hidden = None if batch.hidden is None else batch.hidden[order]
            batch = replace(batch, labels=batch.labels[order], run=batch.run[order], hidden=hidden)
        labels, sizes = batch.labels, batch.prompt_lengths(prompts.shape[1])
        given = self.embedding(labels[:, :-1].clamp_min(0))
        joined = prompts.index_select(0, batch.run).to(given.dtype)
        if batch.hidden is None:
            joined = torch.cat((joined, given), 1)
        else:
            shown = torch.argsort(batch.hidden.long(), dim=1, stable=True)[:, : int(sizes.max())]
            joined = joined.gather(1, shown[..., None].expand(-1, -1, joined.shape[2]))
            places = torch.arange(joined.shape[1], device=joined.device)
            joined, _ = suffix(given, joined, (places < sizes[:, None]).long())
        out = self._label_sums(joined, Reading([context], fused=fused), sizes, labels)
        return out if order is None else out.index_select(0, torch.argsort(order))

    def _label_sums(self, joined: Tensor, read: Reading, before: Tensor, labels: Tensor) -> Tensor:
        """Sums of the NLL of labels [B, T], of which all but the last follow ``before`` [B] vectors: [B]."""
        real = labels != IGNORE
        rows, tokens = real.nonzero(as_tuple=True)
        # The label after n vectors is predicted at n - 1.
        at = rows * joined.shape[1] + (before - 1)[rows] + tokens
        logits = self._pass(joined, read, at, before - 1 + real.sum(1).clamp_min(1))
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = token_nll(wide[None], labels[real][None])[0]
        return losses.new_zeros(labels.shape).index_put((rows, tokens), losses).sum(1)

    # Ranking and generation: what is tried continues from what all tries have in common.

    @torch.no_grad()
    def rank(
        self,
        prompts: Tensor,
        batch: Batch,
        candidates: Sequence[Sequence[Tree]],
        of: Tensor,
        tokens: int,
        pairs: Pairs | None,
    ) -> Iterator[tuple[Tensor, Tree, Tensor]]:
        """Log-likelihoods of candidates, which continue from the prompt or the text.

        Args:
            prompts: [R, P, d].
            batch: B rows.
            candidates: the trees of every set of candidates.
            of: [B] the set of each row.
            tokens: at most this many nodes in a pass, or one tree.
            pairs: what was read of prompts that stand before the text; None: they stand after it.

        Yields:
            (some rows [b], a tree, the log-likelihoods [b, c] of its candidates).
        """
        contexts, order, logits = self._begun(prompts, batch, pairs)
        order = torch.arange(len(of), device=of.device) if order is None else order
        of = of[order]
        for number in of.unique().tolist():
            rows = (of == number).nonzero().squeeze(1)
            for tree in candidates[number]:
                for some in rows.split(max(1, tokens // len(tree))):
                    values = [tree.values(logits[some, None], 0, 1)]
                    if len(tree) > 1:
                        after = self._branches(_rows(contexts, some, len(of)), tree, len(some))
                        values.append(tree.values(after, 1))
                    yield order[some], tree, tree.sums(torch.cat(values, 1))

    def _branches(self, contexts: Sequence[Context], tree: Tree, rows: int) -> Tensor:
        """Logits [b, N - 1, V] of what follows all nodes of a tree but the first, of b rows."""
        embeds = self.embedding(tree.tokens[1:]).expand(rows, -1, -1)
        branches = Branches(tree.depths[1:] - 1, tree.sees[1:, 1:])
        at = torch.arange(embeds.shape[0] * embeds.shape[1])
        return self._pass(embeds, Reading(contexts, branches=branches), at).view(rows, len(tree) - 1, -1)

    @torch.no_grad()
    def write(self, prompts: Tensor, batch: Batch, decoding: Decoding, pairs: Pairs | None) -> Tensor:
        """Token ids [B, ≤ max_new_tokens] by greedy or beam search, the padding token after the end token.

        ``pairs`` as in ``rank``.
        """
        contexts, order, logits = self._begun(prompts, batch, pairs)
        config = self.model.generation_config
        ends = torch.as_tensor(config.eos_token_id, device=logits.device).flatten()
        written = _Written(self, [_repeated(context, decoding.num_beams) for context in contexts])
        search = greedy_search if decoding.num_beams == 1 else beam_search
        ids = search(logits, written.step, decoding, ends, config.pad_token_id)
        return ids if order is None else ids.index_select(0, torch.argsort(order))

    def _begun(
        self, prompts: Tensor, batch: Batch, pairs: Pairs | None
    ) -> tuple[list[Context], Tensor | None, Tensor]:
        """Prompt and text of every row: contexts, the order they are in, logits [B, V] of what follows."""
        record: dict[int, tuple[Tensor, Tensor]] = {}
        if pairs is not None:
            before = Context(pairs, of=batch.run)
            texts = batch.attention_mask.sum(1)
            ends = texts - 1 + batch.input_ids.shape[1] * torch.arange(len(batch), device=texts.device)
            out = self._pass(self.embedding(batch.input_ids), Reading([before], record), ends, texts)
            return [before, Context(recorded(record), texts)], None, out
        before, order = self._texts(batch)
        runs = batch.run if order is None else batch.run[order]
        rows = prompts.index_select(0, runs).to(next(self.embedding.parameters()).dtype)
        out = self._pass(rows, Reading([before], record), _last(rows))
        return [before, Context(recorded(record))], order, out

    def _texts(self, batch: Batch) -> tuple[Context, Tensor | None]:
        """The texts of a batch, and the order of the rows in which those of a text follow each other.

        None: as they are. Rows are brought together only if every text has as many.
        """
        context = self.texts.contexts(batch.input_ids, batch.attention_mask)
        if context.of is None:
            return context, None
        counts = torch.bincount(context.of)
        if bool((counts != counts[0]).any()):
            return context, None
        return Context(context.pairs, context.sizes), torch.argsort(context.of, stable=True)

    def _pass(
        self, embeds: Tensor, read: Reading, at: Sequence[int] | Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Logits [n, V] of what follows the vectors at some places of rows [B, N, d].

        Args:
            embeds: [B, N, d].
            read: what the rows attend to.
            at: [n] places, row x N + column. The head is the widest layer, so it runs nowhere else.
            lengths: [B] vectors of each row that are no padding; None: all.
        """
        rows, new, _ = embeds.shape
        at = torch.as_tensor(at, device=embeds.device)
        positions = read.positions(rows, new, embeds.device)
        if lengths is not None:
            mask = torch.arange(new, device=embeds.device) < lengths[:, None]
            read.layout = Unpadded.of(mask, FULL)
        if read.layout is not None:
            embeds, at = read.layout.pack(embeds), read.layout.find(at)
            positions = positions.expand(rows, -1).flatten()[read.layout.places][None]
        head = self.model.get_output_embeddings()
        picking = head.register_forward_pre_hook(lambda _, args: (_picked(args[0], at), *args[1:]))
        try:
            with reading(self.model):
                out: Tensor = self.model(
                    inputs_embeds=embeds, position_ids=positions, use_cache=False, read=read
                ).logits
        finally:
            picking.remove()
        return out[0]


def _picked(hidden: Tensor, at: Tensor) -> Tensor:
    """The vectors [1, n, d] at some places of [B, N, d]."""
    return hidden.flatten(0, 1).index_select(0, at)[None]


def _last(rows: Tensor) -> Tensor:
    """The place of the last vector of each row [B, N, d]."""
    return torch.arange(1, len(rows) + 1, device=rows.device) * rows.shape[1] - 1


@dataclass
class _Written:
    """What rows have written behind their contexts: its keys and values, None before the first token."""

    passes: OncePasses
    contexts: Sequence[Context]
    pairs: Pairs | None = None

    def step(self, parents: Tensor, tokens: Tensor) -> Tensor:
        """Let rows [N] go on from where rows ``parents`` [N] were, with tokens [N]: logits [N, V]."""
        record: dict[int, tuple[Tensor, Tensor]] = {}
        mine: list[Context] = []
        if self.pairs is not None:
            self.pairs = [(k.index_select(1, parents), v.index_select(1, parents)) for k, v in self.pairs]
            mine = [Context(self.pairs)]
        embeds = self.passes.embedding(tokens[:, None])
        out = self.passes._pass(embeds, Reading([*self.contexts, *mine], record), _last(embeds))
        latest = recorded(record)
        if self.pairs is not None:
            latest = [
                (torch.cat((k, key), 2), torch.cat((v, value), 2))
                for (k, v), (key, value) in zip(self.pairs, latest, strict=True)
            ]
        self.pairs = latest
        return out


def _repeated(context: Context, times: int) -> Context:
    """A context for rows that each come ``times`` times, one behind the other."""
    of = None if context.of is None else context.of.repeat_interleave(times)
    return Context(context.pairs, context.sizes, of)


def _rows(contexts: Sequence[Context], rows: Tensor, total: int) -> list[Context]:
    """The contexts of some of ``total`` rows."""
    if len(rows) == total:
        return list(contexts)
    some = []
    for context in contexts:
        shared = total // context.pairs[0][0].shape[1]
        of = rows // shared if context.of is None else context.of[rows]
        some.append(Context(context.pairs, context.sizes, of))
    return some
