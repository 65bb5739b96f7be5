"""Causal attention to what has been read before: prompts shared by the rows of a run, texts kept for good.

What comes first in a causal model does not depend on what follows. So the keys and values of a prompt that
stands before the text are the same for all rows of its run, and those of a text that stands before the prompt
are the same for all prompts: both are read once, as *contexts*, and the rows attend to them.

This attention takes the place of transformers' while rows are read (``reading``). The families reach it
through transformers' own table of attention functions, so it serves every family that uses the table.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from softstart.backbone import tangents
from softstart.backbone.unpadded import Unpadded
from softstart.prompt.kinds import Pairs

NAME = "softstart"
"""The name of this attention in transformers' table. As there is no mask function of that name, transformers
makes no mask."""


@dataclass
class Context:
    """Vectors that rows attend to, read by an earlier pass.

    Args:
        pairs: keys and values [G, C, S, h] of every layer: C contexts of S vectors.
        sizes: [C] vectors of each context; None: all of them have S.
        of: [B] the context of each row; None: row b has context ``b // (B / C)``.
        hidden: [B, S] vectors that a row does not see, with ``of``; they keep their positions.
    """

    pairs: Pairs
    sizes: Tensor | None = None
    of: Tensor | None = None
    hidden: Tensor | None = None

    @property
    def length(self) -> int:
        """S, the vectors of the longest context."""
        return int(self.pairs[0][0].shape[2])

    def ends(self, rows: int) -> Tensor | int:
        """How many vectors the context of each row has: [B], or one number for all."""
        if self.sizes is None:
            return self.length
        if self.of is not None:
            return self.sizes[self.of]
        return self.sizes.repeat_interleave(rows // len(self.sizes))


@dataclass(frozen=True)
class Branches:
    """Vectors that continue several beginnings in one row.

    Args:
        places: [N] how many vectors of the row each one comes after.
        sees: [N, N] whether vector i attends to vector j.
    """

    places: Tensor
    sees: Tensor


@dataclass
class Reading:
    """What one forward pass attends to besides its own rows, and what it leaves for later passes.

    Args:
        contexts: in the order of their positions; the rows come after the last one.
        record: if given, the pass leaves its own keys and values [B, G, N, h] of every layer there.
        fused: fused kernels, which cannot be differentiated twice, may be used.
        layout: where the rows' vectors stand; None: the rows are padded to one length.
        branches: the rows are no sequences but trees, all of one shape; without it, each vector sees those
            before it.
    """

    contexts: Sequence[Context] = ()
    record: dict[int, tuple[Tensor, Tensor]] | None = None
    fused: bool = True
    layout: Unpadded | None = None
    branches: Branches | None = None
    _masks: dict[int | None, tuple[list[Tensor | None], Tensor]] = field(default_factory=dict)

    def positions(self, rows: int, new: int, device: torch.device) -> Tensor:
        """Positions [B or 1, N] of a pass's rows."""
        before: Tensor | int = 0
        for context in self.contexts:
            before = before + context.ends(rows)
        place = self._places(new, device)
        return place + before[:, None] if isinstance(before, Tensor) else (place + before)[None]

    def padded(self, heads: Tensor) -> Tensor:
        """Queries, keys or values of the rows [B, H, N, h], from [1, H, tokens, h] without padding."""
        if self.layout is None:
            return heads
        rows = self.layout.unpack(heads.transpose(1, 2).flatten(2))
        return rows.view(*rows.shape[:2], heads.shape[1], -1).transpose(1, 2)

    def unpadded(self, out: Tensor) -> Tensor:
        """What rows have attended to [B, N, H, h], as transformers' layers expect it."""
        if self.layout is None:
            return out.contiguous()
        return self.layout.pack(out.flatten(2)).view(1, -1, *out.shape[2:])

    def masks(self, query: Tensor, window: int | None) -> tuple[list[Tensor | None], Tensor]:
        """What a query must not see, as numbers to add to scores.

        Args:
            query: [B, H, N, h].
            window: positions of a sliding window; what lies further back is hidden.

        Returns:
            (for every context [B or C, 1 or N, S], or None where nothing is hidden; for the rows [N, N]).
        """
        new = query.shape[2]
        if window is not None and sum(context.length for context in self.contexts) + new <= window:
            window = None
        if window not in self._masks:
            self._masks[window] = self._make(query, window)
        return self._masks[window]

    def _make(self, query: Tensor, window: int | None) -> tuple[list[Tensor | None], Tensor]:
        rows, new, device = query.shape[0], query.shape[2], query.device
        place = self._places(new, device)
        back = place[:, None] - place  # [N, N] how far back a key lies
        own = back < 0 if self.branches is None else ~self.branches.sees
        own = own if window is None else own | (back >= window)
        masks: list[Tensor | None] = []
        positions = self.positions(rows, new, device)  # [B or 1, N]
        first: Tensor | int = 0  # the position a context begins at: [B], or one number
        for context in self.contexts:
            slots = torch.arange(context.length, device=device)
            hidden: Tensor | None = None
            if context.sizes is not None:
                ends = context.sizes if context.of is None else context.sizes[context.of]
                hidden = (slots >= ends[:, None])[:, None]  # [C or B, 1, S]
            if window is not None:
                begins = first[:, None] if isinstance(first, Tensor) else first
                far = positions[:, :, None] - (slots + begins)[..., None, :] >= window  # [B or 1, N, S]
                if hidden is not None and context.of is None and len(far) > 1:
                    hidden = hidden.repeat_interleave(rows // len(hidden), 0)
                hidden = far if hidden is None else hidden | far
            if context.hidden is not None:
                own_view = context.hidden[:, None]  # [B, 1, S]
                hidden = own_view if hidden is None else hidden | own_view
            masks.append(None if hidden is None else _negative(hidden, query.dtype))
            first = first + context.ends(rows)
        return masks, _negative(own, query.dtype)

    def _places(self, new: int, device: torch.device) -> Tensor:
        """How far behind its contexts every vector of a row stands: [N]."""
        return torch.arange(new, device=device) if self.branches is None else self.branches.places


def _negative(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -math.inf)


def recorded(record: dict[int, tuple[Tensor, Tensor]]) -> Pairs:
    """What a pass has recorded [B, G, N, h], as contexts [G, B, N, h] of later passes."""
    return [(key.transpose(0, 1), value.transpose(0, 1)) for _, (key, value) in sorted(record.items())]


@contextlib.contextmanager
def reading(model: Any) -> Iterator[None]:
    """Let a transformers model attend by this module; its calls then take a ``Reading`` as ``read``."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if NAME not in ALL_ATTENTION_FUNCTIONS:
        ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    read: Reading,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: [B, H, N, h], keys and values [B, G, N, h] → [B, N, H, h]."""
    query, key, value = (read.padded(heads) for heads in (query, key, value))
    if read.record is not None:
        read.record[module.layer_idx] = (key, value)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    hidden, own = read.masks(query, sliding_window)
    if not read.contexts and read.fused and softcap is None:
        out = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=own, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
        )
    else:
        pasts = [
            _Past(keys, values, context.of, mask).to(query.dtype)
            for context, mask in zip(read.contexts, hidden, strict=True)
            for keys, values in [context.pairs[module.layer_idx]]
        ]
        out = _joint(tangents.times(query, scale), key, value, pasts, own, softcap)
    return read.unpadded(out.transpose(1, 2)), None


