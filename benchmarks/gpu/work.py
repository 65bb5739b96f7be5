"""Models with random weights on the device, batches of a real size, and times that are medians."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

import torch

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
        return cls(torch.device("cuda"), shapes, packs, 100, 16, TEXT, 10, 128, torch.bfloat16, 8192)


class Model:
    """One shape in one dtype."""

    def __init__(self, size: Size, shape: str, dtype: torch.dtype | None = None) -> None:
        self.size, self.shape, self.dtype = size, shape, dtype or size.dtype

    @cached_property
    def model(self) -> Any:
        """transformers' model, frozen."""
        from transformers import T5ForConditionalGeneration

        config = t5_config("small" if self.shape == MICRO else self.shape)
        config.dropout_rate = 0.0
        if self.shape == MICRO:
            config.vocab_size, config.d_model, config.d_ff, config.num_heads = 200, 16, 24, 2
            config.d_kv, config.num_layers, config.num_decoder_layers = 8, 2, 2
        torch.manual_seed(0)
        with self.size.device:
            model = T5ForConditionalGeneration(config)
        return model.to(self.dtype).requires_grad_(False).eval()

    @cached_property
    def backbone(self) -> T5Backbone:
        """The same network run by softstart."""
        return T5Backbone(self.model, None, name=self.shape)  # type: ignore[arg-type]

    def starts(self, runs: int) -> torch.Tensor:
        """[R, P, d] in float32."""
        torch.manual_seed(1)
        words = torch.randint(5, 150, (runs, self.size.prompt), device=self.size.device)
        return self.backbone.vocabulary[words].to(self.backbone.prompt_dtype).clone()

    def batch(self, runs: int, *, rows: int | None = None, ragged: bool = False, seed: int = 0) -> Batch:
        """The rows of ``runs`` runs."""
        generator = torch.Generator().manual_seed(seed)
        count = (rows or self.size.rows) * runs

        def ids(length: int) -> list[int]:
            return torch.randint(5, 150, (length,), generator=generator).tolist()

        lengths = [self.size.text - (i % 3 if ragged else 0) for i in range(count)]
        owners = [i * runs // count for i in range(count)]
        batch = collate([ids(n) for n in lengths], [ids(OUTPUT) for _ in lengths], owners, pad=0)
        return batch.to(self.size.device)


def seconds(do: Callable[[], object], size: Size) -> float:
    """Median of the rounds after two to warm up."""
    taken = []
    for _ in range(size.rounds + 2):
        began = time.perf_counter()
        do()
        if size.device.type == "cuda":
            torch.cuda.synchronize(size.device)
        taken.append(time.perf_counter() - began)
    return median(taken[2:])


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
