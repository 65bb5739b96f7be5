"""Studies: declare a comparison, plan it, run what is missing, report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from softstart.analysis import arg_table, largest_budget, refuse_mixed, relative_gains, with_defaults
from softstart.errors import SoftstartError
from softstart.progress import Display, Quiet
from softstart.report.html import write_report
from softstart.storage.files import atomic
from softstart.study.declare.spec import MAIN, Study, load_study, parse_study, variants_of
from softstart.study.plan.departures import protocol
from softstart.study.plan.plan import Inputs, Plan, make_plan
from softstart.study.results.store import Store
from softstart.study.results.tables import costs, environments, gaps, meta_curves, results
from softstart.study.run.executors import Executor, InProcess, Setup
from softstart.study.run.joining import Joiners, join_study
from softstart.study.run.pack_sizes import fitting_packs
from softstart.study.run.processes import LocalProcesses, default_workers
from softstart.study.run.resources import Resources, resolve_setting
from softstart.study.run.schedule import StudyRun
from softstart.study.run.status import STUDY_FILE, Recorded
from softstart.study.run.trackers import open_tracker

BASELINE = "pt"
"""Gains are relative to plain prompt tuning."""

__all__ = [
    "Outcome",
    "Study",
    "default_workers",
    "join_study",
    "load_study",
    "parse_study",
    "report_study",
    "run_study",
    "study_tables",
]


@dataclass(frozen=True)
class Outcome:
    """What a study came to: tables, and the nodes that failed.

    ``rows`` holds one row a selected run; ``gains`` one a method and task and ``arg`` one a method with an
    interval, at the largest budget. ``missing`` counts runs not computed yet.
    """

    rows: pd.DataFrame
    gains: pd.DataFrame
    arg: pd.DataFrame
    failures: list[str]
    missing: int
    folder: Path
    notes: Sequence[str] = ()
    """What is missing, failed or not comparable, a sentence each."""
    costs: pd.DataFrame = field(default_factory=pd.DataFrame)
    """What each method took (``results.costs``)."""
    protocol: Sequence[Mapping[str, str]] = ()
    """Every value of the published protocol beside the study's (``departures.protocol``)."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the numbers were made with."""


def run_study(
    study: Study,
    folder: Path,
    *,
    display: Display | None = None,
    device: str | None = None,
    workers: int = 1,
    ray: str | None = None,
    tracker: str | None = None,
    retry_failed: bool = False,
    stall: float | None = None,
) -> Outcome:
    """Compute what is missing of a study and write its tables and report into ``folder``.

    Args:
        study: the declared study.
        folder: the study folder; results already there are reused.
        display: shows progress.
        device: where to compute; by default the GPU where there is one.
        workers: 1 computes in this process, with the threads it has; more are so many processes of one
            thread each. Their number changes no number, but one thread and several may differ in last bits.
        ray: address of a Ray cluster whose workers compute in place of this machine's; ``local`` starts one.
        tracker: where to send learning curves, one of ``trackers.TRACKERS``.
        retry_failed: compute again what diverged.
        stall: begin the work of a worker process again that makes no progress for so many seconds.

    Raises:
        SoftstartError: bad input; failures of single nodes are in the outcome instead.
    """
    display = display or Quiet()
    resources = Resources(variants_of(study), device)
    for variant, each in resources.studies.items():
        for spec in each.every_setting:
            resolve_setting(each, spec, resources.gym(variant))
    with Store(folder) as store:
        display.stage("loading the backbone")
        resources.backbone(MAIN)
        display.stage("reading tasks")
        inputs = _packed(study, resources, store, display, 0 if ray else workers)
        store.set_inputs(inputs.to_json())
        if retry_failed:
            store.forget_failures()
        with atomic(folder / STUDY_FILE) as temporary:
            temporary.write_text(yaml.safe_dump(resolved(study), sort_keys=False), encoding="utf-8")
        plan = make_plan(study, inputs)
        recorded = Recorded(display, folder)
        follower = open_tracker(tracker, study.name, folder) if tracker else None
        run = StudyRun(inputs, plan, store, recorded, follower)
        setup = Setup(resources.studies, device, folder.resolve() / "checkpoints", inputs)
        executor = _executor(
            setup, resources, folder, min(workers, len(run.units)), ray if run.units else None, stall
        )
        # The workers load what they need themselves.
        del resources
        try:
            run.execute(executor)
        finally:
            executor.close()
            recorded.close()
            if follower:
                # Of a library of others, over a network too: the report is written all the same.
                with suppress(Exception):
                    follower.close()
        return _write(study, plan, store, run.failures)


def _packed(study: Study, resources: Resources, store: Store, display: Display, processes: int) -> Inputs:
    """What the study depends on, and how large its packs can be: as it was when the study began.

    Without ``processes`` on this machine, nothing is measured here.
    """
    inputs = resources.inputs()
    with suppress(SoftstartError):
        before = Inputs.from_json(store.inputs())
        if replace(before, fits={}) == inputs:
            return before
    if not processes:
        return inputs
    display.stage("measuring what fits in memory")
    fits = fitting_packs(resources, make_plan(study, inputs), processes)
    if fits:
        listed = ", ".join(f"{size} ({variant})" for variant, size in fits.items())
        display.line(f"memory is short: runs of a pack at most {listed}; fewer --workers leave more to each")
    return replace(inputs, fits=fits)


