"""What a study would take: counts from its plan, tokens from its data, time from a short probe."""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

from softstart.backbone import Backbone, Batch
from softstart.backbone.devices import peak_memory
from softstart.backbone.flops import Flops
from softstart.errors import SoftstartError
from softstart.gym.setting import UnknownTasks
from softstart.study.declare.spec import Study
from softstart.study.declare.study_file import variants_of
from softstart.study.declare.task_lists import declared_setting, some_sources
from softstart.study.plan.inputs import BackboneFacts, Inputs, Part, TaskFacts
from softstart.study.plan.plan import Plan, RunNode, make_plan
from softstart.study.results.folder import DATABASE
from softstart.study.results.stores import open_store
from softstart.study.run.pack_sizes import try_out
from softstart.study.run.resources import Resources
from softstart.study.run.work_graph import StoredRows, WorkGraph, packs
from softstart.training.encoding import to_batch

NOMINAL = TaskFacts("", "", 16, 32, 1000)
"""Stands for a task that cannot be loaded: rows of dev and test roughly as in the few-shot gym."""
NOMINAL_TOKENS = 128
"""Tokens of text and output of a row of such a task."""
PROBE_ROWS = 32
PROBE_STEPS = 4
FLOPS = 4
"""Of one parameter and one token: forward, and backward to the prompt without gradients of weights."""


@dataclass(frozen=True)
class Estimate:
    """What a study takes.

    ``counts`` maps each kind of work to (planned, done). ``tokens`` and ``flops`` are those of the work that
    is left, as if every row were read whole; evaluation and fine-tuning count as the trained tokens that cost
    the same. ``computed_tokens`` and ``computed_flops`` leave out what a causal model reads once: prompts
    once a step, texts once a worker. ``seconds`` are those of one worker, ``memory`` is in bytes. None: not
    known, for the reasons in ``notes``. ``work`` is what is left of each variant: rows, and the tokens of a
    mean row, prompt included.
    """

    counts: Mapping[str, tuple[int, int]]
    tokens: float | None
    flops: float | None
    seconds: float | None
    memory: int | None
    notes: Sequence[str]
    work: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    computed_tokens: float | None = None
    computed_flops: float | None = None


def estimate(study: Study, folder: Path, device: str | None = None) -> Estimate:
    """Plan a study and see how much of it is done; nothing is written.

    If its data or its backbone are not on this machine, the plan is made from the settings alone, as if all
    tasks were of usual size.

    Raises:
        SoftstartError: an unknown setting, tasks that the gym does not have, or a study folder that cannot be
            read.
    """
    resources = Resources(variants_of(study), device)
    state = StoredRows({}, {}, {}, {})
    if (folder / DATABASE).exists():
        with open_store(folder, readonly=True) as store:
            state = StoredRows.of(store)
    try:
        inputs = resources.inputs()
    except UnknownTasks:
        raise  # the gym is at hand: nothing to guess
    except (SoftstartError, OSError) as problem:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            inputs = nominal_inputs(study)
        plan = make_plan(study, inputs)
        lengths = {name: float(NOMINAL_TOKENS + each.prompt.length) for name, each in plan.studies.items()}
        work = _work(WorkGraph(plan, inputs, state, folder), lengths)
        notes = [f"planned from the settings alone, with tasks of usual size ({problem})"]
        notes += dict.fromkeys(str(warning.message) for warning in caught)
        return Estimate(_counts(plan, state), _tokens(work), None, None, None, notes, work)
    plan = make_plan(study, inputs)
    first = next(run for run in plan.runs if run.method.kind != "ft")
    lengths = _row_lengths(resources, plan)
    work = _work(WorkGraph(plan, inputs, state, folder), lengths)
    seconds, memory = _probe(resources, plan, first)
    sizes = {
        variant: sum(p.numel() for p in resources.backbone(variant).model.parameters())
        for variant in plan.studies
    }
    # Of one weight and one token.
    seconds /= lengths[first.variant] * sizes[first.variant]
    total = sum(rows * length * sizes[variant] for variant, (rows, length) in work.items())
    fewer = computed_lengths(resources, plan)
    computed = {variant: rows * fewer[variant] for variant, (rows, _) in work.items()}
    flops = FLOPS * sum(tokens * sizes[variant] for variant, tokens in computed.items())
    return Estimate(
        _counts(plan, state), _tokens(work), total * FLOPS, total * seconds, memory, (), work,
        sum(computed.values()), flops,
    )  # fmt: skip


