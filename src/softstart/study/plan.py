"""Expand a study to what has to be computed: meta-trainings, then the runs that need them.

Every node has a key, a hash of everything that can change its numbers. A node that is in the store under its
key is never computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from softstart.study.spec import Method, Study, resolve_methods

PROTOCOL = 1
"""Version of the code paths that decide numbers; raised when a change makes old results incomparable."""

NO_EFFECT = ("max_tokens", "checkpoint_every")
"""Settings that change how the work is cut, not its result."""


@dataclass(frozen=True)
class TaskFacts:
    """What planning and reporting need to know of a task: its ``Task.digest``, metric and k."""

    digest: str
    metric: str
    shots: int


@dataclass(frozen=True)
class Inputs:
    """What a study's numbers depend on beside its declaration; stored with the results.

    ``backbone_digest`` is ``Backbone.digest``; ``tasks`` holds every source and target task.
    """

    backbone_digest: str
    setting: str
    source: tuple[str, ...]
    target: tuple[str, ...]
    tasks: Mapping[str, TaskFacts]

    def to_json(self) -> str:
        """As stored."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Inputs:
        """What ``to_json`` wrote."""
        data = json.loads(text)
        tasks = {name: TaskFacts(**facts) for name, facts in data["tasks"].items()}
        return cls(
            data["backbone_digest"], data["setting"], tuple(data["source"]), tuple(data["target"]), tasks
        )


@dataclass(frozen=True)
class MetaNode:
    """One meta-training: a method under one seed."""

    key: str
    method: Method
    seed: int
    source: tuple[str, ...]

    @property
    def cost(self) -> float:
        """Estimated work, in rows that go forward and backward once."""
        assert self.method.algorithm is not None
        assert self.method.meta is not None
        a, m = self.method.algorithm, self.method.meta
        tasks = 1 if a.data == "mixture" else m.meta_batch
        # A Hessian-vector product costs about 2.1 gradients.
        inner = a.inner_steps * a.support_size * (3.1 if self.method.kind == "maml" else 1.0)
        return m.steps * tasks * (inner + a.query_size)


@dataclass(frozen=True)
class RunNode:
    """One adaptation or fine-tuning: start x target task x sample x learning rate x seed."""

    key: str
    method: Method
    task: str
    sample: int
    lr: float
    seed: int
    start: str | None
    """Key of the meta-training it starts from; None for the baselines."""


@dataclass(frozen=True)
class Cell:
    """The runs that compete for one result: one method, target task, sample and seed; every learning rate."""

    method: Method
    task: str
    sample: int
    seed: int
    runs: tuple[RunNode, ...]


@dataclass(frozen=True)
class Plan:
    """All nodes of a study, in the order they are computed."""

    metas: list[MetaNode]
    cells: list[Cell]

    @property
    def runs(self) -> Iterator[RunNode]:
        """Every run of every cell."""
        return (run for cell in self.cells for run in cell.runs)


def make_plan(study: Study, inputs: Inputs) -> Plan:
    """The plan of a study."""
    methods = resolve_methods(study)
    common = {
        "protocol": PROTOCOL,
        "backbone": inputs.backbone_digest,
        "dtype": study.dtype,
        "text": asdict(study.text),
        "prompt": study.prompt.model_dump(),
    }
    metas = {}
    for method in methods:
        if method.algorithm is None or method.meta is None:
            continue
        for seed in study.meta_seeds:
            key = _key(
                common,
                kind=method.kind,
                algorithm=asdict(cast(Any, method.algorithm)),
                meta={**asdict(method.meta), "seed": seed},
                source={name: inputs.tasks[name].digest for name in inputs.source},
                samples=study.source_samples or study.samples,
            )
            metas[method.name, seed] = MetaNode(key, method, seed, inputs.source)
    cells = [
        _cell(study, common, method, task, inputs.tasks[task].digest, sample, seed, metas)
        for task in inputs.target
        for method in methods
        for seed in study.meta_seeds
        for sample in study.samples
    ]
    return Plan(list(metas.values()), cells)


def _cell(
    study: Study,
    common: Mapping[str, Any],
    method: Method,
    task: str,
    digest: str,
    sample: int,
    seed: int,
    metas: Mapping[tuple[str, int], MetaNode],
) -> Cell:
    meta = metas.get((method.name, seed))
    start = meta.key if meta else None
    tuned = method.kind == "ft"
    training = study.finetuning if tuned else study.adaptation
    rates = study.finetuning_learning_rates if tuned else study.learning_rates
    runs = []
    for lr in rates:
        key = _key(
            {k: v for k, v in common.items() if not (tuned and k == "prompt")},
            training=asdict(training),
            tuned=tuned,
            start=start,
            task=task,
            digest=digest,
            sample=sample,
            seed=seed,
            lr=lr,
            evaluation=asdict(study.evaluation),
        )
        runs.append(RunNode(key, method, task, sample, lr, seed, start))
    return Cell(method, task, sample, seed, tuple(runs))


def _key(common: Mapping[str, Any], **parts: Any) -> str:
    text = json.dumps(_effective({**common, **parts}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _effective(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _effective(v) for k, v in value.items() if k not in NO_EFFECT}
    return value
