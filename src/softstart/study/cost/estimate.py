"""What a study would take: counts from its plan, tokens from its data, time from a short probe."""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from softstart.backbone import Backbone
from softstart.backbone.devices import peak_memory
from softstart.errors import SoftstartError
from softstart.gym.catalog import all_entries
from softstart.gym.setting import UnknownTasks
from softstart.study.declare.spec import Study
from softstart.study.declare.study_file import variants_of
from softstart.study.declare.task_lists import declared_setting, some_sources
from softstart.study.plan.inputs import BackboneFacts, Inputs, Part, TaskFacts
from softstart.study.plan.plan import Plan, RunNode, make_plan, pack_places
from softstart.study.results.folder import DATABASE
from softstart.study.results.stores import open_store
from softstart.study.run.pack_sizes import try_out
from softstart.study.run.resources import Resources
from softstart.study.run.work_graph import StoredRows, WorkGraph, packs
from softstart.training.encoding import to_batch

NOMINAL_ROWS, NOMINAL_TEST = 32, 1000
"""Rows of train (and of dev) and of test of a task that cannot be loaded and that no catalog knows."""
NOMINAL_TEXT, NOMINAL_OUTPUT = 124, 4
"""Tokens of a row of such a task."""
PROBE_ROWS = 32
PROBE_STEPS = 3
PROBE_FLOPS = 1e12
"""What a dry run may compute on a CPU to learn how long a row takes: some seconds."""


@dataclass(frozen=True)
class Rows:
    """What is left of a variant: rows that go forward and backward once, and the tokens of a mean row."""

    count: float
    text: float
    """Tokens of the text, prompt included."""
    output: float

    @property
    def length(self) -> float:
        """Tokens of a row."""
        return self.text + self.output


@dataclass(frozen=True)
class Estimate:
    """What a study takes.

    ``counts`` maps each kind of work to (planned, done). ``tokens`` and ``flops`` (model FLOPs, as
    ``Backbone.row_flops`` counts them) are those of the work that is left, as if every row were read whole;
    evaluation and fine-tuning count as the trained rows that cost the same. ``computed_tokens`` and
    ``computed_flops`` leave out what a causal model reads once: prompts once a step, texts once a worker.
    ``seconds`` are those of one worker, ``memory`` is in bytes. None: not known, for the reasons in
    ``notes``. ``work`` is what is left of each variant.
    """

    counts: Mapping[str, tuple[int, int]]
    tokens: float | None
    flops: float | None
    seconds: float | None
    memory: int | None
    notes: Sequence[str]
    work: Mapping[str, Rows] = field(default_factory=dict)
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
        lengths = {
            name: (float(NOMINAL_TEXT + each.prompt.length), float(NOMINAL_OUTPUT))
            for name, each in plan.studies.items()
        }
        work = _work(WorkGraph(plan, inputs, state, folder), lengths)
        notes = [f"planned from the settings alone, with tasks of usual size ({problem})"]
        notes += dict.fromkeys(str(warning.message) for warning in caught)
        return Estimate(_counts(plan, state), _tokens(work), None, None, None, notes, work)
    plan = make_plan(study, inputs)
    first = next((run for run in plan.runs if run.method.unpacked is None), None)
    lengths = _row_lengths(resources, plan)
    work = _work(WorkGraph(plan, inputs, state, folder), lengths)
    if first is None:
        notes = ["no method of it tunes prompts, whose steps time is estimated from"]
        return Estimate(_counts(plan, state), _tokens(work), None, None, None, notes, work)
    seconds, memory = _probe(resources, plan, first)
    # A row of another variant or prompt takes as long as its FLOPs.
    flops = {
        variant: resources.backbone(variant).row_flops(*lengths[variant]).gradient for variant in lengths
    }
    total = sum(rows.count * flops[variant] for variant, rows in work.items())
    (text, output), rows_of = lengths[first.variant], mean_prompt_rows(resources, plan)
    text += resources.prompt_rows(first) - rows_of[first.variant]
    seconds *= total / resources.backbone(first.variant).row_flops(text, output).gradient
    fewer = computed_rows(resources, plan)
    tokens, computed = (sum(rows.count * fewer[variant][i] for variant, rows in work.items()) for i in (0, 1))
    return Estimate(_counts(plan, state), _tokens(work), total, seconds, memory, (), work, tokens, computed)


def _work(left: WorkGraph, lengths: Mapping[str, tuple[float, float]]) -> dict[str, Rows]:
    """Rows of every variant, which have the given mean lengths of text and output."""
    count: defaultdict[str, float] = defaultdict(float)
    for unit in left.units:
        count[unit.variant] += unit.cost
    return {variant: Rows(count[variant], *length) for variant, length in lengths.items() if variant in count}


def _tokens(work: Mapping[str, Rows]) -> float:
    return sum(rows.count * rows.length for rows in work.values())


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
            facts = {name: nominal_task(name, each.shots) for name in names}
            source = some_sources(setting.source, each.source_tasks)
            digests = tuple(f"{name} {each.source_shots or each.shots}" for name in source)
            kept = [nominal_task(name, each.source_shots or each.shots).train for name in source]
            rows = 2 * sum(kept) * len(each.source_samples or each.samples)
            parts.append(Part(variant, setting.name, source, tuple(setting.target), facts, digests, rows))
    return Inputs("", 0, tuple(parts), others=others)


