"""What a study costs on a GPU: arithmetic, and a measured rate where there is one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from softstart.errors import SoftstartError
from softstart.study.estimate import Estimate
from softstart.study.needs import shape_of
from softstart.study.spec import Study

HALF, SINGLE = "bfloat16", "float32"
PEAKS = {
    "H200": {HALF: 989e12, SINGLE: 67e12},
    "H100": {HALF: 989e12, SINGLE: 67e12},
    "A100": {HALF: 312e12, SINGLE: 19.5e12},
}
"""FLOP/s of dense products on the SXM boards, by NVIDIA's data sheets; float32 without TF32's rounding."""

ASSUMED = (0.5, 0.3)
"""Shares of the peak that a well and a fairly used GPU might reach: assumptions, not measurements."""

OUTPUT = 4
"""Tokens of the output among those of a row."""

MEASURED = Path("benchmarks/gpu/results.json")
"""Where ``python -m benchmarks.gpu`` leaves its measurements in a clone."""


def row_flops(study: Study, length: float) -> float:
    """Model FLOPs of a row of ``length`` tokens, prompt and output included, forward and backward.

    Raises:
        SoftstartError: the backbone's configuration is not at hand.
    """
    backbone = shape_of(study.backbone, study.dtype, study.revision)
    return backbone.row_flops(round(length) - OUTPUT, OUTPUT).gradient


def measured_rate(study: Study, file: Path = MEASURED) -> tuple[float, str] | None:
    """The best FLOP/s measured for the study's backbone, and on what; None where there is no measurement."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    machine = found.get("machine", {})
    size = study.backbone.replace("_", "-")
    rates = [
        row["flops"]
        for what, row in found.get("packs", {}).items()
        if "flops" in row and f"-{what.split()[0]}" in size
    ]
    return (max(rates), machine["device"]) if rates and not machine.get("smoke", True) else None


def cost_lines(
    study: Study, found: Estimate, gpu: str = "H200", rate: float | None = None, file: Path = MEASURED
) -> Iterator[str]:
    """What is left of a study in GPU-hours, with the arithmetic.

    Args:
        study: the study.
        found: its rows of work and their length.
        gpu: the GPU whose peak is taken.
        rate: measured TFLOP/s.
        file: measurements of ``benchmarks.gpu``.

    Raises:
        SoftstartError: a GPU whose peak is not known.
    """
    if gpu not in PEAKS:
        raise SoftstartError(f"the peak of GPU '{gpu}' is not known", mend=f"Use one of {', '.join(PEAKS)}.")
    if not found.tokens or not found.length:
        return
    try:
        one = row_flops(study, found.length)
    except SoftstartError as problem:
        yield f"GPU-hours cannot be told: {problem}"
        return
    rows = found.tokens / found.length
    total = rows * one

    def hours(speed: float) -> str:
        return f"{total / speed / 3600:,.3g} h"

    yield (
        f"{rows:.3g} rows forward and backward, of {found.length:.0f} tokens, x {one / 1e12:.3g} TFLOP a row "
        f"= {total:.3g} FLOPs"
    )
    own = HALF if study.dtype in (HALF, "float16") else SINGLE
    for dtype in dict.fromkeys((own, HALF)):
        peak = PEAKS[gpu][dtype]
        shares = ", ".join(f"{hours(peak * share)} at {share:.0%}" for share in ASSUMED)
        yield (
            f"on one {gpu} with dtype {dtype}: {hours(peak)} at the {peak / 1e12:.0f} TFLOP/s of its data "
            f"sheet (a floor), {shares} of them (assumed, not measured)"
        )
    known = (rate * 1e12, "--gpu-rate") if rate else measured_rate(study, file)
    if known:
        yield f"{hours(known[0])} at {known[0] / 1e12:.3g} TFLOP/s, measured ({known[1]})"
    else:
        yield "no rate is measured: python -m benchmarks.gpu on the GPU, or --gpu-rate TFLOP/s"
