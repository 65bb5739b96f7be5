"""Expand a study to what has to be computed: meta-trainings, then the runs that need them.

Every node has a key, a hash of everything that can change its numbers. A node that is in the store under its
key is never computed again, and nodes with equal keys (a baseline under two settings with the same targets)
are one node.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

from softstart.errors import SoftstartError
from softstart.study.declare.spec import Study, resolve_methods, variants_of
from softstart.training.budgets import HVP_COST, MetaBudget, step_cost, tasks_of
from softstart.training.methods import Method

PROTOCOL = 2
"""Version of the code paths that decide numbers; raised when a change makes old results incomparable."""

NO_EFFECT = ("max_tokens", "memory_budget", "checkpoint_every")
"""Settings that change how the work is cut, not its result."""

ADDED: dict[str, tuple[Any, ...]] = {
    "budgets": ((), []),
    "rungs": ((), []),
    "eval_backoff": (1,),
    "epochs": (None,),
    "reshuffle": (True,),
    "batch_parts": (1,),
    "reduction": ("mean",),
    "inner_lr_unit": ("absolute",),
    "max_output_tokens": (None,),
    "f1_labels": ("union",),
    "bounded": (True,),
    "frequent": ("tokenizer",),
    "draw_per": ("sample",),
}
"""Settings that this protocol got later, with the values that change nothing: keys of old results stay."""

FINE_TUNING_COST = 2.0
"""A fine-tuning row against a prompt-tuning row, roughly (weight gradients, no packing)."""

EVALUATION_COST = 0.7
"""A generated row against a row that goes forward and backward."""


@dataclass(frozen=True)
class TaskFacts:
    """What planning and reporting need to know of a task: its ``Task.digest``, metric and k, and the number
    of rows of its test set and of a sample's dev set.
    """

    digest: str
    metric: str
    shots: int
    dev: int = 0
    test: int = 0


@dataclass(frozen=True)
class Part:
    """One comparison of a study: a variant under a setting.

    ``tasks`` holds every source and target task, ``source_digests`` the ``Task.digest`` of each source task,
    whose shots may be others than the same task's as a target.
    """

    variant: str
    setting: str
    source: tuple[str, ...]
    target: tuple[str, ...]
    tasks: Mapping[str, TaskFacts]
    source_digests: tuple[str, ...] = ()
    source_rows: int = 0
    """Train and dev rows of all samples of all source tasks; 0 where they are not known."""
    hvp_cost: float = HVP_COST
    """A Hessian-vector product of a source row, in gradients; from the data where a budget asks for it."""


@dataclass(frozen=True)
class BackboneFacts:
    """A backbone as prompts know it: its digest, its width d, what else a ``SoftPrompt`` says of it."""

    digest: str
    width: int
    made_on: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """What a study's numbers depend on beside its declaration; stored with the results.

    ``backbone_digest`` is ``Backbone.digest``, ``width`` its d; ``made_on`` is what else a ``SoftPrompt``
    says of its backbone (empty in older folders). ``fits`` holds the most runs of a pack by variant, if there
    was no memory for ``pack_size`` of them when the study began: cut otherwise, last bits would differ.
    """

    backbone_digest: str
    width: int
    parts: tuple[Part, ...]
    made_on: Mapping[str, str] = field(default_factory=dict)
    fits: Mapping[str, int] = field(default_factory=dict)
    tuned: Mapping[str, str] = field(default_factory=dict)
    """Digests of other backbones that fine-tuning begins with, by name (``Study.finetuning_backbone``)."""
    others: Mapping[str, BackboneFacts] = field(default_factory=dict)
    """The backbones of variants that have another one than the study."""

    def of(self, variant: str) -> BackboneFacts:
        """The backbone of a variant."""
        main = BackboneFacts(self.backbone_digest, self.width, self.made_on)
        return self.others.get(variant, main)

    def to_json(self) -> str:
        """As stored."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Inputs:
        """What ``to_json`` wrote.

        Raises:
            SoftstartError: another version of Softstart wrote it.
        """
        try:
            data = json.loads(text)
            parts = tuple(map(_part, data["parts"]))
            more = {name: data.get(name, {}) for name in ("made_on", "fits", "tuned")}
            others = {name: BackboneFacts(**facts) for name, facts in data.get("others", {}).items()}
            return cls(data["backbone_digest"], data["width"], parts, **more, others=others)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as problem:
            raise SoftstartError(
                f"the study was run with another version of Softstart and cannot be read ({problem!r})",
                fix="Run the study again, or use the version that made it.",
            ) from problem


