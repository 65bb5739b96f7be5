"""Run the benchmarks and print Markdown: ``python -m benchmarks.engine [--shapes …] [--rounds N]``."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

if "causal" not in sys.argv:  # threads that sleep between its many small kernels slow it down
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from benchmarks.engine import adaptation, causal, causal_report, maml, padding, scaling
from benchmarks.engine.causal_report import PEFT, RUNS
from benchmarks.engine.embedded_tasks import EmbeddedAdaptation
from benchmarks.engine.timing import (
    PRODUCT,
    PRODUCTS,
    Absent,
    Contender,
    interleaved,
    peak,
    peak_elsewhere,
    table,
)
from benchmarks.engine.work import SHAPES, Work

from softstart.diagnostics.machine import this_machine


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        default="all",
        choices=["all", "adaptation", "maml", "scaling", "padding", "setting", "causal", "peak"],
    )
    parser.add_argument("--shapes", nargs="+", default=["tiny", "embedded"], choices=[*SHAPES, "embedded"])
    parser.add_argument("--packs", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--prompts", nargs="+", type=int, default=[20, 100], help="prompt lengths of causal")
    parser.add_argument("--model", help="smollm2 (default) or micro: of causal, or for peak")
    parser.add_argument(
        "--parts", nargs="+", default=[*causal_report.PARTS], choices=[*causal_report.PARTS], help="of causal"
    )
    parser.add_argument("--rows", type=int, default=500, help="test rows of causal")
    parser.add_argument("--out", type=Path, help="of causal: add to this file what it does not hold yet")
    parser.add_argument("--inner", nargs="+", type=int, default=[1, 5])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="steps of a run in a round of adaptation")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-peaks", action="store_true", help="leave out peak memory")
    parser.add_argument("--compiled", action="store_true", help="adaptation with compiled layers, too")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        help="contenders of adaptation and of causal's setting; all by default",
    )
    parser.add_argument("--who", help="one contender (for peak)")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.what == "peak":
        try:
            work, small = (
                _second_order(asked.model, asked.shapes[0]),
                _second_order(asked.model and "micro", "micro"),
            )
            made = maml.CONTENDERS[asked.who](work, steps=asked.inner[0])
            maml.CONTENDERS[asked.who](small, steps=1)()  # loads what is loaded once
            print(f"{peak(made):.0f}")
        except Absent as problem:
            sys.exit(str(problem))
        return
    for line in _report(asked):
        print(line, flush=True)


def _report(asked: argparse.Namespace) -> Iterator[str]:
    machine = this_machine()
    versions = ", ".join(
        f"{k} {v}" for k, v in machine.packages.items() if k in ("torch", "transformers", "peft")
    )
    load = f"; load average before {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    yield f"{machine.devices[0].kind}, {machine.cores} cores, {asked.threads} threads; {versions}{load}."
    if asked.what == "scaling":
        yield from scaling.report(asked.shapes, max(asked.packs), asked.rounds)
        return
    if asked.what == "causal":
        yield from causal_report.report(asked, _compare)
        return
    if asked.what == "setting":
        yield from _setting(asked)
        return
    for shape in asked.shapes:
        if asked.what in ("all", "adaptation"):
            for runs in asked.packs:
                for ragged in (True, False):
                    work = Work(shape, runs, ragged=ragged, steps=asked.steps)
                    lengths = "ragged lengths" if ragged else "equal lengths"
                    yield f"\n### Adaptation, {shape}, {runs} runs of batch 8, {lengths} (unit: a step)\n"
                    yield from _compare(
                        {
                            name: partial(make, work)
                            for name, make in (adaptation.CONTENDERS | adaptation.COMPILED).items()
                            if (asked.compiled or name not in adaptation.COMPILED)
                            and (not asked.only or name in asked.only)
                        },
                        asked.rounds,
                        runs * asked.steps,
                        work.flops,
                    )
        if asked.what in ("all", "padding"):
            for runs, ragged in product(asked.packs, (True, False)):
                work = Work(shape, runs, ragged=ragged)
                lengths = "ragged lengths" if ragged else "equal lengths"
                yield f"\n### Padding, {shape}, {runs} runs of batch 8, {lengths} (unit: a step)\n"
                made = {name: partial(_itself, do) for name, do in padding.contenders(work).items()}
                yield from _compare(made, asked.rounds, runs, work.flops)
        if asked.what in ("all", "maml"):
            for steps in asked.inner:
                work = Work(shape, rows=2)
                yield f"\n### Exact MAML, {shape}, K = {steps}, 1 task, batch 2 (unit: a meta-gradient)\n"
                yield from _compare(
                    {name: partial(make, work, steps=steps) for name, make in maml.CONTENDERS.items()},
                    asked.rounds,
                    1,
                )
            if not asked.no_peaks:
                yield from _peaks(shape, asked)


def _setting(asked: argparse.Namespace) -> Iterator[str]:
    """A whole setting on the embedded model; the peer is timed on two runs of it."""
    grid = EmbeddedAdaptation(Work("embedded", RUNS, prompt=20), asked.steps * 40, asked.rows, peers=2)
    yield (
        f"\n### Embedded, {RUNS} runs of {len(grid.tasks)} tasks from start to test score, "
        f"{grid.steps} steps, 5 dev evaluations, at most {grid.rows} test rows (unit: a run)\n"
    )
    made = {"softstart": lambda: grid.softstart("prefix"), PEFT: grid.peft}
    yield from _compare(made, asked.rounds, RUNS, peer=PEFT)


def _second_order(model: str | None, shape: str) -> maml.Asked:
    """Two rows of a causal model, or of a T5 of some shape."""
    return causal.CausalWork(model, rows=2, gym=causal.gym_folder()) if model else Work(shape, rows=2)


def _itself(contender: Contender) -> Contender:
    return contender


def _compare(
    makers: Mapping[str, Callable[[], Contender]],
    rounds: int,
    units: float,
    flops: float = math.nan,
    peer: str | None = None,
) -> Iterator[str]:
    """The rows of a table; ``flops`` of a unit say which share of the float32 matrix product is reached.

    ``peer``: see ``timing.table``.
    """
    contenders: dict[str, Any] = {}
    missing = []
    for name, make in makers.items():
        try:
            contenders[name] = make()
        except Absent as problem:
            missing.append(f"Not run: {name} ({problem}).")
    if not math.isnan(flops):
        contenders |= PRODUCTS
    timed = interleaved(contenders, rounds, units)
    products = [median(timed.pop(name).seconds) for name in PRODUCTS if name in timed]
    yield from table(timed, flops / PRODUCT * min(products, default=math.nan), peer)
    yield from missing


def _peaks(shape: str, asked: argparse.Namespace) -> Iterator[str]:
    yield f"\n### Peak memory of exact MAML, {shape}, MiB above the loaded model, one process each\n"
    yield "| who | " + " | ".join(f"K = {k}" for k in asked.inner) + " |"
    yield "|---" * (1 + len(asked.inner)) + "|"
    for name in maml.CONTENDERS:
        cells = [
            peak_elsewhere(
                "--shapes", shape, "--who", name, "--inner", str(k), "--threads", str(asked.threads)
            )
            for k in asked.inner
        ]
        yield f"| {name} | " + " | ".join(cells) + " |"


main()
