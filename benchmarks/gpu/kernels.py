"""Where the time on a GPU goes, by kind of kernel."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from benchmarks.gpu.work import Size, seconds

KINDS = (
    ("products", r"gemm|nvjet|cutlass.*(tensorop|s16816|wgmma)|xmma|gemv|splitk|cublas"),
    ("attention", r"fmha|attention|flash"),
    ("compiled", r"^triton"),
    ("copies", r"copy|memcpy|cat|transpose"),
    ("sums", r"reduce"),
    ("pointwise", r"elementwise|vectorized"),
)


def kernel_shares(do: Callable[[], object], size: Size) -> dict[str, Any]:
    """Percent of the kernels' time by kind, the percent of the wall time they fill, and their number."""
    from torch.profiler import ProfilerActivity, profile

    gpu = size.device.type == "cuda"
    wall = seconds(do, replace(size, rounds=1), warm=3)
    with profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]) as profiler:
        do()
        if gpu:
            torch.cuda.synchronize()
    taken: Counter[str] = Counter()
    names: Counter[str] = Counter()
    count = 0
    for event in profiler.events():
        spent = event.device_time_total if gpu else event.self_cpu_time_total
        if gpu and event.device_type != torch.autograd.DeviceType.CUDA:
            continue
        count += 1
        taken[_kind(event.name)] += spent
        names[event.name[:90]] += spent
    total = sum(taken.values())
    for name, spent in names.most_common(14):
        print(f"    {spent / total:6.1%} {name}")
    shares = {kind: round(100 * spent / total, 1) for kind, spent in taken.most_common()}
    return {"seconds": wall, "busy %": round(total / wall / 1e4, 1), "kernels": count, **shares}


def _kind(name: str) -> str:
    return next((kind for kind, words in KINDS if re.search(words, name, re.I)), "other")
