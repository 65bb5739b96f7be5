"""How much memory work needs, without doing the work.

The real code runs on tensors that have shapes but no numbers (torch's meta device), and every storage that is
made and freed is counted. So the peak of any model is known in about a second from its configuration. Tensors
are counted exactly; ``Heap`` models what a CPU's allocator adds, and ``UNSEEN`` covers the rest.
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
"""Growth of a CPU process relative to ``Heap``: workspace in kernels and small objects come on top. Chosen on
the first eight cases of ``benchmarks/memory`` and checked on the other four."""


class Ledger(TorchDispatchMode):
    """Counts the live bytes of tensors made while it is entered, and their peak.

    Floating-point tensors have no numbers. Integers and masks are real, because shapes depend on them.
    """

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.live = self.peak = 0
        self.heap = Heap()
        self._sizes: dict[int, int] = {}  # of the storages seen, by address; 0 for those made before
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
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        # ``tensor.item()`` and ``bool(tensor)`` of a tensor without numbers: False and 0.
        if func is torch.ops.aten._local_scalar_dense.default and tensors[0].is_meta:
            return False if tensors[0].dtype == torch.bool else 0 * tensors[0].dtype.is_floating_point
        for tensor in tensors:
            self._count(tensor.untyped_storage(), existing=True)
        if any(tensor.is_meta for tensor in tensors):
            # One operand without numbers makes the others and the result so too.
            args, kwargs = tree_map(_without_numbers, (args, kwargs))
        elif kwargs.get("device") == META:
            # A new tensor: integers and masks (arange, ones of a mask) are made with numbers after all.
            kinds = [t.dtype for t in tensors] + [kwargs.get("dtype")]
            result = func(*args, **kwargs)
            if not (result.is_floating_point() or torch.float32 in kinds):
                result = func(*args, **{**kwargs, "device": "cpu"})
            return self._counted(result)
        return self._counted(func(*args, **kwargs))

    def _counted(self, result: Any) -> Any:
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage, existing: bool = False) -> None:
        """Note a storage the first time it is seen; an ``existing`` one was made before and costs nothing."""
        place = storage._cdata
        if place in self._sizes:
            return
        self._sizes[place] = size = 0 if existing else storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        if size:
            self.heap.take(place, size)
        weakref.finalize(storage, self._free, place).atexit = False

    def _free(self, place: int) -> None:
        if size := self._sizes.pop(place):
            self.live -= size
            self.heap.give(place)


class _Fused:
    """Fused attention as the device has it: it keeps other tensors for backward than the plain formula.

    It replaces torch's function. A TorchFunctionMode would not be seen by layers that are recomputed in a
    backward pass.
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
        if mask is not None and mask.requires_grad:  # in fine-tuning; the fused kernels lack its gradient
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
        attended: Tensor = out[0]
        return attended


def _without_numbers(leaf: Any) -> Any:
    """A tensor or device argument, moved to the meta device; anything else as it is."""
    if isinstance(leaf, torch.device):
        return META
    return leaf.to(META) if isinstance(leaf, Tensor) and not leaf.is_meta else leaf


@dataclass(frozen=True)
class Peak:
    """The most bytes of tensors alive at once, and the bytes a CPU process grows by to hold them."""

    tensors: int
    heap: int

    def on(self, device: str) -> int:
        """The bytes needed on a device: a GPU's allocator adds almost nothing to the tensors."""
        return self.tensors if device == "cuda" else self.heap


def traced(do: Callable[[], object], device: str = "cpu") -> Peak:
    """The memory that a function takes on meta tensors, beyond what existed before."""
    with Ledger(device) as ledger:
        do()
    return Peak(ledger.peak, round(UNSEEN * ledger.heap.peak))


def _round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


class Heap:
    """glibc's malloc as torch uses it on a CPU (``kernels.keep_freed_memory``), as far as it wastes memory.

    Best fit with coalescing. torch asks for aligned blocks, and malloc cuts each out of a larger one. The
    sliver before it goes to small objects and does not come back, so free blocks on both sides of it never
    join. Long-lived tensors next to short-lived ones make the heap grow by that, up to 1.8 times (measured).
    """

    ALIGNMENT, LEAST, SMALL = 64, 32, 1040
    """Bytes: alignment of torch's blocks, the smallest block, and the smallest rest that stays a block."""

    def __init__(self) -> None:
        self.peak = self._top = self._mapped = 0
        self._free: list[tuple[int, int]] = []  # (size, place) of free blocks, ascending
        self._sizes: dict[int, int] = {}  # sizes of free blocks, by place
        self._ends: dict[int, int] = {}  # places of free blocks, by end
        self._used: dict[int, tuple[int, int]] = {}  # (place, size) by key; place -1: outside the heap

    def take(self, key: int, size: int) -> None:
        """Find room for a tensor."""
        if size >= kernels.KEPT:  # malloc maps it on its own
            self._mapped += size
            self._used[key] = (-1, size)
        else:
            need = max(self.LEAST, _round_up(size + 8, 16))  # 8 bytes of header
            asked = need + self.ALIGNMENT + self.LEAST
            fitting = bisect_left(self._free, (asked, -1))
            if fitting < len(self._free):
                block, place = self._free[fitting]
                self._remove(place)
            else:
                block, place = asked, self._top
                self._top += asked
            # A tensor begins 16 bytes behind its block, at a multiple of the alignment. The sliver before the
            # block is empty or a block itself.
            start = _round_up(place + 16, self.ALIGNMENT) - 16
            if 0 < start - place < self.LEAST:
                start += self.ALIGNMENT
            rest = block - (start - place) - need
            if rest >= self.SMALL:
                self._add(start + need, rest)
                rest = 0
            self._used[key] = (start, need + rest)
        self.peak = max(self.peak, self._top + self._mapped)

    def give(self, key: int) -> None:
        """Free the room of a tensor."""
        place, size = self._used.pop(key, (0, 0))
        if place < 0:
            self._mapped -= size
        elif size:
            self._add(place, size)

    def _add(self, place: int, size: int) -> None:
        """Join a free block with free neighbors, or with the top of the heap."""
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
    """Bytes of all weights and buffers; shared ones count once."""
    tensors = [*backbone.model.parameters(), *backbone.model.buffers()]
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


def equal_rows(rows: int, text: int, output: int, *, runs: int = 1, dropout: bool = False) -> Batch:
    """Rows of ``text`` and ``output`` tokens. One text is a token shorter, so that there is padding."""
    lengths = [text] * (rows - 1) + [max(1, text - 1)] if rows > 1 else [text]
    owners = [i * runs // rows for i in range(rows)]
    seed = 0 if dropout else None
    return collate([[3] * n for n in lengths], [[3] * output] * rows, owners, pad=0, seed=seed)
