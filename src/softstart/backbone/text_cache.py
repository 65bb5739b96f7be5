"""Keys and values of texts that have been read, for every later pass over the same texts.

The frozen backbone gives a text that stands before everything else the same keys and values whatever the
prompt after it is. They are kept by token, so that a batch of texts of any lengths is put together by one
indexed copy a layer, and the texts used least recently make room for new ones.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from softstart.backbone.devices import free_memory, out_of_memory
from softstart.backbone.read_once import Context
from softstart.errors import SoftstartError
from softstart.prompt.kinds import Pairs

LOG = logging.getLogger("softstart")
VARIABLE = "SOFTSTART_TEXT_CACHE"
"""Environment variable: MiB that the texts of a process may take."""
SHARE = 0.25
"""Part of the free memory that texts may take by default."""
ASSUMED = 1 << 30
"""Bytes that count as free where nobody can say."""
FIRST = 1024
"""Tokens that the store has room for at first; it grows as needed, up to its budget."""
READ_TOKENS = 4096
"""Tokens of one pass that reads texts, padding included."""

Text = tuple[int, ...]
"""The tokens of a text."""
Read = Callable[[Tensor, Tensor], Pairs]
"""Reads texts: ids and mask [C, S] → keys and values [G, C, S, h] of every layer."""


def default_budget(device: torch.device, processes: int = 1) -> int:
    """Bytes that texts may take: ``SOFTSTART_TEXT_CACHE`` MiB, else a share of a quarter of the free memory.

    Args:
        device: whose memory.
        processes: how many processes share it.

    Raises:
        SoftstartError: the variable is not a number of MiB.
    """
    given = os.environ.get(VARIABLE)
    if given is None:
        return int(SHARE * (free_memory(device) or ASSUMED)) // processes
    if not given.isdigit():
        raise SoftstartError(
            f"'{given}' is not a number of MiB", where=VARIABLE, fix="Give a whole number, 0 to keep no text."
        )
    return int(given) << 20


class TextCache:
    """Keys and values of texts, least recently used first to go.

    Args:
        read: computes what is not kept.
        budget: bytes; None: ``default_budget`` when the first text is read; 0: none.
        dtype: what keys and values are kept in; None: as they are computed.
        processes: how many share the memory.
    """

    def __init__(
        self, read: Read, budget: int | None = None, dtype: torch.dtype | None = None, processes: int = 1
    ) -> None:
        self.read, self.budget, self.dtype, self.processes = read, budget, dtype, processes
        self.texts_read = self.texts_kept = self.tokens_read = 0
        self._slots: OrderedDict[Text, Tensor] = OrderedDict()
        self._free: list[Tensor] = []
        self._stores: list[Tensor] = []  # a layer's keys and values [2, G, room, h]
        self._room = self._most = 0
        self._short = False

    def contexts(self, ids: Tensor, mask: Tensor) -> Context:
        """The texts of a batch, ids and mask [B, S] with padding on the right, as a context of its rows.

        A text that several rows have is one context. Rows that are not in the order of their contexts are
        told apart by ``Context.of``.
        """
        lengths = mask.sum(1).tolist()
        keys = [tuple(row[:n]) for row, n in zip(ids.tolist(), lengths, strict=True)]
        unique = list(dict.fromkeys(keys))
        place = {key: i for i, key in enumerate(unique)}
        of = [place[key] for key in keys]
        pairs = self._pairs(unique, ids.device)
        sizes = [len(key) for key in unique]
        even = len(set(sizes)) == 1 and sizes[0] > 0
        shared = len(keys) // len(unique)
        in_order = of == [b // shared for b in range(len(keys))] and shared * len(unique) == len(keys)
        return Context(
            pairs,
            None if even else torch.tensor(sizes, device=ids.device),
            None if in_order else torch.tensor(of, device=ids.device),
        )

    def _pairs(self, texts: Sequence[Text], device: torch.device) -> Pairs:
        known = [text in self._slots for text in texts]
        missing = [text for text, there in zip(texts, known, strict=True) if not there]
        self.texts_kept += len(texts) - len(missing)
        for text, there in zip(texts, known, strict=True):
            if there:
                self._slots.move_to_end(text)
        if missing and not (self._fill(missing, set(texts), device) and self._slots.keys() >= set(texts)):
            return self._read(texts, device)[0]
        longest = max(1, *map(len, texts))
        slots = torch.zeros(len(texts), longest, dtype=torch.long)
        for i, text in enumerate(texts):
            slots[i, : len(text)] = self._slots[text]
        flat = slots.flatten().to(device)
        pairs = []
        for store in self._stores:
            both = store.index_select(2, flat).unflatten(2, (len(texts), longest))
            pairs.append((both[0], both[1]))
        return pairs

    def _read(self, texts: Sequence[Text], device: torch.device) -> tuple[Pairs, Tensor]:
        """Keys and values of texts, and their mask; all texts make room if memory runs out."""
        ids, mask = _padded(texts, device)
        try:
            pairs = self.read(ids, mask)
        except (MemoryError, RuntimeError) as problem:
            if not self._stores or not out_of_memory(problem):
                raise
            LOG.info("no memory to read texts (%s): those that were kept make room", _first_line(problem))
            self._let_go()
            pairs = self.read(ids, mask)
        self.texts_read += len(texts)
        self.tokens_read += sum(map(len, texts))
        return pairs, mask

    def _let_go(self) -> None:
        self._slots.clear()
        self._stores, self._free = [], []
        self._room = 0

    def _fill(self, missing: list[Text], wanted: set[Text], device: torch.device) -> bool:
        """Read and keep texts; False where there is no room for all that a batch needs."""
        if self.budget == 0:
            return False
        missing = sorted(missing, key=len)
        first = 0
        while first < len(missing):
            last = first + 1
            while last < len(missing) and (last + 1 - first) * len(missing[last]) <= READ_TOKENS:
                last += 1
            part = missing[first:last]
            pairs, mask = self._read(part, device)
            if not self._stores:
                self._open(pairs, device)
            if not self._make_room(sum(map(len, part)), wanted):
                return False
            self._keep(part, pairs, mask)
            first = last
        return True

    def _open(self, pairs: Pairs, device: torch.device) -> None:
        token = sum(2 * key.shape[0] * key.shape[3] * (self.dtype or key.dtype).itemsize for key, _ in pairs)
        budget = self.budget if self.budget is not None else default_budget(device, self.processes)
        self._most = budget // token
        LOG.info(
            "texts are read once: up to %d MiB of keys and values are kept (%.0f KiB a token)",
            budget >> 20, token / 1024,
        )  # fmt: skip
        self._room = min(FIRST, self._most)
        self._stores = [
            key.new_zeros(2, key.shape[0], self._room + 1, key.shape[3], dtype=self.dtype or key.dtype)
            for key, _ in pairs
        ]
        self._free = [torch.arange(1, self._room + 1)] if self._room else []  # slot 0 is padding

    def _make_room(self, tokens: int, wanted: set[Text]) -> bool:
        while sum(map(len, self._free)) < tokens:
            if self._room < self._most:
                self._grow(tokens)
                continue
            others = (text for text in self._slots if text not in wanted)
            oldest = next(others, None) if tokens <= self._room else None
            if oldest is None:
                if not self._short:
                    LOG.info("a batch needs more texts than can be kept: they are read again (slower)")
                self._short = True
                return False
            self._free.append(self._slots.pop(oldest))
        return True

    def _grow(self, tokens: int) -> None:
        room = min(self._most, max(2 * self._room, self._room + tokens))
        try:
            for i, store in enumerate(self._stores):
                larger = store.new_zeros(2, store.shape[1], room + 1, store.shape[3])
                larger[:, :, : store.shape[2]] = store
                self._stores[i] = larger
        except (MemoryError, RuntimeError) as problem:
            if not out_of_memory(problem):
                raise
            LOG.info("no memory for more texts (%s): older ones make room", _first_line(problem))
            rooms = [store.shape[2] for store in self._stores]
            self._stores = [store[:, :, : min(rooms)] for store in self._stores]
            self._most = self._room
            return
        self._free.append(torch.arange(self._room + 1, room + 1))
        self._room = room

    def _keep(self, texts: Sequence[Text], pairs: Pairs, mask: Tensor) -> None:
        lengths = list(map(len, texts))
        free = torch.cat(self._free)
        taken, rest = free[: sum(lengths)], free[sum(lengths) :]
        self._free = [rest]
        for text, slots in zip(texts, taken.split(lengths), strict=True):
            self._slots[text] = slots
        # Row after row without padding, in the order of the slots.
        where, real = taken.to(mask.device), mask.flatten().nonzero().squeeze(1)
        for store, (key, value) in zip(self._stores, pairs, strict=True):
            store[0].index_copy_(1, where, key.flatten(1, 2).index_select(1, real).to(store.dtype))
            store[1].index_copy_(1, where, value.flatten(1, 2).index_select(1, real).to(store.dtype))


def _first_line(problem: Exception) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]


def _padded(texts: Sequence[Text], device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(1, *map(len, texts))
    ids, mask = (torch.zeros(len(texts), longest, dtype=torch.long) for _ in range(2))
    for i, text in enumerate(texts):
        ids[i, : len(text)] = torch.tensor(text, dtype=torch.long)
        mask[i, : len(text)] = 1
    return ids.to(device), mask.to(device)
