"""Where a study departs from the published protocol, value by value.

The published side is what the released files of Qin, Li, Zhao and Joty (ACL 2023) show was run; see
``docs/paper.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from softstart.optim import OptimizerConfig
from softstart.study.plan import Inputs
from softstart.study.spec import MAIN, Method, Study, resolve_methods

BACKBONE = "google/t5-large-lm-adapt"
SETTINGS = (
    "random", "cls2cls", "nocls2cls", "both2cls", "cls2nocls", "both2nocls", "nocls2nocls", "qa2qa",
    "noqa2qa", "nonli2nli", "nopara2para",
)  # fmt: skip
_EPISODES = {"maml": (1, 2, 2), "fomaml": (1, 4, 4), "reptile": (10, 4, 0)}
"""Inner steps, support rows and query rows of a task."""


@dataclass(frozen=True)
class Value:
    """One value of a protocol: what it is, as published, and here; ``same`` if they agree."""

    what: str
    published: str
    here: str

    @property
    def same(self) -> bool:
        """Whether nothing departs."""
        return self.published == self.here


def protocol(study: Study, inputs: Inputs) -> list[Value]:
    """Every value of the published protocol beside that of the study's main variant, in order of the work."""
    methods = resolve_methods(study)
    kinds = {method.kind for method in methods}
    parts = [*_data(study, inputs), *_prompt(study), *_meta(study, methods)]
    parts += [*_adaptation(study), *(_finetuning(study) if "ft" in kinds else ()), *_decoding(study)]
    return [Value(what, str(published), str(here)) for what, published, here in _together(parts)]


def _together(parts: list[tuple[str, object, object]]) -> Rows:
    """Values that several methods share in one row: "maml, fomaml: outer steps"."""
    names: dict[tuple[str, object, object], list[str]] = {}
    for text, published, here in parts:
        name, _, what = text.rpartition(": ")
        names.setdefault((what, published, here), []).append(name)
    for (what, published, here), of in names.items():
        yield (f"{', '.join(of)}: {what}" if any(of) else what), published, here


Rows = Iterator[tuple[str, object, object]]


def _data(study: Study, inputs: Inputs) -> Rows:
    main = [part for part in inputs.parts if part.variant == MAIN]
    shots = sorted({part.tasks[name].shots for part in main for name in part.target})
    named = [part.setting for part in main]
    known = "as published" if set(named) <= set(SETTINGS) else ", ".join(named)
    yield "backbone", BACKBONE, study.backbone
    yield "tasks", "NLP Few-shot Gym", "mini gym" if study.gym == "mini" else "NLP Few-shot Gym"
    yield "source and target tasks", "as published", known
    yield "k", "16 a class, or 32", "16 a class, or 32" if {16, 32} >= set(shots) else _listed(shots)
    yield "few-shot samples", "13, 21, 42, 87, 100", _listed(study.samples)
    sources = study.source_samples or study.samples
    yield "few-shot samples of source tasks", "13, 21, 42, 87, 100", _listed(sources)
    rows = f"at most {study.test_rows} rows" if study.test_rows else "all rows"
    yield "test sets", "all rows, 1,000 in 14 tasks", rows
    yield "seeds of meta-training", "42", _listed(study.meta_seeds)
    yield "text", repr(" [{task}] {input}"), repr(study.text.template)
    yield "tokens of an input", 512, study.text.max_input_tokens
    yield "tokens of an output", "128 (64 in meta-training)", study.text.max_output_tokens
    yield "precision", "float32 in meta-learning, else float16 mixed", study.dtype


def _prompt(study: Study) -> Rows:
    yield "rows of the prompt", 100, study.prompt.length
    words = "task names, then frequent words"
    yield "start", words, {"task_names": words}.get(study.prompt.init, study.prompt.init)
    yield "frequent words", "5,000 by C4", f"{study.prompt.top:,} by the tokenizer"
    place = {"suffix": "after the text", "prefix": "before the text"}[study.prompt.placement]
    yield "place of the prompt", "after the text and its padding", place
    yield "start of plain prompt tuning", "another for every run of a grid", "one for a task and seed"


