"""Expand a study to the work that it needs: meta-trainings, then the runs that start from them.

Each node has a key, a hash of everything that can change its numbers. A node whose key is in the store is
not computed again, and nodes with equal keys (a baseline under two settings with the same targets) are one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from softstart.prompt import PLACEMENTS
from softstart.study.declare.spec import Study, resolve_methods
from softstart.study.declare.study_file import variants_of
from softstart.study.plan.inputs import Inputs, Part, TaskFacts
from softstart.study.plan.keys import PROTOCOL, as_json, key_of
from softstart.training.budgets import MetaBudget, step_cost, tasks_of
from softstart.training.configs import PromptSpec, steps_of
from softstart.training.identity import identity_of
from softstart.training.methods import Method, TaskLearner

UNSEEDED = 0
"""The seed of runs whose numbers depend on none: one run serves every meta seed."""

EVALUATION_COST = 0.7
"""Work of a generated row in rows that go forward and backward."""


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
        return m.steps * step_cost(a, tasks_of(a, m.meta_batch, len(self.source)))


@dataclass(frozen=True, slots=True)
class RunNode:
    """One adaptation, or run of another baseline: start x target task x sample x learning rate x seed."""

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
    """The number of its start among the draws of its seed (``PromptSpec.draw_per``)."""

    @property
    def group(self) -> str:
        """Equal for all runs of a cell, which may compete while they train (``AdaptConfig.rungs``)."""
        cell = f"{self.start}/{self.task}/{self.sample}/{self.seed}"
        return f"{cell}/{self.method.name}" if self.method.has_own_rows else cell

    def shape(self, prompt: PromptSpec) -> tuple[Any, ...]:
        """What decides the length of its prompt, equal for runs that can share a pack."""
        spec = self.method.begins(prompt)
        own = (self.task, self.sample) if spec.demonstrations == "all" else ()
        return (spec.length, spec.demonstrations, *own)


@dataclass(frozen=True, slots=True)
class Cell:
    """The runs that compete for one result: one method, target task, sample and seed, all learning rates.

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
    """All nodes of a study, each once, and the cells that they belong to."""

    metas: list[MetaNode]
    cells: list[Cell]
    studies: Mapping[str, Study]
    """Every variant by name, with packs that fit into memory."""

    @property
    def runs(self) -> Iterator[RunNode]:
        """Every run of every cell, each once."""
        return iter({run.key: run for cell in self.cells for run in cell.runs}.values())


def make_plan(study: Study, inputs: Inputs) -> Plan:
    """The plan of a study."""
    studies = _packed(variants_of(study), inputs)
    metas: dict[str, MetaNode] = {}
    runs: dict[str, RunNode] = {}
    cells: list[Cell] = []
    for part in inputs.parts:
        cells += _Planner(studies[part.variant], part, inputs, metas, runs).cells()
    return Plan(list(metas.values()), cells, studies)


def _packed(studies: Mapping[str, Study], inputs: Inputs) -> dict[str, Study]:
    """Every variant with packs that fit into memory."""
    sizes = {
        name: min(inputs.fits.get(name, each.pack_size), each.pack_size) for name, each in studies.items()
    }
    return {name: each.model_copy(update={"pack_size": sizes[name]}) for name, each in studies.items()}


def run_cost(run: RunNode, study: Study, task: TaskFacts) -> float:
    """Estimated work of a run, as ``MetaNode.cost``; that of an unpacked one includes its tests."""
    if run.method.unpacked:
        rows, on_dev, on_test = run.method.unpacked.cost(task.train)
        return rows + (task.dev * on_dev + task.test * on_test) * EVALUATION_COST
    config = study.adaptation
    steps = steps_of(config, task.train) if task.train else config.steps
    evaluated = task.dev * (steps / config.eval_every + 1)
    return steps * config.batch_size + evaluated * EVALUATION_COST


