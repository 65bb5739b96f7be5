"""What a study costs on a GPU: arithmetic, and the measured rate if there is one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from softstart.backbone.shapes import T5_V1_1, published
from softstart.errors import SoftstartError
from softstart.study.cost.estimate import Estimate
from softstart.study.cost.memory_needs import shape_of
from softstart.study.declare.spec import Study
from softstart.study.declare.study_file import variants_of

HALF, SINGLE = "bfloat16", "float32"
PEAKS = {
    "H200": {HALF: 989e12, SINGLE: 67e12},
    "H100": {HALF: 989e12, SINGLE: 67e12},
    "A100": {HALF: 312e12, SINGLE: 19.5e12},
}
"""FLOP/s of dense products on SXM boards, from NVIDIA's data sheets; float32 without TF32's rounding."""

ASSUMED = (0.5, 0.3)
"""Shares of the peak that a study might reach: assumptions, not measurements."""

_SHORT = 60.0
"""Seconds below which hours of a GPU say nothing."""

MEASURED = resources.files("softstart.study.cost").joinpath("measured.json")
"""The rates that ``python -m benchmarks.gpu`` measured, part of the package (see ``rates_of``)."""

known_shape = lru_cache(shape_of)
"""``shape_of``, each once."""


def row_flops(study: Study, text: float, output: float) -> float:
    """Model FLOPs of a row of so many tokens of text, prompt included, and output, forward and backward.

    Raises:
        SoftstartError: the backbone's configuration is not at hand.
    """
    backbone = known_shape(study.backbone, study.dtype, revision=study.revision)
    return backbone.row_flops(text, output).gradient


def rates_of(results: Mapping[str, Any]) -> dict[str, Any]:
    """What ``measured_rate`` reads of the results of ``benchmarks.gpu``: FLOP/s of packs, the machine."""
    machine = results.get("machine", {})
    return {
        "machine": {name: machine[name] for name in ("device", "smoke") if name in machine},
        "packs": {
            what: {"flops": row["flops"]} for what, row in results.get("packs", {}).items() if "flops" in row
        },
    }


def measured_rate(study: Study, file: Traversable = MEASURED) -> tuple[float, str] | None:
    """The best FLOP/s measured for the study's backbone, dtype and ``compile``, and on what; None where there
    is no measurement: ``benchmarks.gpu`` measures shapes of T5 v1.1 in bfloat16.
    """
    shape = published(study.backbone)
    try:
        rates = rates_of(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    machine = rates["machine"]
    if shape is None or study.dtype != HALF or machine.get("smoke", True):
        return None
    fitting = [
        row["flops"]
        for what, row in rates["packs"].items()
        if T5_V1_1.get(what.split()[0], (0,))[0] == shape.d_model
        if what.endswith(", compiled") == study.compile
    ]
    return (max(fitting), machine["device"]) if fitting else None


def cost_lines(
    study: Study,
    needed: Estimate,
    gpu: str = "H200",
    rate: float | None = None,
    file: Traversable = MEASURED,
) -> Iterator[str]:
    """What is left of a study in GPU-hours, with the arithmetic, line by line.

    Args:
        study: the study.
        needed: the rows of work of its variants and their length.
        gpu: the GPU whose peak is taken.
        rate: a measured rate, in TFLOP/s.
        file: results of ``benchmarks.gpu``; by default those of the package.

    Raises:
        SoftstartError: a GPU whose peak is unknown.
    """
    if gpu not in PEAKS:
        raise SoftstartError(f"the peak of GPU '{gpu}' is unknown", fix=f"Use one of {', '.join(PEAKS)}.")
    studies = variants_of(study)
    # Variants with the same backbone and length are one line.
    alike: dict[tuple[str, str | None, str, float, float], tuple[Study, float]] = {}
    for variant, left in needed.work.items():
        each = studies[variant]
        key = (each.backbone, each.revision, each.dtype, left.text, left.output)
        alike[key] = (each, left.count + alike.get(key, (each, 0.0))[1])
    flops: list[tuple[Study, float]] = []
    arithmetic = []
    for (backbone, *_, text, output), (each, rows) in alike.items():
        try:
            one = row_flops(each, text, output)
        except SoftstartError as problem:
            yield f"the GPU-hours are unknown: {problem}"
            return
        flops.append((each, rows * one))
        of = f" on {backbone}" if len({each.backbone for each, _ in alike.values()}) > 1 else ""
        arithmetic.append(
            f"{rows:.3g} rows forward and backward{of}, of {text + output:.0f} tokens, "
            f"x {one / 1e12:.3g} TFLOP a row = {rows * one:.3g} FLOPs"
        )
    total = sum(work for _, work in flops)
    if total and not rate and total / PEAKS[gpu][SINGLE] / min(ASSUMED) < _SHORT:
        yield f"on one {gpu}: under a minute"
        return
    yield from arithmetic
    if not total:
        return
    if len(flops) > 1:
        yield f"together {total:.3g} FLOPs"
    declared = [HALF if each.dtype in (HALF, "float16") else SINGLE for each, _ in flops]
    for dtypes in dict.fromkeys((tuple(declared), (HALF,) * len(declared))):
        peaks = [PEAKS[gpu][dtype] for dtype in dtypes]
        floor = sum(work / peak for (_, work), peak in zip(flops, peaks, strict=True))
        shares = ", ".join(f"{_hours(floor / share)} at {share:.0%}" for share in ASSUMED)
        speeds = " and ".join(f"{peak / 1e12:.0f}" for peak in dict.fromkeys(peaks))
        yield (
            f"on one {gpu} with dtype {' and '.join(dict.fromkeys(dtypes))}: {_hours(floor)} at the {speeds} "
            f"TFLOP/s of its data sheet (a floor), {shares} of them (assumed, not measured)"
        )
    if rate:
        known = [(rate * 1e12, "--gpu-rate")] * len(flops)
    else:
        known = [each for each in (measured_rate(each, file) for each, _ in flops) if each]
    if len(known) == len(flops):
        seconds = sum(work / speed for (_, work), (speed, _) in zip(flops, known, strict=True))
        yield f"{_hours(seconds)} at {total / seconds / 1e12:.3g} TFLOP/s, measured ({known[0][1]})"
    else:
        yield "no rate is measured for this study: give --gpu-rate TFLOP/s"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.3g} h"
