"""How much memory work needs, told without doing it.

The passes of the real code run on tensors that have shapes and no numbers (torch's meta device), and every
storage that comes and goes is counted: the peak is known in a second or so for any model whose configuration
is at hand. Tensors are counted exactly; what a CPU's allocator adds is a model, what it misses ``UNSEEN``.
"""

from __future__ import annotations

import weakref
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from softstart.backbone import Backbone, Batch, collate, kernels

META = torch.device("meta")

UNSEEN = 1.15
"""How much further a CPU process grows than ``Heap`` tells: workspace in kernels, small objects. Chosen on
the first eight cases of ``benchmarks/memory``, checked on the other four."""


class Ledger(TorchDispatchMode):
    """Counts the bytes alive among tensors made while it is entered, and their peak.

    Floating-point tensors have no numbers; integers and masks, which decide shapes, are real.
    """

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.live = self.peak = 0
        self.heap = Heap()
        self._known: dict[int, int] = {}
        self._fused = _Fused(device)

    def __enter__(self) -> Ledger:
        self._fused.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        self._fused.__exit__(*exc)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if func is torch.ops.aten._local_scalar_dense.default and given[0].is_meta:
            return False if given[0].dtype == torch.bool else 0 * given[0].dtype.is_floating_point
        for tensor in given:
            self._count(tensor.untyped_storage(), there=True)
        if any(tensor.is_meta for tensor in given):
            args, kwargs = tree_map(_without_numbers, (args, kwargs))
        elif kwargs.get("device") == META:
            kinds = [t.dtype for t in given] + [kwargs.get("dtype")]
            made = func(*args, **kwargs)
            if not (made.is_floating_point() or torch.float32 in kinds):
                made = func(*args, **{**kwargs, "device": "cpu"})
            return self._counted(made)
        return self._counted(func(*args, **kwargs))

    def _counted(self, made: Any) -> Any:
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage, there: bool = False) -> None:
        """Note a storage; one that was ``there`` before costs nothing."""
        place = storage._cdata
        if place in self._known:
            return
        self._known[place] = size = 0 if there else storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        if size:
            self.heap.take(place, size)
        weakref.finalize(storage, self._free, place).atexit = False

    def _free(self, place: int) -> None:
        if size := self._known.pop(place):
            self.live -= size
            self.heap.give(place)


class _Fused:
    """Fused attention as the device has it: what it keeps for backward differs from the plain formula's.

    In torch's place and not a TorchFunctionMode, which layers recomputed in a backward pass do not see.
    """

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self.plain = functional.scaled_dot_product_attention

    def __enter__(self) -> None:
        vars(functional)["scaled_dot_product_attention"] = self

    def __exit__(self, *exc: Any) -> None:
        vars(functional)["scaled_dot_product_attention"] = self.plain

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        fused = torch.backends.cuda.flash_sdp_enabled()
        return self._attention(*args, **kwargs) if fused else self.plain(*args, **kwargs)

    def _attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        mask = attn_mask
        if mask is not None and mask.requires_grad:  # fine-tuning; the fused kernels have no gradient for it
            return self.plain(q, k, v, mask, dropout_p, is_causal, scale=scale)
        if mask is not None and mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=q.dtype, device=META)
        if self.cuda:
            mask = None if mask is None else mask.expand(len(q), q.shape[1], q.shape[2], k.shape[2])
            out = torch.ops.aten._scaled_dot_product_efficient_attention(
                q, k, v, mask, True, dropout_p, is_causal, scale=scale
            )
        else:
            out = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q, k, v, dropout_p, is_causal, attn_mask=mask, scale=scale
            )
        found: Tensor = out[0]
        return found


def _without_numbers(leaf: Any) -> Any:
    if isinstance(leaf, torch.device):
        return META
    return leaf.to(META) if isinstance(leaf, Tensor) and not leaf.is_meta else leaf


@dataclass(frozen=True)
class Peak:
    """The most bytes alive at once, and what they make a process on a CPU grow by."""

    tensors: int
    heap: int

    def on(self, device: str) -> int:
        """What counts on a device: a GPU's allocator loses next to nothing."""
        return self.tensors if device == "cuda" else self.heap


def traced(do: Callable[[], object], device: str = "cpu") -> Peak:
    """What something takes that is done on meta tensors, beyond what was there before."""
    with Ledger(device) as ledger:
        do()
    return Peak(ledger.peak, round(UNSEEN * ledger.heap.peak))


class Heap:
    """glibc's malloc as torch uses it on a CPU (``kernels.keep_freed_memory``), as far as it loses memory.

    Best fit with coalescing. An aligned block is cut out of a larger one. The sliver before it is handed to
    small objects and does not come back, so that blocks freed around it do not join: what lives long beside
    what does not makes the heap grow, up to 1.8 times as far (measured).
    """

    ALIGNMENT, LEAST, SMALL = 64, 32, 1040

    def __init__(self) -> None:
        self.peak = self._top = self._mapped = 0
        self._free: list[tuple[int, int]] = []  # (size, place), ascending
        self._sizes: dict[int, int] = {}  # of free blocks, by place
        self._ends: dict[int, int] = {}  # places of free blocks, by end
        self._used: dict[int, tuple[int, int]] = {}  # (place, size); place -1: mapped on its own

    def take(self, key: int, size: int) -> None:
        """Find room for a tensor."""
        if size >= kernels.KEPT:
            self._mapped += size
            self._used[key] = (-1, size)
        else:
            need = max(self.LEAST, -(-(size + 8) // 16) * 16)
            asked = need + self.ALIGNMENT + self.LEAST
            at = bisect_left(self._free, (asked, -1))
            if at < len(self._free):
                got, place = self._free[at]
                self._remove(place)
            else:
                got, place = asked, self._top
                self._top += asked
            start = -(-(place + 16) // self.ALIGNMENT) * self.ALIGNMENT - 16
            start += self.ALIGNMENT * (0 < start - place < self.LEAST)
            rest = got - (start - place) - need
            if rest >= self.SMALL:
                self._add(start + need, rest)
                rest = 0
            self._used[key] = (start, need + rest)
        self.peak = max(self.peak, self._top + self._mapped)

    def give(self, key: int) -> None:
        """A tensor is gone."""
        place, size = self._used.pop(key, (0, 0))
        if place < 0:
            self._mapped -= size
        elif size:
            self._add(place, size)

    def _add(self, place: int, size: int) -> None:
        if place in self._ends:
            before = self._ends[place]
            size, place = size + place - before, before
            self._remove(before)
        if (end := place + size) in self._sizes:
            size += self._sizes[end]
            self._remove(end)
        if place + size == self._top:
            self._top = place
        else:
            insort(self._free, (size, place))
            self._sizes[place], self._ends[place + size] = size, place

    def _remove(self, place: int) -> None:
        size = self._sizes.pop(place)
        del self._ends[place + size]
        del self._free[bisect_left(self._free, (size, place))]


def weight_bytes(backbone: Backbone) -> int:
    """Bytes of all weights and buffers, each once."""
    tensors = [*backbone.model.parameters(), *backbone.model.buffers()]
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


def equal_rows(rows: int, text: int, output: int, *, runs: int = 1, dropout: bool = False) -> Batch:
    """Rows of ``text`` and ``output`` tokens, but for one that is a token shorter: padding."""
    lengths = [text] * (rows - 1) + [max(1, text - 1)] if rows > 1 else [text]
    owners = [i * runs // rows for i in range(rows)]
    seed = 0 if dropout else None
    return collate([[3] * n for n in lengths], [[3] * output] * rows, owners, pad=0, seed=seed)
