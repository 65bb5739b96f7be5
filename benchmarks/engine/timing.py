"""Fair timing: interleaved rounds in one process, medians with spread; peak memory in fresh processes."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from softstart.backbone import kernels
from softstart.backbone.devices import forget_peak, peak_memory, status_bytes

Contender = Callable[[], torch.Tensor]


class Absent(Exception):
    """A peer that is not installed or does not run here, with the reason."""


@dataclass(frozen=True)
class Timed:
    """Seconds of every round, the units of work in one, and the difference from the first one's answer."""

    seconds: tuple[float, ...]
    units: float
    difference: float


def interleaved(contenders: Mapping[str, Contender], rounds: int, units: float = 1) -> dict[str, Timed]:
    """Run everybody once to warm up, then ``rounds`` times in turn.

    Answers are compared with the first contender's, relative to its norm, so that other work is seen. One
    that holds the first n of m parts did n of m of the ``units``.
    """
    answers = {name: work() for name, work in contenders.items()}
    first = next(iter(answers.values()))
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            began = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - began)
    parts = {name: units * len(answer) / len(first) for name, answer in answers.items()}
    return {n: Timed(tuple(taken[n]), parts[n], _difference(answers[n], first)) for n in contenders}


SIDE, REPEATS = 1024, 20
PRODUCT = 2.0 * SIDE**3 * REPEATS
"""FLOPs of each of ``PRODUCTS``."""
_SQUARE = torch.ones(SIDE, SIDE)


def _repeated(product: Contender) -> Contender:
    return lambda: [product() for _ in range(REPEATS)][-1]


PRODUCTS: dict[str, Contender] = {
    "product": _repeated(lambda: _SQUARE @ _SQUARE),
    "product, ours": _repeated(lambda: kernels.linear(_SQUARE, _SQUARE)),
}
"""Float32 products of square matrices: the faster one is the best that the machine reaches."""


def _difference(answer: torch.Tensor, first: torch.Tensor) -> float:
    if answer.shape[1:] != first.shape[1:] or len(answer) > len(first):
        return math.nan
    first = first[: len(answer)]
    return float((answer - first).norm() / first.norm())


def table(timed: Mapping[str, Timed], ideal: float = math.nan, peer: str | None = None) -> list[str]:
    """Markdown rows: median time a unit, units a second, the first one's speed over each one's by rounds.

    Args:
        timed: by contender, the first one ours.
        ideal: seconds that a unit would take at the speed of ``product``; its share is a column.
        peer: in place of the first one's speed over each one's, each one's over that of this contender.
    """
    ours, peers = next(iter(timed.values())), timed.get(peer or "")
    shares = "" if math.isnan(ideal) else " of the product's speed |"
    compared = f"faster than {peer} by" if peers else "the first row is faster by"
    lines = [
        f"| who | ms a unit | units/s | {compared} [min–max] | difference |" + shares,
        "|---|---|---|---|---|" + ("---|" if shares else ""),
    ]
    for name, t in timed.items():
        each = _of_units(t)
        slow, fast = (_of_units(peers), each) if peers else (each, _of_units(ours))
        ratios = [slower / faster for slower, faster in zip(slow, fast, strict=True)]
        middle = median(each)
        spread = f"{median(ratios):.2f} [{min(ratios):.2f}–{max(ratios):.2f}]"
        lines.append(
            f"| {name} | {1e3 * middle:.0f} | {1 / middle:.2f} | {spread} | {t.difference:.1e} |"
            + (f" {ideal / middle:.2f} |" if shares else "")
        )
    return lines


def _of_units(timed: Timed) -> list[float]:
    """Seconds a unit, by round."""
    return [seconds / timed.units for seconds in timed.seconds]


def peak(work: Contender) -> float:
    """MiB above what the process held before, at the peak of one call in this process (Linux).

    The peak is set back first, or building the model would hide it.
    """
    if not sys.platform.startswith("linux"):
        raise Absent("peak memory is read from /proc, which only Linux has")
    cpu = torch.device("cpu")
    before = status_bytes("VmRSS")
    if not forget_peak(cpu):
        raise Absent("the peak of this process cannot be set back")
    work()
    return (peak_memory(cpu) - before) / 2**20


def peak_elsewhere(*arguments: str) -> str:
    """``peak`` in a fresh process: ``python -m benchmarks.engine peak …``; a number, or why there is none."""
    command = [sys.executable, "-m", "benchmarks.engine", "peak", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return lines[-1] if lines else "failed"
