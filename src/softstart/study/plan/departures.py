"""Where a study departs from the published protocol, value by value, and what we would do.

The published side is the preset ``paper``: what the released files of Qin, Li, Zhao and Joty (ACL 2023) show
was run (``docs/paper.md``). The recommended one is the preset ``corrected``. Evidence and reasons are in
``presets/protocol.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any, cast

import yaml

from softstart.study.declare import presets
from softstart.study.declare.spec import MAIN, SettingSpec, Study, resolve_methods
from softstart.study.plan.inputs import Inputs
from softstart.training.budgets import MetaBudget
from softstart.training.configs import AdaptConfig, FineTuneConfig
from softstart.training.methods import BASELINES, Method
from softstart.training.optimizers import OptimizerConfig

SETTINGS = (
    "random", "cls2cls", "nocls2cls", "both2cls", "cls2nocls", "both2nocls", "nocls2nocls", "qa2qa",
    "noqa2qa", "nonli2nli", "nopara2para",
)  # fmt: skip
PUBLISHED_METHODS = (*BASELINES, "multitask", "maml", "fomaml", "reptile")
NONE = "–"
"""What a side says where it has no such value."""

Rows = Iterator[tuple[str, object]]


@dataclass(frozen=True)
class Value:
    """One value of a protocol: what it is, as published, here and as we recommend; evidence and a reason."""

    what: str
    published: str
    here: str
    recommended: str = NONE
    evidence: str = ""
    reason: str = ""

    @property
    def same(self) -> bool:
        """Whether nothing departs from what was published."""
        return self.published == self.here

    @property
    def sound(self) -> bool:
        """Whether it is as recommended, or nothing is."""
        return self.recommended == NONE or self.here.startswith(tuple(self.recommended.split(" or ")))


def protocol(study: Study, inputs: Inputs | None = None) -> list[Value]:
    """Every value of the published protocol beside that of the study's main variant, in order of the work.

    Args:
        study: the study.
        inputs: what it depends on, for its k; None: not known yet.
    """
    sides = [dict(_values(_as_in("paper", study))), {}, dict(_values(_as_in("corrected", study)))]
    sides[1] = dict(_data(study, inputs)) | dict(_values(study))
    grouped: dict[tuple[str, ...], list[str]] = {}
    for text in sides[1]:
        name, _, what = text.rpartition(": ")
        note = _notes()[what]
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


def _as_in(preset: presets.PresetName, study: Study) -> Study:
    """A study of the same methods under a preset; what was published placed prompts after the padding."""
    kinds = {m.name: m.kind for m in resolve_methods(study)}
    known = PUBLISHED_METHODS if preset == "paper" else tuple(presets.preset_values(preset)["methods"])
    methods = {n: {} if n == k else {"algorithm": k} for n, k in kinds.items() if k in known} or {"pt": {}}
    extra = {"prompt": {"placement": "after_padding"}, "pack_size": 1} if preset == "paper" else {}
    setting = SettingSpec(source=["source"], target=["target"]).model_dump()
    declared = {"name": preset, "preset": preset, "setting": setting, "methods": methods, **extra}
    return Study.model_validate(presets.filled(declared))


def _data(study: Study, inputs: Inputs | None) -> Rows:
    """What only a study that is planned says."""
    yield "tasks", "mini gym" if study.gym == "mini" else "NLP Few-shot Gym"
    specs = [spec if isinstance(spec, str) else spec.name for spec in study.every_setting]
    named = [name.rpartition("/")[2] for name in specs]
    yield "source and target tasks", "as published" if set(named) <= set(SETTINGS) else ", ".join(named)
    if inputs is not None:
        main = [part for part in inputs.parts if part.variant == MAIN]
        shots = sorted({part.tasks[name].shots for part in main for name in part.target})
        yield "k", "16 a class, or 32" if {16, 32} >= set(shots) else _listed(shots)


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
    if any(method.kind == "ft" for method in methods):
        yield from ((f"fine-tuning: {what}", value) for what, value in _finetuning(study))
    yield from _decoding(study)


def _prompt(study: Study) -> Rows:
    spec = study.prompt
    yield "rows of the prompt", spec.length
    yield (
        "start",
        {"task_names": "task names, then frequent words", "vocabulary": "frequent words"}.get(
            spec.init, spec.init
        ),
    )
    order = {"c4": "by their count in C4", "tokenizer": "by the tokenizer's order"}[spec.frequent]
    yield "frequent words", f"{spec.top:,} {order}"
    anew = {"seed": "that of meta-training", "sample": "another for every sample of a task"}
    yield "start of plain prompt tuning", anew.get(spec.draw_per, "another for every run of a grid")
    places = {"prefix": "before the text", "suffix": "after the text"}
    yield "place of the prompt", places.get(spec.placement, "after the text and its padding")


def _test_sets(rows: int | Mapping[str, int] | None) -> str:
    if isinstance(rows, Mapping):
        most = ", ".join(f"{n:,}" for n in sorted(set(rows.values())))
        return f"cut for some tasks, at {most} rows"
    return "all rows" if rows is None else f"one rule: the first {rows:,} rows"


def _work(budgets: list[MetaBudget]) -> str:
    for limit, what in (("gradients", "equal FLOPs"), ("examples", "equal numbers of rows")):
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
    yield "outer learning rate", meta.lr
    yield "outer optimizer", _optimizer(meta.optimizer)
    yield "dropout", _switch(meta.dropout)
    kind = "rows" if mixture else "samples"
    yield f"order of the source {kind}", "new in every epoch" if meta.reshuffle else "the same in every epoch"
    yield "tokens of an output in meta-training", meta.max_output_tokens or "as in adaptation"
    if mixture:
        yield "rows of a batch", algorithm.query_size
        return
    own = cast(Mapping[str, Any], asdict(cast(Any, algorithm)))
    yield "tasks of an outer step", meta.meta_batch
    if "inner_lr" in own:
        unit = "in units of the prompt's entries: " if meta.inner_lr_unit == "start" else ""
        yield "inner learning rate", f"{unit}{own['inner_lr']:g}"
    yield "inner steps", algorithm.inner_steps
    yield "support rows", algorithm.support_size
    yield "query rows", algorithm.query_size
    yield "gradients of tasks", {"sum": "summed", "mean": "averaged"}[meta.reduction]
    if method.kind == "reptile":
        yield "pseudo-gradient", "difference of prompts" if own["difference"] else "sum of gradients"


def _adaptation(study: Study) -> Rows:
    a = study.adaptation
    yield "learning rates of adaptation", _listed(study.learning_rates)
    yield "steps of adaptation", a.steps
    yield from _epochs(a)
    yield "optimizer of adaptation", _optimizer(a.optimizer)
    backoff = f", up to {a.eval_backoff * a.eval_every} apart" if a.eval_backoff > 1 else ""
    yield "dev evaluation", f"every {a.eval_every} steps{backoff}"
    yield "dev evaluation of the start", "yes" if a.eval_start else "no"
    yield "prompt tested", a.select
    yield "early stopping", "none" if a.patience is None and not a.rungs else "yes"
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
    d, how = study.evaluation.decoding, study.evaluation
    yield "predictions", {"rank": "the likeliest label word", "generate": "generated"}[how.scoring]
    yield (
        "labels of macro-F1",
        {"union": "all strings in gold or predictions", "gold": "those in gold"}[how.f1_labels],
    )
    yield "beams", d.num_beams
    yield "most tokens generated", d.max_new_tokens
    yield "bound on tokens generated", "the longest output of the task's data" if how.bounded else "none"
    yield "repetition penalty", d.repetition_penalty
    yield "length penalty", d.length_penalty


def _epochs(config: AdaptConfig | FineTuneConfig) -> Rows:
    yield "most epochs", "no bound" if config.epochs is None else f"{config.epochs:,}"
    yield "rows of a step", config.batch_size
    parts = config.batch_parts
    yield "loss of a step", "mean of all tokens" if parts == 1 else f"mean of the means of {parts} parts"
    yield "order of the rows", "new in every epoch" if config.reshuffle else "the same in every epoch"


def _listed(values: Any) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _switch(on: bool) -> str:
    return "on" if on else "off"


def _optimizer(config: OptimizerConfig) -> str:
    text = f"{config.name}, decay {config.weight_decay:g}"
    if config.name == "adafactor":
        text += f", clip {config.clip_threshold:g}, exponent {config.decay_rate:g}"
    return text + ("" if config.max_grad_norm is None else f", gradient norm {config.max_grad_norm:g}")
