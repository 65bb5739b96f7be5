"""What a study would take before it is run: counts from the plan, tokens from its data, time from a probe."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from softstart.errors import SoftstartError
from softstart.gym.settings import load_setting
from softstart.study.graph import Graph, State, packs
from softstart.study.memory import try_out
from softstart.study.plan import BackboneFacts, Inputs, Part, Plan, RunNode, TaskFacts, make_plan
from softstart.study.prepare import Resources, some_sources
from softstart.study.spec import Study, variants_of
from softstart.study.store import DATABASE, Store
from softstart.study.work import peak_memory

NOMINAL = TaskFacts("", "", 16, 32, 1000)
"""A task whose data are not at hand: rows of dev and test as in the few-shot gym, roughly."""
NOMINAL_TOKENS = 128
"""Text and output of a row whose data are not at hand."""
PROBE_ROWS = 32
PROBE_STEPS = 4
FLOPS = 4
"""For a parameter and a token: forward, and backward to the prompt without gradients of weights."""


@dataclass(frozen=True)
class Estimate:
    """What a study takes.

    ``counts`` maps what there is to compute to (planned, done). ``tokens`` and ``flops`` are of what is left;
    evaluation and fine-tuning count as so many trained tokens as they cost. ``seconds`` are with one worker,
    ``memory`` is in bytes. None where it cannot be told, and ``notes`` say why.
    """

    counts: Mapping[str, tuple[int, int]]
    tokens: float | None
    flops: float | None
    seconds: float | None
    memory: int | None
    notes: Sequence[str]
    length: float | None = None
    """Tokens of a mean row, prompt included."""


def estimate(study: Study, folder: Path, device: str | None = None) -> Estimate:
    """Plan a study and look how far it is; nothing is written.

    Where its data or its backbone are not on this machine, the plan is made from the settings alone, as if
    all tasks were of usual size.

    Raises:
        SoftstartError: an unknown setting, or a study folder that cannot be read.
    """
    resources = Resources(variants_of(study), device)
    state = State({}, {}, {}, {})
    if (folder / DATABASE).exists():
        with Store(folder, readonly=True) as store:
            state = State.of(store)
    try:
        inputs = resources.inputs()
    except (SoftstartError, OSError) as problem:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            inputs = nominal_inputs(study)
        plan = make_plan(study, inputs)
        rows = sum(unit.cost for unit in Graph(plan, inputs, state, folder).units)
        notes = [f"planned from the settings alone, with tasks of usual size: {problem}"]
        notes += dict.fromkeys(str(warning.message) for warning in caught)
        length = float(NOMINAL_TOKENS + study.prompt.length)
        return Estimate(_counts(plan, state), rows * length, None, None, None, notes, length)
    plan = make_plan(study, inputs)
    left = Graph(plan, inputs, state, folder).units
    first = next(run for run in plan.runs if run.method.kind != "ft")
    length = _row_length(resources, plan)
    rows = sum(unit.cost for unit in left)
    seconds, memory = _probe(resources, plan, first)
    sizes = {
        variant: sum(p.numel() for p in resources.backbone(variant).model.parameters())
        for variant in plan.studies
    }
    parameters = fmean(sizes[run.variant] for run in plan.runs)
    seconds *= parameters / sizes[first.variant]
    return Estimate(
        _counts(plan, state),
        rows * length,
        rows * length * parameters * FLOPS,
        rows * seconds,
        memory,
        (),
        length,
    )


def nominal_inputs(study: Study) -> Inputs:
    """What planning needs where nothing can be loaded: the lists of the settings and tasks of usual size.

    Raises:
        SoftstartError: an unknown setting.
    """
    parts, others = [], {}
    for variant, each in variants_of(study).items():
        if (each.backbone, each.revision, each.dtype) != (study.backbone, study.revision, study.dtype):
            others[variant] = BackboneFacts(f"{each.backbone} {each.revision} {each.dtype}", 0)
        for spec in each.every_setting:
            setting = load_setting(spec) if isinstance(spec, str) else spec
            names = dict.fromkeys((*setting.source, *setting.target))
            facts = {name: replace(NOMINAL, digest=f"{name} {each.shots}") for name in names}
            source = some_sources(setting.source, each.source_tasks)
            digests = tuple(f"{name} {each.source_shots or each.shots}" for name in source)
            rows = 2 * NOMINAL.dev * len(source) * len(each.source_samples or each.samples)
            parts.append(Part(variant, setting.name, source, tuple(setting.target), facts, digests, rows))
    return Inputs("", 0, tuple(parts), others=others)


def _counts(plan: Plan, state: State) -> dict[str, tuple[int, int]]:
    runs = list(plan.runs)
    tuned = [run for run in runs if run.method.kind == "ft"]
    adapted = [run for run in runs if run.method.kind != "ft"]
    grouped = [pack for pack in packs(plan) if pack[0].method.kind != "ft"]

    def done(of: Sequence[RunNode]) -> tuple[int, int]:
        return len(of), sum(run.key in state.runs for run in of)

    return {
        "meta-trainings": (len(plan.metas), sum(node.key in state.metas for node in plan.metas)),
        "adaptations": done(adapted),
        "packs of them": (len(grouped), sum(all(r.key in state.runs for r in pack) for pack in grouped)),
        "fine-tunings": done(tuned),
    }


def _row_length(resources: Resources, plan: Plan) -> float:
    """Mean tokens of a row: prompt, input and output, over the first training rows of every target task."""
    lengths: list[float] = []
    for part in {id(cell.part): cell.part for cell in plan.cells}.values():
        study = resources.studies[part.variant]
        for name in part.target:
            rows = resources.encoded(part.variant, name).train[study.samples[0]]
            for given, answers in zip(rows.inputs[:PROBE_ROWS], rows.outputs, strict=False):
                lengths.append(study.prompt.length + len(given) + len(answers[0] if answers else ()))
    return sum(lengths) / len(lengths)


def _probe(resources: Resources, plan: Plan, run: RunNode) -> tuple[float, int]:
    """Seconds of a row that goes forward and backward, and peak memory: a few steps of the first pack."""
    pack = next(pack for pack in packs(plan) if pack[0].key == run.key)
    times: list[float] = []

    def tick(done: float, note: str = "") -> None:
        times.append(time.monotonic())

    try_out(resources, pack, PROBE_STEPS, tick)
    # Told before the first step and after each: the first warms up, the last ends with an evaluation.
    rows = (PROBE_STEPS - 2) * len(pack) * resources.studies[run.variant].adaptation.batch_size
    return (times[-2] - times[1]) / rows, peak_memory(resources.backbone(run.variant).device)