def _executor(
    setup: Setup, resources: Resources, folder: Path, workers: int, ray: str | None, stall: float | None
) -> Executor:
    if ray is not None:
        from softstart.study.run.ray_cluster import RayCluster

        return RayCluster(setup, resources.tasks(), ray)
    if workers > 1:
        joiners = None
        # Where no socket can be made (its path may be too long), nobody can join.
        with suppress(OSError):
            joiners = Joiners(setup, folder)
        return LocalProcesses(setup, workers, joiners, stall)
    return InProcess(setup.worker(resources))


def report_study(folder: Path) -> Outcome:
    """Write the tables and the report of a study folder from what is computed; needs no backbone, no gym.

    Raises:
        SoftstartError: not a study folder, or its results do not belong to the plan; then nothing is written.
    """
    study = load_study(folder / STUDY_FILE)
    with Store(folder, readonly=True) as store:
        plan = make_plan(study, Inputs.from_json(store.inputs()))
        _refuse_loss(folder, plan, store)
        return _write(study, plan, store, [])


def _refuse_loss(folder: Path, plan: Plan, store: Store) -> None:
    """Stop before results that can no longer be made from the store are written over with fewer."""
    planned, done = {run.key for run in plan.runs}, set(store.runs())
    rows, there = len(results(plan, store)[0]), pd.DataFrame({"run": []})
    with suppress(OSError, ValueError):
        there = pd.read_csv(folder / "results.csv", usecols=["run"])
    lost = there[~there["run"].isin(planned & done)]
    if (len(lost) and rows < len(there)) or (done and not done & planned):
        what = f"{len(lost)} of {len(there)} results" if len(lost) else f"all {len(done)} runs"
        why = "do not belong to the study as it is planned now; it, its data or the protocol has changed"
        if len(lost) and set(lost["run"]) <= planned:
            why = "have lost their prompt files"
        raise SoftstartError(
            f"{what} in this folder {why}; nothing was written",
            where=str(folder),
            fix="Run the study again, or report with the version that made it.",
        )


def study_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables ``results``, ``runs`` and ``curves`` of a study folder; nothing is written.

    Raises:
        SoftstartError: not a study folder.
    """
    study = load_study(folder / STUDY_FILE)
    with Store(folder, readonly=True) as store:
        tables = results(make_plan(study, Inputs.from_json(store.inputs())), store)
    return dict(zip(("results", "runs", "curves"), tables, strict=True))


def resolved(study: Study) -> Mapping[str, Any]:
    """The study with every default filled in, as plain data."""
    data: Mapping[str, Any] = study.model_dump(mode="json")
    return data


def _write(study: Study, plan: Plan, store: Store, failures: list[str]) -> Outcome:
    done, metas, folder = store.runs(), store.metas(), store.folder
    rows, runs, curves = results(plan, store)
    for name, table in (("results", rows), ("runs", runs), ("curves", curves)):
        with atomic(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
    failed = failures or [f"{row['name']}: {row['reason']}" for row in store.failures().values()]
    notes = gaps(plan, done, metas, failed)
    gains, arg = pd.DataFrame(), pd.DataFrame()
    if BASELINE in set(rows["method"]):
        top = largest_budget(with_defaults(rows))
        gains = relative_gains(top, BASELINE)
        arg = arg_table(top, BASELINE, planned=_planned(plan))
        try:
            refuse_mixed(top, BASELINE)
        except SoftstartError as problem:
            notes.append(f"{problem.where}: {problem.what}.")
    took = costs(plan, done, metas)
    values = [asdict(value) for value in protocol(study, Inputs.from_json(store.inputs()))]
    made = environments(row["environment"] for row in (*done.values(), *metas.values()))
    if len(rows):
        found = folder / "similarity.json"
        write_report(
            folder / "report.html",
            resolved(study),
            rows,
            curves,
            arg,
            gains,
            took,
            baseline=BASELINE,
            meta_curves=meta_curves(plan, metas),
            environment=made,
            notes=notes,
            similarity=json.loads(found.read_text(encoding="utf-8")) if found.exists() else None,
            protocol=values,
        )
    missing = sum(node.key not in done for node in plan.runs)
    return Outcome(rows, gains, arg, failures, missing, folder, notes, took, values, made)


def _planned(plan: Plan) -> dict[tuple[str, str], tuple[int, int]]:
    """How many tasks a cell of a setting and variant should hold, and how many runs a task."""
    sizes = {}
    for part in {id(cell.part): cell.part for cell in plan.cells}.values():
        study = plan.studies[part.variant]
        sizes[part.setting, part.variant] = (len(part.target), len(study.samples) * len(study.meta_seeds))
    return sizes
