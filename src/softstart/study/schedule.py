"""Compute what a plan still lacks on any executor; this process alone writes the results. Safe to kill."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from softstart.console import Display, Quiet
from softstart.errors import SoftstartError
from softstart.prompt import SoftPrompt
from softstart.study.executors import Executor, Failure
from softstart.study.graph import Graph, State, Unit
from softstart.study.plan import Inputs, MetaNode, Plan, RunNode
from softstart.study.store import Store
from softstart.study.trackers import Tracker, track
from softstart.study.work import FINAL, Array, Done, Item


@dataclass
class StudyRun:
    """A study on its way from plan to results; every finished piece of work is in the store."""

    inputs: Inputs
    plan: Plan
    store: Store
    display: Display = field(default_factory=Quiet)
    tracker: Tracker | None = None
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = State.of(self.store)
        self.graph = Graph(self.plan, self.inputs, self.state, self.store.folder)
        self._nodes: dict[str, MetaNode | RunNode] = {node.key: node for node in self.plan.metas}
        self._nodes |= {run.key: run for run in self.plan.runs}
        self._blocked: dict[Unit, int] = {}
        self._dependants: dict[Unit, list[Unit]] = {unit: [] for unit in self.graph.units}
        self._ready: list[tuple[float, int, Unit]] = []
        self._running: dict[int, Unit] = {}
        self._reported: dict[Unit, float] = {}

    @property
    def units(self) -> list[Unit]:
        """What is still to do."""
        return self.graph.units

    def execute(self, executor: Executor) -> None:
        """Compute everything that is missing. A unit that fails is noted and the others go on.

        Of what can be done, the unit that most work waits for comes first: long ones do not come last.
        """
        self.display.start(sum(unit.cost for unit in self.units))
        for unit in self.units:
            before = (*unit.needs, *unit.after)
            self._blocked[unit] = len(before)
            for each in before:
                self._dependants[each].append(unit)
        for unit in [unit for unit in self.units if not self._blocked[unit]]:
            self._push(unit)
        while self._ready or self._running:
            while self._ready and len(self._running) < executor.slots:
                self._begin(heapq.heappop(self._ready)[2], executor)
            if self._running:
                item, outcome = executor.collect(self._report)
                self._end(self._running.pop(id(item)), outcome)
        if not self.failures:
            self.store.drop_checkpoints()

    def _push(self, unit: Unit) -> None:
        heapq.heappush(self._ready, (-unit.rank, len(self._reported), unit))
        self._reported[unit] = 0.0

    def _begin(self, unit: Unit, executor: Executor) -> None:
        known = self.state.failures.get(unit.key)
        if known and known["kind"] == "diverged":
            self._fail(unit, f"{known['reason']} (in an earlier call; --retry-failed tries it again)")
            return
        try:
            item = unit.make()
        except SoftstartError as problem:
            self._fail(unit, str(problem))
            return
        if item is None:
            self._settle(unit, succeeded=True)
            return
        self._running[id(item)] = unit
        executor.submit(item)
        self._show()

    def _end(self, unit: Unit, outcome: Done | Failure) -> None:
        if isinstance(outcome, Done):
            self._commit(unit, outcome)
            self._settle(unit, succeeded=True)
        elif outcome.kind == "memory" and len(parts := self.graph.halves(unit)) > 1:
            self.display.line(f"{unit.name}: {outcome.reason}; going on with smaller packs")
            self._split(unit, parts)
        else:
            if outcome.kind == "diverged":
                self.store.add_failure(unit.key, unit.name, outcome.kind, outcome.reason)
            self._fail(unit, outcome.reason)

    def _split(self, unit: Unit, parts: Sequence[Unit]) -> None:
        """Go on with smaller packs; whatever waited for the pack waits for all of them."""
        for part in parts:
            part.rank = unit.rank
            self._dependants[part] = self._dependants[unit]
            self._push(part)
        for each in self._dependants[unit]:
            self._blocked[each] += len(parts) - 1
        self.display.advance(-self._reported[unit])

    def _fail(self, unit: Unit, reason: str) -> None:
        self.failures.append(f"{unit.name}: {reason}")
        self.display.line(f"failed: {unit.name}: {reason}")
        self._settle(unit, succeeded=False)

    def _settle(self, unit: Unit, *, succeeded: bool) -> None:
        """A unit is over: begin what waited for it, or give up what needed it."""
        self.display.advance(unit.cost - self._reported.get(unit, 0.0))
        for each in self._dependants[unit]:
            if not succeeded and unit in each.needs:
                self._settle(each, succeeded=False)
                continue
            self._blocked[each] -= 1
            if not self._blocked[each]:
                self._push(each)

    def _commit(self, unit: Unit, done: Done) -> None:
        """Prompts first, then the rows that name them, in one transaction."""
        for key, prompts in done.prompts.items():
            self._save_prompts(self._nodes[key], prompts)
        for row in (*done.metas, *done.runs):
            row["prompt"] = f"prompts/{row['key']}.safetensors" if row["key"] in done.prompts else None
        self.store.add(metas=done.metas, runs=done.runs, tests=done.tests)
        if self.tracker:
            track(self.tracker, done)
        self.store.checkpoint_path(unit.key).unlink(missing_ok=True)
        self.state.metas |= {row["key"]: row for row in done.metas}
        self.state.runs |= {row["key"]: row for row in done.runs}
        self.state.tests |= {of: vars(test) for of, test in done.tests.items()}

    def _save_prompts(self, node: MetaNode | RunNode, prompts: Mapping[str, Array]) -> None:
        study = self.plan.studies[node.variant]
        tensors = {name: torch.tensor(prompt) for name, prompt in prompts.items()}
        final = tensors.pop(FINAL)
        SoftPrompt(
            final,
            study.backbone,
            self.inputs.backbone_digest,
            study.prompt.placement,
            _info(node),
            **self.inputs.made_on,
        ).save(self.store.prompt_path(node.key), tensors)

    def _report(self, item: Item, share: float, note: str) -> None:
        unit = self._running[id(item)]
        units = min(share * unit.cost, unit.cost - self._reported[unit])
        self._reported[unit] += units
        self.display.advance(units, note)

    def _show(self) -> None:
        names = list(dict.fromkeys(unit.name for unit in self._running.values()))
        self.display.stage(_listed(names))


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _info(node: MetaNode | RunNode) -> dict[str, Any]:
    """What a prompt file says about where it comes from."""
    info: dict[str, Any] = {"method": node.method.name, "seed": node.seed}
    if isinstance(node, RunNode):
        return {**info, "task": node.task, "sample": node.sample, "lr": node.lr, "start": node.start}
    assert node.method.meta is not None
    return {
        **info,
        "algorithm": node.method.kind,
        "setting": node.setting,
        "source": list(node.source),
        "steps": node.method.meta.steps,
    }
