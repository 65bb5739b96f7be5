"""Where a study departs from the published protocol, value by value, and what we recommend.

The published side is the preset ``paper``: what was run according to the released files of Qin, Li, Zhao and
Joty (ACL 2023; ``docs/paper.md``). The recommended side is the preset ``corrected``. Evidence and reasons are
in ``presets/protocol.yaml``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any, cast

import yaml

from softstart.errors import SoftstartError, listed
from softstart.gym.catalog import crossfit_catalog
from softstart.gym.settings import shipped_settings
from softstart.prompt import KINDS, PLACEMENTS, find_initializer
from softstart.study.declare import presets
from softstart.study.declare.spec import MAIN, SettingSpec, Study, resolve_methods
from softstart.study.declare.task_lists import declared_setting, some_sources
from softstart.study.plan.inputs import FIRST, Inputs, TaskFacts
from softstart.training.baselines.weights import FineTuning
from softstart.training.budgets import MetaBudget
from softstart.training.configs import AdaptConfig, FineTuneConfig
from softstart.training.declared import Declared
from softstart.training.evaluation import SCORINGS
from softstart.training.losses import TokenMean
from softstart.training.methods import Method

PUBLISHED_METHODS = ("pt", "ft", "multitask", "maml", "fomaml", "reptile")
PAPER_GYM = "v1"
"""The version of the gym that was used (April 2021)."""
NONE = "–"
"""Stands for a value that a side does not have."""

Rows = Iterator[tuple[str, object]]


@dataclass(frozen=True)
class Value:
    """One value of a protocol: its name; as published, here and as we recommend; evidence and reason."""

    what: str
    published: str
    here: str
    recommended: str = NONE
    evidence: str = ""
    reason: str = ""

    @property
    def same(self) -> bool:
        """Whether the value is as published."""
        return self.published == self.here

    @property
    def sound(self) -> bool:
        """Whether the value is as recommended, or there is no recommendation."""
        return self.recommended == NONE or self.here.startswith(tuple(self.recommended.split(" or ")))


def protocol(study: Study, inputs: Inputs | None = None) -> list[Value]:
    """Every value of the published protocol and that of the study's main variant, in order of the work.

    Args:
        study: the study.
        inputs: what it depends on, for its tasks and their k; None: what the declaration says.
    """
    sides = [dict(_values(_as_in("paper", study))), {}, dict(_values(_as_in("corrected", study)))]
    sides[1] = dict(_data(study, inputs)) | dict(_values(study))
    grouped: dict[tuple[str, ...], list[str]] = {}
    for text in sides[1]:
        name, _, what = text.rpartition(": ")
        note = _notes().get(what, {"evidence": "", "reason": ""})
        published, here, recommended = (str(side.get(text, NONE)) for side in sides)
        # Sizes come without a reason and without advice.
        advice = note.get("recommended", recommended) if note["reason"] else NONE
        shown = (note.get("published", published), here, advice)
        grouped.setdefault((what, *shown, note["evidence"], note["reason"]), []).append(name)
    return [
        Value(f"{', '.join(name or 'adaptation' for name in names)}: {what}" if any(names) else what, *rest)
        for (what, *rest), names in grouped.items()
    ]


@cache
def _notes() -> dict[str, dict[str, str]]:
    text = resources.files(presets).joinpath("protocol.yaml").read_text(encoding="utf-8")
    notes: dict[str, dict[str, str]] = yaml.safe_load(text)
    return notes


def _as_in(preset: str, study: Study) -> Study:
    """A study of the same methods under a preset; as published, prompts came after the padding."""
    kinds = {m.name: m.kind for m in resolve_methods(study)}
    known = PUBLISHED_METHODS if preset == "paper" else tuple(presets.preset_values(preset)["methods"])
    methods = {n: {} if n == k else {"algorithm": k} for n, k in kinds.items() if k in known} or {"pt": {}}
    extra = {"prompt": {"placement": "after_padding"}, "pack_size": 1} if preset == "paper" else {}
    setting = SettingSpec(source=["source"], target=["target"]).model_dump()
    declared = {"name": preset, "preset": preset, "setting": setting, "methods": methods, **extra}
    return Study.model_validate(presets.filled(declared))


def _data(study: Study, inputs: Inputs | None) -> Rows:
    """Which tasks a study has, by the lists of their names: the name of a setting says nothing about them."""
    settings = list(_settings(study, inputs))
    yield "tasks", _gym(study, settings, inputs)
    other = [name for name, lists in settings if lists is None or lists not in _published_lists()]
    yield "source and target tasks", f"other lists: {', '.join(other)}" if other else "as published"
    if inputs is not None:
        if study.gym != "mini":
            yield "files of the tasks", _files(study, inputs)
        yield "k", _shots(inputs)


Lists = tuple[frozenset[str], frozenset[str]]
"""Names of source tasks and of target tasks."""


@cache
def _published_lists() -> frozenset[Lists]:
    settings = shipped_settings("study").values()
    return frozenset((frozenset(each.source), frozenset(each.target)) for each in settings)


def _settings(study: Study, inputs: Inputs | None) -> Iterator[tuple[str, Lists | None]]:
    """Every setting of the main variant: its name, and its lists where they are known."""
    if inputs is not None:
        for part in inputs.parts:
            if part.variant == MAIN:
                yield part.setting, (frozenset(part.source), frozenset(part.target))
        return
    for spec in study.every_setting:
        lists = None
        with suppress(SoftstartError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            setting = declared_setting(study, spec)
            source = some_sources(setting.source, study.source_tasks)
            lists = (frozenset(source), frozenset(setting.target))
        yield spec if isinstance(spec, str) else spec.name, lists


def _gym(study: Study, settings: Sequence[tuple[str, Lists | None]], inputs: Inputs | None) -> str:
    """Where the tasks are from; by their names and metrics, as files are not at hand."""
    if study.gym == "mini":
        version = study.gym_version or FIRST
        return "mini gym" if version == FIRST else f"mini gym, version {version}"
    if any(lists is None for _, lists in settings):
        return "unknown"
    names = set().union(*(side for _, lists in settings if lists for side in lists))
    catalog, parts = crossfit_catalog(), inputs.parts if inputs else ()
    metrics = {name: facts.metric for part in parts for name, facts in part.tasks.items()}
    known = {name for name in names & catalog.keys() if metrics.get(name) in (None, catalog[name].metric)}
    if known == names:
        return "NLP Few-shot Gym"
    others = sorted(names - known)
    listed = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    return f"{'NLP Few-shot Gym and ' if known else ''}other tasks: {listed}"


def _files(study: Study, inputs: Inputs) -> str:
    """Which version of the gym the files equal, byte for byte, and how they are read."""
    tasks: dict[str, TaskFacts] = {}
    for part in inputs.parts:
        tasks |= part.tasks if part.variant == MAIN else {}
    other = sorted(name for name, facts in tasks.items() if PAPER_GYM not in facts.published)
    read = "as published" if study.gym_reading == "published" else "strictly"
    if not other:
        return f"those of {PAPER_GYM}, read {read}"
    return f"others than those of {PAPER_GYM}: {listed(other)}; read {read}"


def _shots(inputs: Inputs) -> str:
    """The k of all target tasks; a task of the gym has that of its kind."""
    main, catalog = [part for part in inputs.parts if part.variant == MAIN], crossfit_catalog()
    shots = {name: part.tasks[name].shots for part in main for name in part.target}
    published = {
        name: {16 if catalog[name].kind == "classification" else 32} if name in catalog else {16, 32}
        for name in shots
    }
    if all(k in published[name] for name, k in shots.items()):
        return "16 a class, or 32"
    return _listed(sorted(set(shots.values())))


def _values(study: Study) -> Rows:
    methods = resolve_methods(study)
    yield "preset", study.preset or "none"
    yield "backbone", study.backbone
    yield "few-shot samples", _listed(sorted(study.samples))
    yield "few-shot samples of source tasks", _listed(sorted(study.source_samples or study.samples))
    yield "test sets", _test_sets(study.test_rows)
    several = "several: " if len(study.meta_seeds) > 1 else ""
    yield "seeds of meta-training", several + _listed(study.meta_seeds)
    yield "text", repr(study.text.template)
    yield "tokens of an input", study.text.max_input_tokens
    yield "tokens of an output", study.text.max_output_tokens
    yield "precision", study.dtype
    yield from _prompt(study)
    budgets = [m.meta for m in methods if isinstance(m.meta, MetaBudget)]
    yield "work of the methods", _work(budgets)
    for method in methods:
        yield from ((f"{method.name}: {what}", value) for what, value in _meta(method, study))
    yield from _adaptation(study)
    if any(isinstance(method.baseline, FineTuning) for method in methods):
        yield from ((f"fine-tuning: {what}", value) for what, value in _finetuning(study))
    yield from _decoding(study)


def _prompt(study: Study) -> Rows:
    spec = study.prompt
    yield "kind of the prompt", KINDS[spec.kind].label
    yield "rows of the prompt", spec.length
    # With the names: an initializer or a placement of somebody else may be labeled as one of ours.
    yield "start", f"{find_initializer(spec.init)[0].label} ({spec.init})"
    orders = {"c4": "by their count in C4", "tokenizer": "by the tokenizer's order"}
    yield "frequent words", f"{spec.top:,} {orders.get(spec.frequent, spec.frequent)}"
    draws = {
        "seed": "that of meta-training",
        "sample": "another for every sample of a task",
        "run": "another for every run of a grid",
    }
    yield "start of plain prompt tuning", draws.get(spec.draw_per, spec.draw_per)
    if spec.demonstrations is not None:
        yield "demonstrations behind these rows", spec.demonstrations
    if spec.leave_one_out:
        yield "prompt rows that began as a train row", "hidden from this row"
    if spec.token_dropout:
        yield "prompt rows hidden at random", f"{spec.token_dropout:g}"
    yield "place of the prompt", f"{PLACEMENTS.find(spec.placement).label} ({spec.placement})"


def _test_sets(rows: int | Mapping[str, int] | None) -> str:
    if isinstance(rows, Mapping):
        most = ", ".join(f"{n:,}" for n in sorted(set(rows.values())))
        same = rows == presets.preset_values("paper")["test_rows"]
        return f"cut for {'some tasks' if same else ', '.join(sorted(rows))}, at {most} rows"
    return "all rows" if rows is None else f"one rule: the first {rows:,} rows"


def _work(budgets: list[MetaBudget]) -> str:
    for limit, what in (
        ("gradients", "equal FLOPs, as if every row were read whole"),
        ("examples", "equal numbers of rows"),
    ):
        if budgets and len({getattr(b, limit) for b in budgets}) == 1 and getattr(budgets[0], limit):
            return what
    return "unequal" if len(budgets) > 1 else NONE


def _length(meta: MetaBudget) -> str:
    unit = {"gradients": "FLOPs of {:,} gradients of a row", "examples": "{:,} rows", "epochs": "{:g} epochs"}
    text = unit.get(meta.limit, "{:,} steps").format(getattr(meta, meta.limit))
    capped = meta.max_epochs is not None and meta.limit != "epochs"
    return text + (f", at most {meta.max_epochs:g} epochs" if capped else "")


def _meta(method: Method, study: Study) -> Rows:
    algorithm, meta = method.algorithm, method.meta
    if algorithm is None or not isinstance(meta, MetaBudget):
        return
    mixture = algorithm.data != "episodes"
    yield "algorithm", method.kind
    yield "length of meta-training", _length(meta)
    yield "outer learning rate", f"{_UNITS[meta.lr_unit]}{meta.lr:g}"
    yield "outer optimizer", _choice(meta.optimizer)
    if meta.loss != TokenMean():
        yield "loss in meta-training", _choice(meta.loss)
    yield "dropout", _switch(meta.dropout)
    kind = "rows" if mixture else "samples"
    yield f"order of the source {kind}", "new in every epoch" if meta.reshuffle else "the same in every epoch"
    yield "tokens of an output in meta-training", meta.max_output_tokens or "as in adaptation"
    if mixture:
        yield "rows of a batch", algorithm.query_size
        return
    values = asdict(cast(Any, algorithm))
    yield "tasks of an outer step", meta.meta_batch
    if "inner_lr" in values:
        yield "inner learning rate", f"{_UNITS[meta.inner_lr_unit]}{values.pop('inner_lr'):g}"
    yield "inner steps", algorithm.inner_steps
    yield "support rows", algorithm.support_size
    yield "query rows", algorithm.query_size
    reductions = {"sum": "summed", "mean": "averaged"}
    yield "gradients of tasks", reductions.get(meta.reduction, meta.reduction)
    if method.kind == "reptile":
        pseudo = values.pop("difference")
        yield "pseudo-gradient", "difference of prompts" if pseudo else "sum of gradients"
    # What no published method has.
    yield from ((name.replace("_", " "), value) for name, value in values.items() if name not in _SIZES)


_UNITS = {
    "absolute": "",
    "embedding": "in units of the embedding's entries: ",
    "start": "in units of the prompt's entries: ",
}
_SIZES = ("inner_steps", "support_size", "query_size")


def _adaptation(study: Study) -> Rows:
    a = study.adaptation
    yield "learning rates of adaptation", _UNITS[a.lr_unit] + _listed(study.learning_rates)
    yield "steps of adaptation", a.steps
    yield from _epochs(a)
    yield "optimizer of adaptation", _choice(a.optimizer)
    backoff = f", up to {a.eval_backoff * a.eval_every} apart" if a.eval_backoff > 1 else ""
    yield "dev evaluation", f"every {a.eval_every} steps{backoff}"
    yield "dev evaluation of the start", "yes" if a.eval_start else "no"
    yield "prompt tested", a.select
    yield "early stopping", "yes" if a.stops_early else "none"
    yield "dropout in adaptation", _switch(a.dropout)


def _finetuning(study: Study) -> Rows:
    f = study.finetuning
    yield "weights", study.finetuning_backbone or "those of prompt tuning"
    yield "learning rates", _listed(study.finetuning_learning_rates)
    yield "steps", f.steps
    yield from _epochs(f)
    yield "dev evaluation", f"every {f.eval_every} steps"
    yield "weight decay", f.weight_decay
    yield "early stopping", "none" if f.patience is None else "yes"
    yield "dropout", _switch(f.dropout)


def _decoding(study: Study) -> Rows:
    evaluation, decoding = study.evaluation, study.evaluation.decoding
    yield "predictions", SCORINGS.find(evaluation.scoring).label
    labels = {"union": "all strings in gold or predictions", "gold": "those in gold"}
    yield "labels of macro-F1", labels.get(evaluation.f1_labels, evaluation.f1_labels)
    yield "beams", decoding.num_beams
    yield "most tokens generated", decoding.max_new_tokens
    bound = "the longest output of the task's data" if evaluation.bounded else "none"
    yield "bound on tokens generated", bound
    yield "repetition penalty", decoding.repetition_penalty
    yield "length penalty", decoding.length_penalty


def _epochs(config: AdaptConfig | FineTuneConfig) -> Rows:
    yield "most epochs", "no bound" if config.epochs is None else f"{config.epochs:,}"
    yield "rows of a step", config.batch_size
    loss = "mean of all tokens" if config.loss == TokenMean() else _choice(config.loss)
    parts = config.batch_parts
    if parts > 1:
        loss = f"mean of the means of {parts} parts" + ("" if config.loss == TokenMean() else f": {loss}")
    yield "loss of a step", loss
    yield "order of the rows", "new in every epoch" if config.reshuffle else "the same in every epoch"


def _listed(values: Any) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _switch(on: bool) -> str:
    return "on" if on else "off"


def _choice(part: Declared) -> str:
    values = {
        _SETTINGS.get(name, name): f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in part.declaration().items()
        if name != "name" and value is not None
    }
    return ", ".join([part.name, *(f"{name} {value}" for name, value in values.items())])


_SETTINGS = {
    "weight_decay": "decay",
    "clip_threshold": "clip",
    "decay_rate": "exponent",
    "max_grad_norm": "gradient norm",
}
"""How a reader calls the settings of the optimizers."""