def _meta(study: Study, methods: list[Method]) -> Rows:
    for m in methods:
        if m.algorithm is None or m.meta is None:
            continue
        name = f"{m.name}: "
        mixture = m.algorithm.data == "mixture"
        yield (
            f"{name}algorithm",
            m.kind if m.kind in (*_EPISODES, "multitask") else "not in the study",
            m.kind,
        )
        yield f"{name}outer steps", "20 epochs" if mixture else 5000, m.meta.steps
        yield f"{name}outer learning rate", 0.5, m.meta.lr
        yield f"{name}outer optimizer", _optimizer(OptimizerConfig()), _optimizer(m.meta.optimizer)
        yield f"{name}dropout", "on", _switch(m.meta.dropout)
        if mixture:
            yield f"{name}rows of a batch", 4, m.algorithm.query_size
            continue
        steps, support, query = _EPISODES.get(m.kind, ("–",) * 3)
        own = cast(Mapping[str, Any], asdict(cast(Any, m.algorithm)))
        yield f"{name}tasks of an outer step", 2, m.meta.meta_batch
        yield f"{name}inner learning rate", 3e-5, own.get("inner_lr", "–")
        yield f"{name}inner steps", steps, m.algorithm.inner_steps
        yield f"{name}support rows", support, m.algorithm.support_size
        yield f"{name}query rows", query, m.algorithm.query_size
        if m.kind == "reptile":
            exact = "difference of prompts" if own["difference"] else "sum of gradients"
            yield f"{name}pseudo-gradient", "difference of prompts", exact
        else:
            yield f"{name}gradients of tasks", "summed", "averaged"


def _adaptation(study: Study) -> Rows:
    a = study.adaptation
    yield "learning rates of adaptation", "0.5, 0.4, 0.3, 0.2", _listed(study.learning_rates)
    yield "steps of adaptation", "3000 (2000 for 32 rows)", a.steps
    yield "rows of a step", 16, a.batch_size
    yield "optimizer of adaptation", _optimizer(OptimizerConfig()), _optimizer(a.optimizer)
    yield "dev evaluation", "every 50 steps", f"every {a.eval_every} steps"
    yield "dev evaluation of the start", "no", "yes" if a.eval_start else "no"
    yield "prompt tested", "last", a.select
    yield "early stopping", "none", "none" if a.patience is None and not a.rungs else "yes"
    yield "dropout in adaptation", "on", _switch(a.dropout)


def _finetuning(study: Study) -> Rows:
    f = study.finetuning
    yield "fine-tuning: weights", "without LM adaptation", "those of prompt tuning"
    rates = _listed(study.finetuning_learning_rates)
    yield "fine-tuning: learning rates", "0.0005, 0.0003, 0.0002, 0.0001", rates
    yield "fine-tuning: steps", "1000 (600 to 900 for few rows)", f.steps
    yield "fine-tuning: rows of a step", 16, f.batch_size
    yield "fine-tuning: dev evaluation", "every 50 steps", f"every {f.eval_every} steps"
    yield "fine-tuning: weight decay", 1e-5, f.weight_decay
    yield "fine-tuning: early stopping", "none", "none" if f.patience is None else "yes"
    yield "fine-tuning: dropout", "on", _switch(f.dropout)


def _decoding(study: Study) -> Rows:
    d = study.evaluation.decoding
    yield "predictions", "generate", study.evaluation.scoring
    yield "beams", 4, d.num_beams
    yield "tokens generated", 128, d.max_new_tokens
    yield "repetition penalty", 2.5, d.repetition_penalty
    yield "length penalty", 1.0, d.length_penalty


def _listed(values: Any) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _switch(on: bool) -> str:
    return "on" if on else "off"


def _optimizer(config: OptimizerConfig) -> str:
    text = f"{config.name}, decay {config.weight_decay:g}"
    if config.name == "adafactor":
        text += f", clip {config.clip_threshold:g}, exponent {config.decay_rate:g}"
    return text + ("" if config.max_grad_norm is None else f", gradient norm {config.max_grad_norm:g}")