def pack_places(run: RunNode, study: Study) -> int | None:
    """How many runs of its piece of work train at once; None: all of them.

    Under dropout the numbers of a run depend on its pack, so packs stay as they were.
    """
    config = study.adaptation
    if PLACEMENTS.find(study.prompt.placement).rows_interact:
        return study.pack_size
    ends_early = config.stops_early or config.epochs is not None
    if study.pack_refill == 1 or not ends_early or config.dropout or _chosen_under_dropout(run.method):
        return None
    return study.pack_size


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
            "text": study.text,
        }
        self.common = as_json({**common, "prompt": study.prompt.learned})
        tuning = as_json({**common, "evaluation": study.evaluation})
        self.unpacked = {m.name: tuning | self._unpacked_parts(m, inputs) for m in self.methods if m.unpacked}
        self.adapted = {
            **tuning,
            **as_json({"training": study.adaptation, "tuned": False}),
            **as_json({"prompt": study.prompt}),
        }
        if study.adaptation.rungs:
            self.adapted |= as_json({"rivals": study.learning_rates})
        # Dropout draws one mask for all rows of a pack. Results with the default size were stored before the
        # size was part of their keys: without it, they are still found.
        usual = study.pack_size == Study.model_fields["pack_size"].default
        self.pack = {} if usual else as_json({"pack_size": study.pack_size})

    @staticmethod
    def _unpacked_parts(method: Method, inputs: Inputs) -> dict[str, str]:
        assert method.unpacked is not None
        parts = as_json(method.unpacked.identity_parts(method.kind))
        if other := method.unpacked.other_weights:
            parts |= as_json({"backbone": inputs.tuned.get(other)})
        return parts

    def cells(self) -> Iterator[Cell]:
        study = self.study
        metas = {(m.name, seed): self._meta(m, seed) for m in self.methods for seed in study.meta_seeds}
        baseline = study.baseline_seeds or study.meta_seeds
        for task in self.part.target:
            for method in self.methods:
                for i, seed in enumerate(study.meta_seeds):
                    start = metas[method.name, seed]
                    run_seed = seed if start else baseline[i % len(baseline)]
                    for sample in study.samples:
                        runs = self._runs(method, task, sample, run_seed, start)
                        yield Cell(self.part, method, task, sample, seed, runs)

    def _meta(self, method: Method, seed: int) -> str | None:
        if method.algorithm is None or not isinstance(method.meta, MetaBudget):
            return None
        samples, part = self.study.source_samples or self.study.samples, self.part
        rows = len(part.source), len(part.source) * len(samples), part.source_rows
        config = method.meta.resolved(method.algorithm, *rows, part.hvp_cost)
        method, shown = replace(method, meta=config), method.context(self.study.prompt)
        learned = as_json(
            {
                "kind": method.kind,
                "algorithm": method.algorithm,
                "meta": {**identity_of(config), "seed": seed},
                "source": dict(zip(self.part.source, self.part.source_digests, strict=True)),
                "samples": samples,
                **({"gym_version": part.gym_version} if part.gym_version else {}),
                **({"context": [shown, self.study.prompt.leave_one_out]} if shown else {}),
            }
        )
        key = key_of({**self.common, **learned})
        if key not in self.all_metas:
            self.all_metas[key] = MetaNode(key, part.variant, part.setting, method, seed, part.source)
        return key

    def _runs(
        self, method: Method, task: str, sample: int, seed: int, start: str | None
    ) -> tuple[RunNode, ...]:
        alone = method.unpacked
        if start is not None:
            # Its steps resolved; another method may have the same start.
            steps = self.all_metas[start].method.meta
            assert steps is not None
            assert method.meta is not None
            method = replace(method, meta=replace(steps, demonstrations=method.meta.demonstrations))
        rates = alone.rates if alone else self.study.learning_rates
        seed = seed if alone is None or alone.seeded else UNSEEDED
        digest = self.part.tasks[task].digest
        run = as_json({"start": start, "task": task, "digest": digest, "sample": sample, "seed": seed})
        common = {**(self.unpacked[method.name] if alone else self.adapted), **run}
        if (spec := method.begins(self.study.prompt)) != self.study.prompt:
            common |= as_json({"prompt": spec})
        if not alone and (self.study.adaptation.dropout or _chosen_under_dropout(method)):
            common |= self.pack
        runs = []
        anew = self.study.prompt.draw_per == "run" and start is None and not alone
        first = self.study.samples.index(sample) * len(rates)
        for i, lr in enumerate(rates):
            draw = first + i if anew else 0
            key = key_of({**common, "lr": json.dumps(lr), **({"draw": str(draw)} if anew else {})})
            if key not in self.runs:
                variant = self.part.variant
                self.runs[key] = RunNode(key, variant, method, task, sample, lr, seed, start, draw)
            runs.append(self.runs[key])
        return tuple(runs)


def _chosen_under_dropout(method: Method) -> bool:
    """Whether the start of a run is chosen by a short tuning that is packed and has dropout."""
    return isinstance(method.algorithm, TaskLearner) and method.meta is not None and method.meta.dropout