def _part(data: Mapping[str, Any]) -> Part:
    tasks = {name: TaskFacts(**facts) for name, facts in data["tasks"].items()}
    lists = {name: tuple(data[name]) for name in ("source", "target", "source_digests")}
    part = Part(data["variant"], data["setting"], tasks=tasks, **lists)  # type: ignore[arg-type]
    return replace(part, **{name: data[name] for name in ("source_rows", "hvp_cost") if name in data})


@dataclass(frozen=True, slots=True)
class MetaNode:
    """One meta-training: a method under one seed."""

    key: str
    variant: str
    setting: str
    method: Method
    seed: int
    source: tuple[str, ...]

    @property
    def cost(self) -> float:
        """Estimated work, in rows that go forward and backward once."""
        assert self.method.algorithm is not None
        assert self.method.meta is not None
        a, m = self.method.algorithm, self.method.meta
        return m.steps * step_cost(a, tasks_of(a, m.meta_batch, len(self.source)), recomputed=True)


@dataclass(frozen=True, slots=True)
class RunNode:
    """One adaptation or fine-tuning: start x target task x sample x learning rate x seed."""

    key: str
    variant: str
    method: Method
    task: str
    sample: int
    lr: float
    seed: int
    start: str | None
    """Key of the meta-training it starts from; None for the baselines."""
    draw: int = 0
    """Which draw of its seed its own start is (``PromptSpec.draw_per``)."""

    @property
    def group(self) -> str:
        """The same for all runs of a cell, which may compete while they train (``AdaptConfig.rungs``)."""
        return f"{self.start}/{self.task}/{self.sample}/{self.seed}"


@dataclass(frozen=True, slots=True)
class Cell:
    """The runs that compete for one result: one method, target task, sample and seed; every learning rate.

    ``seed`` is a meta seed; a baseline's runs may have another (``Study.baseline_seeds``).
    """

    part: Part
    method: Method
    task: str
    sample: int
    seed: int
    runs: tuple[RunNode, ...]


@dataclass(frozen=True)
class Plan:
    """All nodes of a study, each once, and the cells they belong to."""

    metas: list[MetaNode]
    cells: list[Cell]
    studies: Mapping[str, Study]
    """Every variant."""

    @property
    def runs(self) -> Iterator[RunNode]:
        """Every run of every cell, each once."""
        return iter({run.key: run for cell in self.cells for run in cell.runs}.values())


def make_plan(study: Study, inputs: Inputs) -> Plan:
    """The plan of a study."""
    studies = variants_of(study)
    metas: dict[str, MetaNode] = {}
    runs: dict[str, RunNode] = {}
    cells: list[Cell] = []
    for part in inputs.parts:
        cells += _Planner(studies[part.variant], part, inputs, metas, runs).cells()
    small = {name: {"pack_size": min(size, studies[name].pack_size)} for name, size in inputs.fits.items()}
    packed = {name: each.model_copy(update=small.get(name)) for name, each in studies.items()}
    return Plan(list(metas.values()), cells, packed)


def run_cost(run: RunNode, study: Study, task: TaskFacts) -> float:
    """Estimated work of a run, as ``MetaNode.cost``; fine-tuning tests as it goes."""
    tuned = run.method.kind == "ft"
    config = study.finetuning if tuned else study.adaptation
    rows = config.steps * config.batch_size * (FINE_TUNING_COST if tuned else 1.0)
    evaluated = task.dev * (config.steps / config.eval_every + 1) + (task.test if tuned else 0)
    return rows + evaluated * EVALUATION_COST