@dataclass
class _Past:
    """One context in one layer: keys and values [G, C, S, h]."""

    keys: Tensor
    values: Tensor
    of: Tensor | None
    hidden: Tensor | None

    def __post_init__(self) -> None:
        if self.of is not None:
            self.keys, self.values = self.keys.index_select(1, self.of), self.values.index_select(1, self.of)

    def to(self, dtype: torch.dtype) -> _Past:
        """In the dtype of the queries: texts may be kept in a smaller one."""
        self.keys, self.values = self.keys.to(dtype), self.values.to(dtype)
        return self

    def scores(self, query: Tensor, softcap: float | None) -> Tensor:
        """[B, H, N, h] → [B, G, E, N, S], E heads of queries for each of keys."""
        rows, heads, new, width = query.shape
        groups, count, length, _ = self.keys.shape
        # Rows of one context multiply with it together: [G, C, (rows of it) E N, h].
        stacked = query.reshape(count, -1, groups, heads // groups, new, width).permute(2, 0, 1, 3, 4, 5)
        scores = tangents.product(stacked.reshape(groups, count, -1, width), self.keys.transpose(2, 3))
        scores = _capped(scores, softcap).view(groups, count, rows // count, -1, new, length)
        scores = scores.permute(1, 2, 0, 3, 4, 5)  # [C, rows of it, G, E, N, S]
        if self.hidden is not None and len(self.hidden) == count:
            scores = tangents.plus(scores, self.hidden[:, None, None, None])
        scores = scores.reshape(rows, groups, -1, new, length)
        if self.hidden is not None and len(self.hidden) != count:
            scores = tangents.plus(scores, self.hidden[:, None, None])
        return scores

    def mean(self, weights: Tensor) -> Tensor:
        """Attended values: [B, G, E, N, S] → [B, G, E, N, h]."""
        rows, groups, each, new, length = weights.shape
        count = self.values.shape[1]
        stacked = weights.reshape(count, -1, groups, each, new, length).permute(2, 0, 1, 3, 4, 5)
        out = tangents.product(stacked.reshape(groups, count, -1, length), self.values)
        out = out.view(groups, count, rows // count, each, new, -1).permute(1, 2, 0, 3, 4, 5)
        return out.reshape(rows, groups, each, new, -1)


def _joint(
    query: Tensor, key: Tensor, value: Tensor, pasts: Sequence[_Past], own: Tensor, softcap: float | None
) -> Tensor:
    """One softmax over all contexts and the rows themselves; contexts that are constant get no gradient."""
    rows, heads, new, width = query.shape
    groups = key.shape[1]
    scores = [past.scores(query, softcap) for past in pasts]
    grouped = query.reshape(rows, groups, -1, width)
    now = _capped(grouped @ key.transpose(2, 3), softcap).view(rows, groups, -1, new, new)
    scores.append(tangents.plus(now, own))
    weights = tangents.softmax(torch.cat(scores, -1))
    *before, now = weights.split([part.shape[-1] for part in scores], -1)
    out: Tensor = (now.reshape(rows, groups, -1, new) @ value).view(rows, groups, -1, new, width)
    for past, part in zip(pasts, before, strict=True):
        out = out + past.mean(part)
    return out.reshape(rows, heads, new, width)


def _capped(scores: Tensor, softcap: float | None) -> Tensor:
    if softcap is None:
        return scores

    def shrink(x: Tensor) -> Tensor:
        return x / softcap

    return tangents.times(torch.tanh(tangents.mapped(scores, shrink, shrink)), softcap)