def nominal_task(name: str, shots: int | None) -> TaskFacts:
    """A task as the catalog describes it, of train and dev sets with k rows of every label, or k in all.

    Where tasks have other outputs than labels, ``shots`` does not choose k (``GymFolder``).
    """
    entry, digest = all_entries().get(name), f"{name} {shots}"
    if entry is None:
        return TaskFacts(digest, "", shots or NOMINAL_ROWS // 2, NOMINAL_ROWS, NOMINAL_TEST, NOMINAL_ROWS)
    labels = entry.kind == "classification"
    k = shots or entry.shots if labels else entry.shots
    rows = k * (len(entry.labels.words) if entry.labels else 2) if labels else k
    return TaskFacts(digest, "", k, rows, NOMINAL_TEST, rows)


def _counts(plan: Plan, state: StoredRows) -> dict[str, tuple[int, int]]:
    runs = list(plan.runs)
    alone: defaultdict[str, list[RunNode]] = defaultdict(list)
    for run in runs:
        if run.method.unpacked:
            alone[run.method.unpacked.work].append(run)
    adapted = [run for run in runs if run.method.unpacked is None]
    grouped = [pack for pack in packs(plan) if pack[0].method.unpacked is None]

    def done(of: Sequence[RunNode]) -> tuple[int, int]:
        return len(of), sum(run.key in state.runs for run in of)

    return {
        "meta-trainings": (len(plan.metas), sum(node.key in state.metas for node in plan.metas)),
        "adaptations": done(adapted),
        "packs of them": (len(grouped), sum(all(r.key in state.runs for r in pack) for pack in grouped)),
        "fine-tunings": done([]),
        **{f"{work}s": done(of) for work, of in alone.items()},
    }


def _row_lengths(resources: Resources, plan: Plan) -> dict[str, tuple[float, float]]:
    """Mean tokens of text, with the prompt's rows that are read, and of output of each variant."""
    lengths: dict[str, list[tuple[int, int]]] = {}
    for variant, length, rows in _first_rows(resources, plan):
        read = resources.backbone(variant).kind.read_rows(length)
        lengths.setdefault(variant, []).extend((read + len(text), len(output)) for text, output in rows)
    return {variant: _means(rows) for variant, rows in lengths.items()}


def computed_rows(resources: Resources, plan: Plan) -> dict[str, tuple[float, float]]:
    """Mean tokens and FLOPs of a row's gradient by variant, without prompts and texts that are read once."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for variant, length, pairs in _first_rows(resources, plan):
        size = resources.studies[variant].adaptation.batch_size
        # As many rows of a run as a batch has.
        batch = to_batch(pairs, [i // size for i in range(len(pairs))], 0)
        computed = resources.backbone(variant).computed_rows(batch, length)
        rows.setdefault(variant, []).extend((tokens, flops.gradient) for tokens, flops in computed)
    return {variant: _means(of_variant) for variant, of_variant in rows.items()}


def _first_rows(
    resources: Resources, plan: Plan
) -> Iterator[tuple[str, int, list[tuple[list[int], list[int]]]]]:
    """A variant, the length of its prompt, and (text, output) of the first train rows of a target task."""
    rows_of = mean_prompt_rows(resources, plan)
    for part in {id(cell.part): cell.part for cell in plan.cells}.values():
        study = resources.studies[part.variant]
        for name in part.target:
            rows = resources.encoded(part.variant, name).train[study.samples[0]]
            given = zip(rows.inputs[:PROBE_ROWS], rows.outputs, strict=False)
            yield (
                part.variant,
                round(rows_of[part.variant]),
                [(text, answers[0] if answers else []) for text, answers in given],
            )


def mean_prompt_rows(resources: Resources, plan: Plan) -> dict[str, float]:
    """The mean rows of the prompts of a variant's runs; as declared where none of them tunes a prompt."""
    found: dict[str, dict[tuple[Any, ...], list[int]]] = {}
    for run in plan.runs:
        if run.method.unpacked is None:
            shape = run.shape(resources.studies[run.variant].prompt)
            of_shape = found.setdefault(run.variant, {}).setdefault(shape, [])
            of_shape.append(of_shape[0] if of_shape else resources.prompt_rows(run))
    declared = {variant: float(study.prompt.length) for variant, study in resources.studies.items()}
    return declared | {v: fmean(n for rows in of.values() for n in rows) for v, of in found.items()}


def _means(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return fmean(first for first, _ in pairs), fmean(second for _, second in pairs)


def _few_enough(backbone: Backbone, study: Study) -> int:
    """How many runs of a pack a CPU adapts for a few steps within seconds; a GPU takes whole packs."""
    if backbone.device.type != "cpu":
        return study.pack_size
    weights = sum(p.numel() for p in backbone.model.parameters())
    tokens = study.adaptation.batch_size * (NOMINAL_TEXT + NOMINAL_OUTPUT + study.prompt.length)
    return max(1, int(PROBE_FLOPS // (PROBE_STEPS * tokens * 4 * weights)))


def _probe(resources: Resources, plan: Plan, run: RunNode) -> tuple[float, int]:
    """Seconds of a row that goes forward and backward, and peak memory: from a few steps of one pack."""
    pack = next(pack for pack in packs(plan) if pack[0].key == run.key)
    backbone = resources.backbone(run.variant)
    study = resources.studies[run.variant]
    places = pack_places(run, study) or len(pack)
    pack = pack[: min(places, _few_enough(backbone, study))]
    times: list[float] = []

    def tick(done: float, note: str = "") -> None:
        times.append(time.monotonic())

    try_out(resources, pack, PROBE_STEPS, tick, dev_rows=1)
    if backbone.text_tokens_read:  # the study reads its texts once, so steps that read them are not typical
        times.clear()
        try_out(resources, pack, PROBE_STEPS, tick, dev_rows=1)
    # Progress comes before the first step and after each. The first step warms up, the last one ends with an
    # evaluation: neither is timed.
    rows = (PROBE_STEPS - 2) * len(pack) * study.adaptation.batch_size
    return (times[-2] - times[1]) / rows, peak_memory(backbone.device)