class _Planner:
    """Plans one part; ``metas`` and ``runs`` hold the nodes of all parts by key."""

    def __init__(
        self,
        study: Study,
        part: Part,
        inputs: Inputs,
        metas: dict[str, MetaNode],
        runs: dict[str, RunNode],
    ) -> None:
        self.study, self.part, self.all_metas, self.runs = study, part, metas, runs
        self.methods = resolve_methods(study)
        common = {
            "protocol": PROTOCOL,
            "backbone": inputs.of(part.variant).digest,
            **study.loading,
            "text": asdict(study.text),
        }
        # Values are kept as JSON: a plan hashes the same parts many thousand times.
        self.common = _json({**common, "prompt": study.prompt.model_dump()})
        tuning = _json({**common, "evaluation": asdict(study.evaluation)})
        self.tuned = {**tuning, **_json({"training": asdict(study.finetuning), "tuned": True})}
        if study.finetuning_backbone:
            self.tuned |= _json({"backbone": inputs.tuned.get(study.finetuning_backbone)})
        self.adapted = {
            **tuning,
            **_json({"training": asdict(study.adaptation), "tuned": False}),
            "prompt": self.common["prompt"],
        }
        if study.adaptation.rungs:
            self.adapted |= _json({"rivals": study.learning_rates})

    def cells(self) -> Iterator[Cell]:
        study = self.study
        metas = {(m.name, seed): self._meta(m, seed) for m in self.methods for seed in study.meta_seeds}
        baseline = study.baseline_seeds or study.meta_seeds
        for task in self.part.target:
            for method in self.methods:
                for i, seed in enumerate(study.meta_seeds):
                    start = metas[method.name, seed]
                    own = seed if start else baseline[i % len(baseline)]
                    for sample in study.samples:
                        runs = self._runs(method, task, sample, own, start)
                        yield Cell(self.part, method, task, sample, seed, runs)

    def _meta(self, method: Method, seed: int) -> str | None:
        if method.algorithm is None or not isinstance(method.meta, MetaBudget):
            return None
        samples, part = self.study.source_samples or self.study.samples, self.part
        rows = len(part.source), len(part.source) * len(samples), part.source_rows
        config = method.meta.resolved(method.algorithm, *rows, part.hvp_cost)
        method = replace(method, meta=config)
        own = _json(
            {
                "kind": method.kind,
                "algorithm": asdict(cast(Any, method.algorithm)),
                "meta": {**asdict(config), "seed": seed},
                "source": dict(zip(self.part.source, self.part.source_digests, strict=True)),
                "samples": samples,
            }
        )
        key = _key({**self.common, **own})
        if key not in self.all_metas:
            self.all_metas[key] = MetaNode(key, part.variant, part.setting, method, seed, part.source)
        return key

    def _runs(
        self, method: Method, task: str, sample: int, seed: int, start: str | None
    ) -> tuple[RunNode, ...]:
        tuned = method.kind == "ft"
        if start is not None:
            method = self.all_metas[start].method  # its steps resolved
        rates = self.study.finetuning_learning_rates if tuned else self.study.learning_rates
        digest = self.part.tasks[task].digest
        own = _json({"start": start, "task": task, "digest": digest, "sample": sample, "seed": seed})
        common = {**(self.tuned if tuned else self.adapted), **own}
        runs = []
        anew = self.study.prompt.draw_per == "run" and start is None and not tuned
        first = self.study.samples.index(sample) * len(rates)
        for i, lr in enumerate(rates):
            draw = first + i if anew else 0
            key = _key({**common, "lr": json.dumps(lr), **({"draw": str(draw)} if anew else {})})
            if key not in self.runs:
                variant = self.part.variant
                self.runs[key] = RunNode(key, variant, method, task, sample, lr, seed, start, draw)
            runs.append(self.runs[key])
        return tuple(runs)


def _json(parts: Mapping[str, Any]) -> dict[str, str]:
    return {name: json.dumps(_effective(value), sort_keys=True) for name, value in parts.items()}


def _key(parts: Mapping[str, str]) -> str:
    text = "{" + ", ".join(f'"{name}": {parts[name]}' for name in sorted(parts)) + "}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _effective(value: Any) -> Any:
    """A value without what cannot change a number."""
    if isinstance(value, Mapping):
        return {
            k: _effective(v)
            for k, v in value.items()
            if k not in NO_EFFECT and not (k in ADDED and v in ADDED[k])
        }
    return value