def _work(left: WorkGraph, lengths: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Rows and tokens of a mean row, by variant."""
    rows: defaultdict[str, float] = defaultdict(float)
    for unit in left.units:
        rows[unit.variant] += unit.cost
    return {variant: (rows[variant], length) for variant, length in lengths.items() if variant in rows}


def _tokens(work: Mapping[str, tuple[float, float]]) -> float:
    return sum(rows * length for rows, length in work.values())


def nominal_inputs(study: Study) -> Inputs:
    """What a plan needs where nothing can be loaded: the lists of the settings, and tasks of usual size.

    Raises:
        SoftstartError: an unknown setting.
    """
    parts, others = [], {}
    for variant, each in variants_of(study).items():
        if (each.backbone, each.revision, each.dtype) != (study.backbone, study.revision, study.dtype):
            others[variant] = BackboneFacts(f"{each.backbone} {each.revision} {each.dtype}", 0)
        for spec in each.every_setting:
            setting = declared_setting(each, spec)
            names = dict.fromkeys((*setting.source, *setting.target))
            facts = {name: replace(NOMINAL, digest=f"{name} {each.shots}") for name in names}
            source = some_sources(setting.source, each.source_tasks)
            digests = tuple(f"{name} {each.source_shots or each.shots}" for name in source)
            rows = 2 * NOMINAL.dev * len(source) * len(each.source_samples or each.samples)
            parts.append(Part(variant, setting.name, source, tuple(setting.target), facts, digests, rows))
    return Inputs("", 0, tuple(parts), others=others)


def _counts(plan: Plan, state: StoredRows) -> dict[str, tuple[int, int]]:
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


def _row_lengths(resources: Resources, plan: Plan) -> dict[str, float]:
    """Mean tokens of a row (prompt, input, output) by variant, over first train rows of target tasks."""
    return _mean_rows(resources, plan, lambda backbone, batch, length: backbone.whole_rows(batch, length))


def computed_lengths(resources: Resources, plan: Plan) -> dict[str, float]:
    """As the mean tokens of a row, without those of prompts and texts that are read once, by variant."""
    return _mean_rows(resources, plan, lambda backbone, batch, length: backbone.computed_rows(batch, length))


def _mean_rows(
    resources: Resources, plan: Plan, count: Callable[[Backbone, Batch, int], list[tuple[int, Flops]]]
) -> dict[str, float]:
    lengths: dict[str, list[int]] = {}
    for part in {id(cell.part): cell.part for cell in plan.cells}.values():
        study, backbone = resources.studies[part.variant], resources.backbone(part.variant)
        size = study.adaptation.batch_size
        for name in part.target:
            rows = resources.encoded(part.variant, name).train[study.samples[0]]
            pairs = [
                (given, answers[0] if answers else [])
                for given, answers in zip(rows.inputs[:PROBE_ROWS], rows.outputs, strict=False)
            ]
            # As many rows of a run as a batch has.
            batch = to_batch(pairs, [i // size for i in range(len(pairs))], 0)
            counted = count(backbone, batch, study.prompt.length)
            lengths.setdefault(part.variant, []).extend(tokens for tokens, _ in counted)
    return {variant: fmean(tokens) for variant, tokens in lengths.items()}


def _probe(resources: Resources, plan: Plan, run: RunNode) -> tuple[float, int]:
    """Seconds of a row that goes forward and backward, and peak memory: from a few steps of one pack."""
    pack = next(pack for pack in packs(plan) if pack[0].key == run.key)
    times: list[float] = []

    def tick(done: float, note: str = "") -> None:
        times.append(time.monotonic())

    try_out(resources, pack, PROBE_STEPS, tick)
    # Progress comes before the first step and after each. The first step warms up, the last one ends with an
    # evaluation: neither is timed.
    rows = (PROBE_STEPS - 2) * len(pack) * resources.studies[run.variant].adaptation.batch_size
    return (times[-2] - times[1]) / rows, peak_memory(resources.backbone(run.variant).device)
