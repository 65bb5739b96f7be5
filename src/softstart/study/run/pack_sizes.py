"""How many runs fit into memory together, measured on a step and a dev evaluation of one run and of two."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from softstart.backbone.devices import forget_peak, free_memory, out_of_memory, peak_memory
from softstart.errors import SoftstartError
from softstart.progress import Progress, silent
from softstart.study.plan.plan import Plan, RunNode
from softstart.study.run.resources import Resources
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.encoding import EncodedTask
from softstart.training.starts import run_start

SHARE = 0.8
"""The part of the free memory that packs are cut for; longer texts than the probe's need the rest."""


def fitting_packs(resources: Resources, plan: Plan, processes: int) -> dict[str, int]:
    """The largest pack that fits, for each variant whose packs must be smaller than its ``pack_size``.

    Args:
        resources: backbone and tasks.
        plan: the runs to pack.
        processes: how many processes share the memory.
    """
    fits = {}
    for variant, study in plan.studies.items():
        runs = _longest(resources, [run for run in plan.runs if run.variant == variant])
        if len(runs) == 2 and study.pack_size > 1:
            room = free_memory(resources.backbone(variant).device)
            if room is not None:
                size = fitting(partial(_peak, resources, runs), SHARE * room / processes)
                if size < study.pack_size:
                    fits[variant] = size
    return fits


def fitting(peak: Callable[[int], int | None], room: float) -> int:
    """How many runs fit into ``room`` bytes if each one adds as much as the second; at least 1.

    Args:
        peak: measures the bytes that 1 or 2 runs take with everything else; None where they do not fit.
        room: bytes.
    """
    one = peak(1)
    two = None if one is None or one > room else peak(2)
    if one is None or two is None:
        return 1
    return sys.maxsize if two <= one else 1 + max(0, int((room - one) / (two - one)))


def try_out(
    resources: Resources,
    nodes: Sequence[RunNode],
    steps: int,
    progress: Progress = silent,
    *,
    dev_rows: int | None = None,
) -> None:
    """Adapt some runs of one variant for a few steps and evaluate them once, to measure time and memory.

    ``dev_rows``: evaluate on this many dev rows at most.
    """
    first = nodes[0]
    study, backbone = resources.studies[first.variant], resources.backbone(first.variant)
    runs = [
        AdaptRun(
            run_start(backbone, node.method.begins(study.prompt), task, node.seed, node.sample).prompt,
            task,
            node.sample,
            node.lr,
            node.seed,
        )
        for node in nodes
        for task in [_with_dev(resources.encoded(node.variant, node.task), dev_rows)]
    ]
    few = replace(study.adaptation, steps=steps, eval_start=False, eval_every=10**9, budgets=(), rungs=())
    adapt(backbone, runs, few, study.evaluation, progress=progress)


def _with_dev(task: EncodedTask, rows: int | None) -> EncodedTask:
    """The task with the first ``rows`` dev rows of every sample."""
    return replace(task, dev={sample: dev.first(rows) for sample, dev in task.dev.items()})


def _longest(resources: Resources, runs: Sequence[RunNode]) -> list[RunNode]:
    """Two prompt-tuning runs on the task with the longest texts; fewer if there are no two.

    Where methods have prompts of several lengths, they are of the longest.
    """
    tuned = [run for run in runs if run.method.unpacked is None]
    if len(tuned) < 2:
        return []
    most = max(tuned, key=resources.prompt_rows)
    prompt = resources.studies[most.variant].prompt
    tuned = [run for run in tuned if run.shape(prompt) == most.shape(prompt)]

    def letters(run: RunNode) -> float:
        rows = resources.task(run.variant, run.task).samples[run.sample].train
        return sum(len(row.input) for row in rows) / max(1, len(rows))

    first = {run.task: run for run in reversed(tuned)}
    longest = max(first.values(), key=letters).task
    two = [run for run in tuned if run.task == longest][:2]
    return two if len(two) == 2 else [two[0], two[0]]


def _peak(resources: Resources, runs: Sequence[RunNode], count: int) -> int | None:
    """Peak bytes of the process, or of its device, in a step of ``count`` runs; None: they do not fit."""
    runs = runs[:count]
    device = resources.backbone(runs[0].variant).device
    try:
        if not forget_peak(device):  # this system cannot measure a peak
            return 0
        try_out(resources, runs, 1)
        return peak_memory(device)
    except (MemoryError, RuntimeError) as problem:
        if not out_of_memory(problem):
            raise
        return None
    except (OSError, SoftstartError):  # the study reports it when the turn of these runs comes
        return 0
