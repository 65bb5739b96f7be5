"""The sections of ``python -m benchmarks.engine causal``: tables, each kept in a file when it is done."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from benchmarks.engine import causal, maml
from benchmarks.engine.causal import CausalWork
from benchmarks.engine.causal_tasks import CausalAdaptation, Scoring
from benchmarks.engine.timing import Contender, peak_elsewhere

PARTS = ("steps", "long", "scoring", "adaptation", "setting", "maml", "peaks", "rounding")
PEFT = "PEFT, plain loop"
RUNS = 20
"""Runs of a whole setting."""


class Compare(Protocol):
    """Makers of contenders, rounds and units → rows of a table; ``peer``: whom all are compared with."""

    def __call__(
        self,
        makers: Mapping[str, Callable[[], Contender]],
        rounds: int,
        units: float,
        *,
        peer: str | None = None,
    ) -> Iterator[str]: ...


@dataclass(frozen=True)
class Section:
    """A table under its heading; ``lines`` measures."""

    heading: str
    lines: Callable[[], Iterator[str]]


def report(asked: argparse.Namespace, compare: Compare) -> Iterator[str]:
    """The sections asked for; those that ``asked.out`` holds already are left out, others are added to it."""
    known = asked.out.read_text(encoding="utf-8") if asked.out and asked.out.exists() else ""
    for section in _sections(asked, compare):
        if f"### {section.heading}\n" in known:
            continue
        lines = ["", f"### {section.heading}", ""]
        yield from lines
        for line in section.lines():
            lines.append(line)
            yield line
        if asked.out:
            _add(asked.out, lines)


def _add(file: Path, lines: list[str]) -> None:
    with file.open("a", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n")


def _sections(asked: argparse.Namespace, compare: Compare) -> Iterator[Section]:
    shape, rounds = asked.model or "smollm2", asked.rounds
    work = CausalWork(shape, gym=causal.gym_folder())
    for long in (False, True):
        if ("long" if long else "steps") in asked.parts:
            for heading, case in causal.cases(shape, asked.packs, asked.prompts, long=long):
                gradients = partial(causal.contenders, case)
                yield Section(
                    f"Causal, {heading} (unit: a gradient of a run)",
                    partial(
                        lambda made, runs: compare(made(), rounds, runs, peer=PEFT), gradients, case.runs
                    ),
                )
    if "scoring" in asked.parts:
        score = Scoring(replace(work, runs=8), asked.rows)
        yield Section(
            f"Causal, scoring {asked.rows} test rows under 8 prompts (unit: all rows under a prompt)",
            lambda: compare(_placed(score), rounds, 8, peer=PEFT),
        )
    if "adaptation" in asked.parts:
        adapt = CausalAdaptation(work, asked.steps * 20, asked.rows)
        yield Section(
            f"Causal, a whole adaptation, {adapt.steps} steps, 5 dev evaluations, {asked.rows} test rows",
            lambda: compare(_placed(adapt), rounds, 1, peer=PEFT),
        )
    if "setting" in asked.parts:
        grid = CausalAdaptation(replace(work, runs=RUNS), asked.steps * 10, asked.rows)
        yield Section(
            f"Causal, {RUNS} runs of {len(work.tasks)} tasks from start to test score, {grid.steps} steps, 5 "
            f"dev evaluations, {asked.rows} test rows (unit: a run)",
            lambda: compare(_setting(grid, asked.only), rounds, RUNS, peer=PEFT),
        )
    for steps in asked.inner:
        if "maml" in asked.parts:
            yield Section(
                f"Causal, exact MAML, K = {steps}, 1 task, batch 2 (unit: a meta-gradient)",
                partial(lambda steps: compare(_second_order(work, steps), rounds, 1), steps),
            )
    if "rounding" in asked.parts:
        four = replace(work, runs=4)
        yield Section(
            "Causal, log-likelihood of a row in a pack of 32 rows, in nats: median and largest difference",
            partial(_rounding, four),
        )
    if "peaks" in asked.parts:
        yield Section(
            "Causal, peak memory of exact MAML, MiB above the loaded model, one process each",
            lambda: _peaks(shape, asked),
        )


def _placed(work: Scoring | CausalAdaptation) -> dict[str, Callable[[], Contender]]:
    return {
        "prefix, prompts read once": lambda: work.softstart("prefix"),
        "suffix, texts read once": lambda: work.softstart("suffix"),
        PEFT: work.peft,
    }


def _setting(grid: CausalAdaptation, only: Collection[str]) -> dict[str, Callable[[], Contender]]:
    """A whole setting in both dtypes; the peers are timed on one run of it."""
    half = torch.bfloat16
    made = {
        "suffix, texts read once": lambda: grid.softstart("suffix"),
        "suffix, bfloat16": lambda: grid.softstart("suffix", half),
        "prefix, prompts read once": lambda: grid.softstart("prefix"),
        "prefix, bfloat16": lambda: grid.softstart("prefix", half),
        PEFT: grid.peft,
        f"{PEFT}, bfloat16": lambda: grid.peft(half),
    }
    return {name: make for name, make in made.items() if not only or name in only}


@torch.no_grad()
def _rounding(work: CausalWork) -> Iterator[str]:
    """What a row's log-likelihood owes to its neighbors in a pack, and to the dtype."""
    yield "| pass | dtype | from the same row alone | from float32 |"
    yield "|---|---|---|---|"
    packed = work.joined(list(range(work.runs)))
    for placement, once in (("prefix", True), ("prefix", False), ("suffix", True), ("suffix", False)):
        full = work.placed(placement, once=once).nll(work.starts, packed)[0]
        for dtype in (torch.float32, torch.bfloat16):
            backbone = work.placed(placement, once=once, dtype=dtype)
            together = backbone.nll(work.starts, packed)[0].float()
            rows = [packed.select(torch.tensor([i])) for i in range(len(packed))]
            alone = torch.cat([backbone.nll(work.starts, row)[0] for row in rows]).float()
            apart = ((together - other).abs() for other in (alone, full))
            cells = [f"{float(d.median()):.2g}, {float(d.max()):.2g}" for d in apart]
            name = f"{placement}, {'read once' if once else 'rows read whole'}"
            yield f"| {name} | {str(dtype).removeprefix('torch.')} | {' | '.join(cells)} |"


def _second_order(work: CausalWork, steps: int) -> dict[str, Callable[[], Contender]]:
    two = replace(work, rows=2)
    made = {name: partial(make, two, steps=steps) for name, make in maml.CONTENDERS.items()}
    after = replace(two, placement="suffix")
    return made | {
        "softstart, suffix, all graphs kept": lambda: maml.softstart(after, steps, 1 << 40),
        "softstart, suffix, last graph kept": lambda: maml.softstart(after, steps, None),
    }


def _peaks(shape: str, asked: argparse.Namespace) -> Iterator[str]:
    yield "| who | " + " | ".join(f"K = {k}" for k in asked.inner) + " |"
    yield "|---" * (1 + len(asked.inner)) + "|"
    how = ("--model", shape, "--threads", str(asked.threads))
    for name in maml.CONTENDERS:
        cells = [peak_elsewhere(*how, "--who", name, "--inner", str(k)) for k in asked.inner]
        yield f"| {name} | " + " | ".join(cells) + " |"
