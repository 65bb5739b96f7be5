"""Compute what a plan lacks, on any executor. Only this process writes results, so it is safe to kill."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from softstart.errors import SoftstartError
from softstart.progress import Display, Quiet
from softstart.prompt import SoftPrompt
from softstart.prompt.kinds import recorded_kind
from softstart.storage.files import sync
from softstart.study.plan.inputs import Inputs
from softstart.study.plan.plan import MetaNode, Plan, RunNode
from softstart.study.results.folder import PROMPTS, TENSORS, drop_checkpoint, drop_checkpoints, prompt_path
from softstart.study.results.store import Store
from softstart.study.run.executors import Executor, Failure
from softstart.study.run.pace import Pace
from softstart.study.run.trackers import Tracker, track
from softstart.study.run.work import FINAL, Array, Done, WorkItem
from softstart.study.run.work_graph import StoredRows, Unit, WorkGraph

RESUMED = "resumed"
"""The first note of work that goes on from a checkpoint."""


@dataclass
class StudyRun:
    """The execution of a plan; every finished piece of work goes to the store at once."""

    inputs: Inputs
    plan: Plan
    store: Store
    display: Display = field(default_factory=Quiet)
    tracker: Tracker | None = None
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = StoredRows.of(self.store)
        self.graph = WorkGraph(self.plan, self.inputs, self.state, self.store.folder)
        self._nodes: dict[str, MetaNode | RunNode] = {node.key: node for node in self.plan.metas}
        self._nodes |= {run.key: run for run in self.plan.runs}
        self._blocked: dict[Unit, int] = {}
        self._dependants: dict[Unit, list[Unit]] = {unit: [] for unit in self.graph.units}
        self._ready: list[tuple[float, Sequence[tuple[str, int]], int, Unit]] = []
        self._running: dict[int, Unit] = {}
        self._reported: dict[Unit, float] = {}
        self._room: dict[str, float] = {}
        self._pace = Pace(self.plan, self.units, self.state.runs)
        self._slots = 1

    @property
    def units(self) -> list[Unit]:
        """The work that is left."""
        return self.graph.units

    def execute(self, executor: Executor) -> None:
        """Compute everything that is missing; when a unit fails, the others go on.

        Among the units that are ready, the one with the longest chain of work behind it starts first, so that
        no long chain is left to the end. Of equal ones, those on the same texts follow each other, for a
        worker that keeps what it has read.
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
                self._begin(heapq.heappop(self._ready)[-1], executor)
            if self._running:
                self._slots = executor.slots
                ended = executor.collect(self._report)
                if ended:
                    unit = self._running.pop(id(ended[0]))
                    if isinstance(ended[1], Done):
                        self._pace.computed(ended[0], unit.kind, unit.cost - self._reported[unit])
                    self._end(unit, ended[1])
        if not self.failures:
            drop_checkpoints(self.store.folder)

    def _push(self, unit: Unit) -> None:
        heapq.heappush(self._ready, (-unit.rank, unit.texts, len(self._reported), unit))
        self._reported[unit] = 0.0

    def _begin(self, unit: Unit, executor: Executor) -> None:
        known = self.state.failures.get(unit.key)
        if known and known["kind"] == "diverged":
            self._fail(unit, f"{known['reason']} (in an earlier run; --retry-failed tries it again)")
            return
        room = self._room.get(unit.runs[0].variant, math.inf) if unit.runs else math.inf
        if unit.places > room and (parts := self.graph.smaller(unit)) != [unit]:
            self._split(unit, parts)
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
        self._pace.begin(item)
        executor.submit(item)
        self._show()

    def _end(self, unit: Unit, outcome: Done | Failure) -> None:
        if isinstance(outcome, Done):
            self._commit(unit, outcome)
            for name, reason in outcome.failed.items():
                self._failed(name, reason)
            self._settle(unit, succeeded=True)
        elif outcome.kind == "memory" and (parts := self.graph.smaller(unit)) != [unit]:
            self.display.line(f"{unit.name}: {outcome.reason}; continuing with smaller packs")
            self._room[unit.runs[0].variant] = max(part.places for part in parts)
            self._split(unit, parts)
        elif outcome.kind == "memory":
            self._fail(unit, f"{outcome.reason}; a smaller max_tokens needs less memory")
        else:
            if outcome.kind == "diverged":
                self.store.add_failure(unit.key, unit.name, outcome.kind, outcome.reason)
            self._fail(unit, outcome.reason)

    def _split(self, unit: Unit, parts: Sequence[Unit]) -> None:
        """Replace a pack by smaller ones; what waited for the pack waits for all of them."""
        for part in parts:
            part.rank = unit.rank
            self._dependants[part] = self._dependants[unit]
            self._push(part)
        for each in self._dependants[unit]:
            self._blocked[each] += len(parts) - 1
        self._advance(unit, -self._reported[unit])

    def _fail(self, unit: Unit, reason: str) -> None:
        self._failed(unit.name, reason)
        self._settle(unit, succeeded=False)

    def _failed(self, name: str, reason: str) -> None:
        self.failures.append(f"{name}: {reason}")
        self.display.line(f"failed: {name}: {reason}")

    def _settle(self, unit: Unit, *, succeeded: bool) -> None:
        """End a unit: start what waited for it, or give up what needed its result."""
        self._advance(unit, unit.cost - self._reported.get(unit, 0.0))
        for each in self._dependants[unit]:
            if not succeeded and unit in each.needs:
                self._settle(each, succeeded=False)
                continue
            self._blocked[each] -= 1
            if not self._blocked[each]:
                self._push(each)

    def _commit(self, unit: Unit, done: Done) -> None:
        """Store the outcome: first the prompt files, then the rows that name them, in one transaction.

        The files are on the disk first: after a power failure no row names a file that is empty.

        Raises:
            SoftstartError: the folder or the database is not what it was.
        """
        self.store.check_in_place()
        for key, prompts in done.prompts.items():
            self._save_prompts(self._nodes[key], prompts)
        sync([prompt_path(self.store.folder, key) for key in done.prompts])
        for row in (*done.metas, *done.runs):
            row["prompt"] = f"{PROMPTS}/{row['key']}{TENSORS}" if row["key"] in done.prompts else None
        self.store.add(metas=done.metas, runs=done.runs, tests=done.tests)
        self._track(done)
        drop_checkpoint(self.store.folder, unit.key)
        self._pace.finished((*done.metas, *done.runs))
        self.state.metas |= {row["key"]: row for row in done.metas}
        self.state.runs |= {row["key"]: row for row in done.runs}
        self.state.tests |= {of: vars(test) for of, test in done.tests.items()}

    def _track(self, done: Done) -> None:
        """Send the curves to the tracker. The store has them too: if it fails, the study goes on."""
        if self.tracker:
            try:
                track(self.tracker, done)
            except Exception as problem:
                self.tracker = None
                reason = f"{type(problem).__name__}: {problem}"
                self.display.line(f"the tracker failed and gets no more curves ({reason})")

    def _save_prompts(self, node: MetaNode | RunNode, prompts: Mapping[str, Array]) -> None:
        study = self.plan.studies[node.variant]
        tensors = {name: torch.tensor(prompt) for name, prompt in prompts.items()}
        final = tensors.pop(FINAL)
        made = self.inputs.of(node.variant)
        more: Mapping[str, Any] = made.made_on
        SoftPrompt(
            final,
            study.backbone,
            made.digest,
            study.prompt.placement,
            {**_info(node), "template": study.text.template},
            kind=recorded_kind(made.width, made.kind),
            **more,
        ).save(prompt_path(self.store.folder, node.key), tensors, durable=False)

    def _report(self, item: WorkItem, share: float, note: str) -> None:
        unit = self._running[id(item)]
        rows = min(share * unit.cost, unit.cost - self._reported[unit])
        self._reported[unit] += rows
        # Rows that a checkpoint already had say nothing about the speed.
        self._pace.computed(item, unit.kind, 0.0 if note == RESUMED else rows)
        self._advance(unit, rows, note)

    def _advance(self, unit: Unit, rows: float, note: str = "") -> None:
        self._pace.left[unit.kind] -= rows
        self.display.tally(self._pace.tally(self._slots))
        self.display.advance(rows, note)

    def _show(self) -> None:
        names = list(dict.fromkeys(unit.name for unit in self._running.values()))
        self.display.stage(_listed(names))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _info(node: MetaNode | RunNode) -> dict[str, Any]:
    """The origin of a prompt, for its file."""
    info: dict[str, Any] = {"key": node.key, "method": node.method.name, "seed": node.seed}
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
