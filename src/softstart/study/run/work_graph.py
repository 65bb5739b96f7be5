"""What a plan lacks, as units of work and the units that each waits for."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from softstart.errors import Damaged, SoftstartError
from softstart.prompt import TENSOR, SoftPrompt
from softstart.prompt.kinds import recorded_kind
from softstart.study.declare.spec import MAIN
from softstart.study.plan.choice import Choice, best_up_to, budgets_of, choose
from softstart.study.plan.inputs import Inputs
from softstart.study.plan.plan import EVALUATION_COST, Cell, MetaNode, Plan, RunNode, pack_places, run_cost
from softstart.study.results.folder import prompt_path, stored_prompts
from softstart.study.results.store import Store
from softstart.study.run.work import FINAL, Adaptation, Array, MetaTraining, Testing, UnpackedRun, WorkItem
from softstart.training.places import whole_groups


@dataclass
class StoredRows:
    """The rows of the store, kept up to date while a study runs."""

    metas: dict[str, dict[str, Any]]
    runs: dict[str, dict[str, Any]]
    tests: dict[tuple[str, int], dict[str, Any]]
    failures: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, store: Store) -> StoredRows:
        """Read a store."""
        return cls(store.metas(), store.runs(), store.tests(), store.failures())


@dataclass(eq=False)
class Unit:
    """A node of the graph of work.

    ``needs`` are units that must succeed first, ``after`` units that must only have ended. ``make`` returns
    the work when its turn comes, or None if nothing is left of it. ``cost`` is in rows that go forward and
    backward once. ``rank`` is the cost of the longest path from here to the end. A row takes about the same
    time in all units of one ``kind``. Units with the same ``texts`` read the same ones. Of the ``runs`` of a
    pack, ``places`` train at once.
    """

    key: str
    name: str
    kind: str
    cost: float
    make: Callable[[], WorkItem | None]
    needs: list[Unit] = field(default_factory=list)
    after: list[Unit] = field(default_factory=list)
    runs: Sequence[RunNode] = ()
    places: int = 0
    rank: float = 0.0
    variant: str = MAIN
    texts: tuple[tuple[str, int], ...] = ()


class WorkGraph:
    """Everything that a plan lacks.

    Packs and groups of tests are cut from the whole plan, not from what is left of it. So what is computed
    together, and every bit of the results, depends neither on interruptions nor on where the work is done.
    Where runs take the places of others, their order is that of the plan.
    """

    def __init__(self, plan: Plan, inputs: Inputs, state: StoredRows, folder: Path) -> None:
        self.plan, self.inputs, self.state, self.folder = plan, inputs, state, folder
        self.costs = {
            run.key: run_cost(run, plan.studies[run.variant], cell.part.tasks[run.task])
            for cell in plan.cells
            for run in cell.runs
        }
        metas = {node.key: self._meta(node) for node in plan.metas if node.key not in state.metas}
        trained: dict[str, Unit] = {}
        for group in packs(plan):
            if todo := self._missing(group):
                first, start = todo[0], todo[0].start
                places = pack_places(first, plan.studies[first.variant])
                unit = self._alone(first) if first.method.unpacked else self.pack(todo, places)
                unit.needs = [metas[start]] if start in metas else []
                trained |= dict.fromkeys((run.key for run in todo), unit)
        tests = [self._test(cells, trained) for cells in _test_groups(plan)]
        self.units = [*metas.values(), *dict.fromkeys(trained.values()), *filter(None, tests)]
        self._rank()

    def pack(self, runs: Sequence[RunNode], places: int | None = None) -> Unit:
        """The adaptation of some runs, which share a start or have none.

        Args:
            runs: those of the pack.
            places: upper bound on those that train at once, see ``adapt``.
        """
        key = "pack-" + hashlib.sha256(json.dumps([run.key for run in runs]).encode()).hexdigest()[:16]
        names = sorted({run.task for run in runs})
        name = f"adaptation of {names[0]}{' …' if len(names) > 1 else ''}"
        cost = sum(self.costs[run.key] for run in runs)
        kind = f"adaptation {runs[0].variant}"
        return Unit(
            key, name, kind, cost, lambda: self._adaptation(key, runs, places), runs=runs,
            places=self._at_once(runs, places), variant=runs[0].variant,
            texts=tuple(sorted({(run.task, run.sample) for run in runs})),
        )  # fmt: skip

    def _at_once(self, runs: Sequence[RunNode], places: int | None) -> int:
        """How many of the runs of a pack train at once: rivals at the rungs do, even if they are more."""
        if places is None:
            return len(runs)
        rungs = self.plan.studies[runs[0].variant].adaptation.rungs
        rivals = max(Counter(run.group for run in runs).values()) if rungs else 1
        return min(len(runs), max(places, rivals))

    def smaller(self, unit: Unit) -> list[Unit]:
        """A pack with half the places, which goes on from its checkpoint; where one place, or one for each
        rival at the rungs, is too much, its halves: whole cells if there are several. Itself if it cannot be
        cut.
        """
        fewer = self.pack(unit.runs, max(1, unit.places // 2)) if unit.runs else unit
        if fewer.places < unit.places:
            return [fewer]
        if len(unit.runs) < 2:
            return [unit]
        size = len(unit.runs) // 2
        parts = _cut(unit.runs, size)
        if len(parts) == 1 and not self.plan.studies[unit.runs[0].variant].adaptation.rungs:
            parts = [list(unit.runs[:size]), list(unit.runs[size:])]
        return [self.pack(part, unit.places) for part in parts] if len(parts) > 1 else [unit]

    def _missing(self, group: Sequence[RunNode]) -> list[RunNode]:
        """The runs of a pack that are missing; where runs compete (``rungs``), all runs of their cells."""
        missing = [run for run in group if run.key not in self.state.runs or self._lost(run)]
        if missing and self.plan.studies[missing[0].variant].adaptation.rungs:
            cells = {run.group for run in missing}
            return [run for run in group if run.group in cells]
        return missing

    def _lost(self, run: RunNode) -> bool:
        """Whether an unpacked run lacks a test: what it learned is not kept, so it must be done again."""
        if run.method.unpacked is None:
            return False
        study, curve = self.plan.studies[run.variant], self.state.runs[run.key]["curve"]
        best = [best_up_to(curve, budget) for budget in budgets_of(study, run.method)]
        return any(of is not None and (run.key, of[1]) not in self.state.tests for of in best)

    def _meta(self, node: MetaNode) -> Unit:
        name = f"meta-training {node.method.name}"
        kind, variant = f"{name} {node.variant}", node.variant
        return Unit(node.key, name, kind, node.cost, lambda: MetaTraining(node), variant=variant)

    def _alone(self, run: RunNode) -> Unit:
        item, cost = UnpackedRun(run), self.costs[run.key]
        return Unit(run.key, item.name, item.work, cost, lambda: item, variant=run.variant)

    def _test(self, cells: Sequence[Cell], trained: dict[str, Unit]) -> Unit | None:
        waits = {unit for cell in cells for run in cell.runs if (unit := trained.get(run.key))}
        first = cells[0]
        prompts = len(cells) if waits else len(self._untested(cells))
        if not prompts:
            return None
        return Unit(
            f"test-{first.runs[0].key}",
            f"testing {first.task}",
            "testing",
            prompts * first.part.tasks[first.task].test * EVALUATION_COST,
            lambda: self._testing(cells),
            after=sorted(waits, key=lambda unit: unit.key),
            variant=first.runs[0].variant,
            texts=((first.task, 0),),
        )

    def _adaptation(self, key: str, runs: Sequence[RunNode], places: int | None) -> WorkItem:
        starts = {run.start: run for run in runs if run.start is not None}
        learned = {start: self._learned(start, run) for start, run in starts.items()}
        return Adaptation(key, tuple(runs), learned, places)

    def _learned(self, key: str, run: RunNode) -> dict[str, Array]:
        """A learned start [P, d] as ``FINAL``, and whatever else was learned with it."""
        prompt = self._load(key, run, TENSOR)
        return {FINAL: prompt.tensor.numpy()} | {name: t.numpy() for name, t in prompt.further.items()}

    def _testing(self, cells: Sequence[Cell]) -> WorkItem | None:
        choices = self._untested(cells)
        if not choices:
            return None
        run = choices[0].run
        prompts = np.stack([self._load(c.run.key, c.run, self._name(c)).tensor for c in choices])
        return Testing(run.variant, run.task, [(c.run.key, c.tested_step) for c in choices], prompts)

    def _untested(self, cells: Sequence[Cell]) -> list[Choice]:
        chosen: dict[tuple[str, int], Choice] = {}
        for cell in cells:
            study = self.plan.studies[cell.part.variant]
            for budget in budgets_of(study, cell.method):
                choice = choose(cell, study, self.state.runs, budget)
                if choice and (choice.run.key, choice.tested_step) not in self.state.tests:
                    chosen.setdefault((choice.run.key, choice.tested_step), choice)
        return list(chosen.values())

    def _name(self, choice: Choice) -> str:
        """The name of the prompt of a choice in its run's file."""
        row, config = self.state.runs[choice.run.key], self.plan.studies[choice.run.variant].adaptation
        best = config.select == "best" or row["status"] == "diverged"
        final = row["best_step"] if best else row["steps"]
        return TENSOR if choice.tested_step == final else str(choice.tested_step)

    def _load(self, key: str, run: RunNode, name: str) -> SoftPrompt:
        """A stored prompt [P, d], checked to be of this study; a damaged file is moved out of the way."""
        path, study = prompt_path(self.folder, key), self.plan.studies[run.variant]
        prompt = load_stored(path, name)
        made = self.inputs.of(run.variant)
        prompt.check(
            kind=recorded_kind(made.width, made.kind),
            digest=made.digest,
            placement=study.prompt.placement,
            backbone=study.backbone,
            where=str(path),
        )
        return prompt

    def _rank(self) -> None:
        """Set the ranks from the end: units are listed in an order in which they can be done."""
        for unit in reversed(self.units):
            unit.rank += unit.cost
            for before in (*unit.needs, *unit.after):
                before.rank = max(before.rank, unit.rank)


