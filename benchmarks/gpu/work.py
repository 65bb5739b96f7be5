"""Models with random weights on the device, batches of a real size, and times that are medians."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from statistics import median
from typing import Any

import torch
from benchmarks.engine.work import RAGGED

from softstart.backbone import Batch, T5Backbone, collate
from softstart.backbone.shapes import t5_config

TEXT, OUTPUT = 70, 4
"""Tokens of a row's text and output: the median of the few-shot gym's tasks."""
MICRO = "micro"
"""A shape for the smoke run."""


@dataclass(frozen=True)
class Size:
    """How large everything is: on a GPU, or in the smoke run on a CPU."""

    device: torch.device
    shapes: tuple[str, ...]
    packs: tuple[int, ...]
    prompt: int
    rows: int
    text: int
    rounds: int
    beams_tokens: int
    dtype: torch.dtype
    matmul: int

    @classmethod
    def smoke(cls) -> Size:
        """Every section in seconds."""
        cpu = torch.device("cpu")
        return cls(cpu, (MICRO,), (1, 2), 3, 4, 6, 1, 3, torch.bfloat16, 64)

    @classmethod
    def full(cls, shapes: tuple[str, ...]) -> Size:
        """What is published: 16 rows a step, prompts of 100 rows, bfloat16."""
        packs = (1, 2, 4, 8, 16, 32, 64)
        return cls(torch.device("cuda"), shapes, packs, 100, 16, TEXT, 6, 128, torch.bfloat16, 8192)


@lru_cache(maxsize=2)
def _made(device: torch.device, shape: str, dtype: torch.dtype) -> Any:
    from transformers import T5ForConditionalGeneration

    config = t5_config("small" if shape == MICRO else shape)
    config.dropout_rate = 0.0
    if shape == MICRO:
        config.vocab_size, config.d_model, config.d_ff, config.num_heads = 200, 16, 24, 2
        config.d_kv, config.num_layers, config.num_decoder_layers = 8, 2, 2
    torch.manual_seed(0)
    with device:
        model = T5ForConditionalGeneration(config)
    return model.to(dtype).requires_grad_(False).eval()


class Model:
    """One shape in one dtype."""

    def __init__(
        self, size: Size, shape: str, dtype: torch.dtype | None = None, *, compiled: bool = False
    ) -> None:
        self.size, self.shape, self.dtype, self.compiled = size, shape, dtype or size.dtype, compiled

    @cached_property
    def model(self) -> Any:
        """transformers' model, frozen."""
        return _made(self.size.device, self.shape, self.dtype)

    @cached_property
    def own(self) -> Any:
        """The same in a copy that nobody else works on."""
        return _made.__wrapped__(self.size.device, self.shape, self.dtype)

    @cached_property
    def backbone(self) -> T5Backbone:
        """The same network run by softstart."""
        made = T5Backbone(self.model, None, name=self.shape)  # type: ignore[arg-type]
        if self.compiled:
            made.compile()
        return made

    def starts(self, runs: int) -> torch.Tensor:
        """[R, P, d] in float32."""
        torch.manual_seed(1)
        words = torch.randint(5, 150, (runs, self.size.prompt), device=self.size.device)
        return self.backbone.vocabulary[words].to(self.backbone.prompt_dtype).clone()

    def batch(
        self, runs: int, *, rows: int | None = None, ragged: bool = False, real: bool = False, seed: int = 0
    ) -> Batch:
        """The rows of runs; ``ragged``: a token or two apart; ``real``: of the spread of real texts."""
        generator = torch.Generator().manual_seed(seed)
        count = (rows or self.size.rows) * runs

        def ids(length: int) -> list[int]:
            return torch.randint(5, 150, (length,), generator=generator).tolist()

        lengths = [self.size.text - (i % 3 if ragged else 0) for i in range(count)]
        if real:
            lengths = [max(1, round(self.size.text / TEXT * RAGGED[i % len(RAGGED)])) for i in range(count)]
        owners = [i * runs // count for i in range(count)]
        batch = collate([ids(n) for n in lengths], [ids(OUTPUT) for _ in lengths], owners, pad=0)
        return batch.to(self.size.device)


def seconds(do: Callable[[], object], size: Size, warm: int = 2) -> float:
    """Median of the rounds after a few to warm up."""
    taken = []
    for _ in range(size.rounds + warm):
        began = time.perf_counter()
        do()
        if size.device.type == "cuda":
            torch.cuda.synchronize(size.device)
        taken.append(time.perf_counter() - began)
    return median(taken[warm:])


def interleaved(
    steps: Mapping[str, tuple[Callable[[], object], int]], size: Size, rounds: int
) -> dict[str, Any]:
    """Seconds of one unit of each, by rounds in turn after one that warms up.

    Args:
        steps: what to time and how many units it does, by name; the first is what others are compared with.
        size: where.
        rounds: how many.

    Returns:
        By name, ``seconds`` (median) and how many ``times`` the first one's, ``least`` and ``most`` over
        rounds; or why it ``failed``.
    """
    taken: dict[str, list[float]] = {name: [] for name in steps}
    failed: dict[str, dict[str, Any]] = {}
    for turn in range(1 + rounds):
        for name, (do, units) in steps.items():
            if name not in failed:
                try:
                    spent = seconds(do, replace(size, rounds=1), warm=0) / units
                except RuntimeError as problem:
                    failed[name] = {"failed": str(problem).splitlines()[0][:80]}
                    continue
                if turn:
                    taken[name].append(spent)
    first = next(seconds for name, seconds in taken.items() if name not in failed)
    timed = {}
    for name, each in taken.items():
        if name not in failed:
            ratios = [a / b for a, b in zip(each, first, strict=True)]
            spread = {"times": median(ratios), "least": min(ratios), "most": max(ratios)}
            timed[name] = {"seconds": median(each), **spread}
    return timed | failed


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Distance relative to the size of b, in norms."""
    return float((a.double() - b.double()).norm() / b.double().norm())


def peak_bytes(size: Size) -> int:
    """The most the GPU's allocator held since this was asked last."""
    if size.device.type != "cuda":
        return 0
    most = int(torch.cuda.max_memory_allocated(size.device))
    torch.cuda.reset_peak_memory_stats(size.device)
    return most


def allocated(size: Size) -> int:
    """What the GPU's allocator holds now."""
    return int(torch.cuda.memory_allocated(size.device)) if size.device.type == "cuda" else 0
