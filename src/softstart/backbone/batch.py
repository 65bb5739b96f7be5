"""A batch of tokenized rows, each pointing at the prompt it belongs to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

IGNORE = -100
"""Label id of padding: not part of any loss (the convention of torch and transformers)."""
PASS = 250
"""The fixed cost of a forward and backward pass, in tokens that take a CPU as long. Measured on small
backbones with one thread; for larger ones it is less."""


@dataclass(frozen=True)
class Batch:
    """Right-padded token rows and the index of each row's prompt.

    Shapes: ``input_ids`` and ``attention_mask`` [B, S] (int64, mask 1 on text), ``labels`` [B, T]
    (``IGNORE`` on padding), ``run`` [B] with values in 0..R-1. ``seed`` selects the dropout masks of a
    training step; ``None`` means no dropout. ``hidden`` [B, P] marks the prompt rows that a row is read
    without, as if its prompt did not have them; ``None`` means none.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    run: Tensor
    seed: int | None = None
    hidden: Tensor | None = None

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def select(self, rows: Tensor) -> Batch:
        """The given rows, in that order, with padding that none of them needs trimmed off."""
        mask, labels = self.attention_mask[rows], self.labels[rows]
        text = max(1, int(mask.sum(1).max()))
        output = max(1, int((labels != IGNORE).sum(1).max()))
        return replace(
            self,
            input_ids=self.input_ids[rows, :text],
            attention_mask=mask[:, :text],
            labels=labels[:, :output],
            run=self.run[rows],
            hidden=None if self.hidden is None else self.hidden[rows],
        )

    def micro_batches(
        self, max_tokens: int | None, extra: int = 0, cost: int | None = None
    ) -> Iterator[tuple[Tensor, Batch]]:
        """Regroup the rows by length so that little of a batch is padding.

        Rows do not interact, so any grouping gives the same numbers.

        Args:
            max_tokens: upper bound on rows x (text length + ``extra``); ``None`` keeps the batch whole.
            extra: tokens added to every row (the prompt length P).
            cost: the fixed cost of a forward pass, in tokens; None: as few passes as the bound allows.

        Yields:
            (row indices [b], the batch of those rows). A single row may exceed ``max_tokens``.
        """
        lengths = self.attention_mask.sum(1)
        order = torch.argsort(lengths, stable=True)
        sizes = (lengths[order] + extra).tolist()
        ends = [len(sizes)] if cost is None or max_tokens is None else _cheapest(sizes, max_tokens, cost)
        if max_tokens is None or (len(ends) == 1 and len(sizes) * sizes[-1] <= max_tokens):
            rows = torch.arange(len(self), device=lengths.device)
            yield rows, self.select(rows)
            return
        start = 0
        for end in ends:
            while start < end:
                stop = start + 1
                # Sizes ascend: every row of a group is padded to its last one.
                while stop < end and (stop + 1 - start) * sizes[stop] <= max_tokens:
                    stop += 1
                rows = order[start:stop]
                yield rows, self.select(rows)
                start = stop

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            labels=self.labels.to(device),
            run=self.run.to(device),
            hidden=None if self.hidden is None else self.hidden.to(device),
        )

    def prompt_lengths(self, length: int) -> Tensor:
        """How many of the ``length`` rows of its prompt each row is read with, [B]."""
        whole = torch.full_like(self.run, length)
        return whole if self.hidden is None else whole - self.hidden.sum(1)


def _cheapest(sizes: Sequence[int], max_tokens: int, cost: int) -> list[int]:
    """The ends of groups of ascending sizes with the smallest total cost.

    A group costs its padded tokens (rows x longest) and ``cost`` for each forward pass it is cut into.
    """
    # Dynamic program over prefixes: the cheapest grouping of the first ``end`` rows is the cheapest grouping
    # of some shorter prefix and one more group. best[end] = (its cost, the ends of its groups).
    best: dict[int, tuple[int, list[int]]] = {0: (0, [])}
    for end in range(1, len(sizes) + 1):
        if end < len(sizes) and sizes[end] == sizes[end - 1]:
            continue  # rows of one length are never worth separating
        tokens = {start: (end - start) * sizes[end - 1] for start in best}
        totals = {s: best[s][0] + t + cost * math.ceil(t / max_tokens) for s, t in tokens.items()}
        start = min(totals, key=totals.__getitem__)
        best[end] = (totals[start], [*best[start][1], end])
    return best[len(sizes)][1]


def collate(
    inputs: Sequence[Sequence[int]],
    outputs: Sequence[Sequence[int]],
    runs: Sequence[int],
    *,
    pad: int,
    seed: int | None = None,
) -> Batch:
    """Pad token lists to a ``Batch``.

    Args:
        inputs: token ids of the texts, one list a row.
        outputs: token ids of the outputs, one list a row (empty if there is nothing to learn from).
        runs: index of each row's prompt.
        pad: id of the padding token.
        seed: dropout seed of the batch.
    """
    rows = len(inputs)
    ids = torch.full((rows, max(1, max(map(len, inputs)))), pad)
    mask = torch.zeros_like(ids)
    labels = torch.full((rows, max(1, max(map(len, outputs)))), IGNORE)
    for i, (text, output) in enumerate(zip(inputs, outputs, strict=True)):
        ids[i, : len(text)] = torch.tensor(text, dtype=torch.long)
        mask[i, : len(text)] = 1
        labels[i, : len(output)] = torch.tensor(output, dtype=torch.long)
    return Batch(ids, mask, labels, torch.tensor(list(runs), dtype=torch.long), seed)


def candidates_tensor(candidates: Sequence[Sequence[Sequence[int]]], fill: int) -> Tensor:
    """Pad each row's candidate outputs (lists of token ids) to [B, C, T], ``fill`` on padding."""
    choices = max(len(row) for row in candidates)
    length = max(1, max(len(ids) for row in candidates for ids in row))
    out = torch.full((len(candidates), choices, length), fill)
    for b, row in enumerate(candidates):
        for c, ids in enumerate(row):
            out[b, c, : len(ids)] = torch.tensor(ids, dtype=torch.long)
    return out
