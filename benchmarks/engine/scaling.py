"""Speed of an adaptation step along one axis at a time, the others as in the comparison with peers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from benchmarks.engine.adaptation import softstart
from benchmarks.engine.timing import PRODUCT, PRODUCTS, Contender, interleaved
from benchmarks.engine.work import Work


def report(shapes: Sequence[str], most: int, rounds: int) -> Iterator[str]:
    """Markdown: packs up to ``most``, prompt and text lengths on the first shape; all shapes; threads."""
    work = Work(shapes[0], runs=4, ragged=False, steps=1)
    yield (
        f"\nWhat is not varied: {work.shape}, {work.runs} runs (models: 1) of {work.rows} rows, texts of "
        f"{work.text} tokens, prompts of {work.prompt} rows, which count as tokens."
    )
    packs = [2**i for i in range(most.bit_length())]
    yield from _axis("runs in a pack, ragged", {n: replace(work, runs=n, ragged=True) for n in packs}, rounds)
    yield from _axis("runs in a pack", {n: replace(work, runs=n) for n in packs}, rounds)
    yield from _axis(
        "rows of the prompt", {n: replace(work, prompt=n) for n in (1, 5, 20, 50, 100, 200)}, rounds
    )
    lengths = (16, 32, 64, 128, 256, 512)
    yield from _axis("tokens of every text", {n: replace(work, text=n) for n in lengths}, rounds)
    yield from _axis("model", {shape: replace(work, shape=shape, runs=1) for shape in shapes}, rounds)
    counts = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= torch.get_num_threads()]
    if len(counts) > 1:
        yield from _axis("threads", dict.fromkeys(counts, work), rounds, vary_threads=True)


def _axis(
    name: str, works: dict[int, Work] | dict[str, Work], rounds: int, *, vary_threads: bool = False
) -> Iterator[str]:
    steps: dict[str, Contender] = {}
    for value, work in works.items():
        step = softstart(work)
        steps[str(value)] = partial(_with_threads, int(value), step) if vary_threads else step
    timed = interleaved({**steps, **PRODUCTS}, rounds)
    product = PRODUCT / min(median(timed[name].seconds) for name in PRODUCTS)
    yield f"\n### Scaling with {name}\n"
    yield f"| {name} | ms a step of the pack [min–max] | run-steps/s | tokens/s | of the product's speed |"
    yield "|---|---|---|---|---|"
    for value, work in works.items():
        seconds = timed[str(value)].seconds
        middle, rate = median(seconds), work.runs / median(seconds)
        batch = work.batch(0)
        tokens = int(batch.attention_mask.sum()) + len(batch) * work.prompt
        yield (
            f"| {value} | {1e3 * middle:.0f} [{1e3 * min(seconds):.0f}–{1e3 * max(seconds):.0f}] "
            f"| {rate:.2f} | {rate * tokens:,.0f} | {rate * work.flops / product:.2f} |"
        )


def _with_threads(count: int, step: Contender) -> torch.Tensor:
    usual = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return step()
    finally:
        torch.set_num_threads(usual)