def load_stored(path: Path, name: str = TENSOR) -> SoftPrompt:
    """A prompt of a study folder; a damaged file is moved out of the way.

    Raises:
        Damaged: the file is not what was written under its name.
    """
    try:
        prompt = SoftPrompt.load(path, name)
        if prompt.info.get("key", path.stem) != path.stem:
            raise Damaged("it belongs to other work of this study")
    except SoftstartError as problem:
        with suppress(OSError):
            path.replace(path.with_suffix(".damaged"))
        raise Damaged(
            f"{problem.what}; it now ends in .damaged",
            where=str(path),
            fix="Run the study again: its prompt is computed again.",
        ) from problem
    return prompt


def damaged_prompts(folder: Path) -> list[Damaged]:
    """Every stored prompt that cannot be read, moved out of the way: what it belongs to counts as missing."""
    problems = []
    for key in sorted(stored_prompts(folder)):
        path = prompt_path(folder, key)
        try:
            if path.is_file():
                load_stored(path)
        except Damaged as problem:
            problems.append(problem)
    return problems


def packs(plan: Plan) -> Iterator[list[RunNode]]:
    """The runs that are trained together: whole cells of one variant and one start, with prompts of one
    length, ``pack_size`` runs where a cell is not larger; ``pack_refill`` times as many where places of runs
    that end are taken by others. Every other run is alone.
    """
    groups: dict[Any, list[RunNode]] = {}
    for run in plan.runs:
        shape = run.shape(plan.studies[run.variant].prompt)
        key = run.key if run.method.unpacked else (run.variant, run.start, shape)
        groups.setdefault(key, []).append(run)
    for runs in groups.values():
        study = plan.studies[runs[0].variant]
        places = pack_places(runs[0], study)
        yield from _cut(runs, study.pack_size if places is None else study.pack_refill * places)


def _cut(runs: Sequence[RunNode], size: int) -> list[list[RunNode]]:
    return [[runs[i] for i in pack] for pack in whole_groups([run.group for run in runs], size)]


def _test_groups(plan: Plan) -> Iterable[list[Cell]]:
    """The cells whose prompts are tested together: of one task, one start (or none) and one length."""
    groups: dict[Any, list[Cell]] = {}
    for cell in plan.cells:
        if cell.method.unpacked is None:
            run = cell.runs[0]
            shape = run.shape(plan.studies[run.variant].prompt)
            groups.setdefault((run.variant, run.task, run.start, shape), []).append(cell)
    return groups.values()
