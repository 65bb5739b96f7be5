"""Run a study: compute what is missing, on this machine or on others, then write its tables and report."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import yaml

from softstart.errors import SoftstartError
from softstart.progress import Display, Quiet
from softstart.storage.files import atomic
from softstart.study.declare.spec import MAIN, Study, resolved
from softstart.study.declare.study_file import variants_of
from softstart.study.declare.task_lists import resolve_setting
from softstart.study.plan.inputs import Inputs
from softstart.study.plan.plan import make_plan
from softstart.study.results.folder import CHECKPOINTS, STUDY_FILE, check_study_folder
from softstart.study.results.outcome import Outcome, appearance_of, write_outcome
from softstart.study.results.store import Store
from softstart.study.results.stores import open_store
from softstart.study.run.executors import EXECUTORS, InProcess, Order, Setup
from softstart.study.run.pack_sizes import fitting_packs
from softstart.study.run.processes import LocalProcesses
from softstart.study.run.ray_cluster import RayCluster
from softstart.study.run.resources import Resources
from softstart.study.run.schedule import StudyRun
from softstart.study.run.status import Recorded
from softstart.study.run.trackers import open_tracker
from softstart.study.run.work_graph import damaged_prompts

EXECUTORS.add("here", InProcess)
EXECUTORS.add("processes", LocalProcesses)
EXECUTORS.add("ray", RayCluster)


def run_study(
    study: Study,
    folder: Path,
    *,
    display: Display | None = None,
    device: str | None = None,
    workers: int = 1,
    executor: str | None = None,
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
        workers: 1 computes in this process, with the threads it has; more are processes of one thread each.
            How many there are changes no result, but one thread and several may differ in last bits.
        executor: where the work is done, one of ``EXECUTORS`` or the import path of such a class; by default
            ``ray`` if its address is given, ``processes`` for several workers, else ``here``.
        ray: address of a Ray cluster whose workers compute in place of this machine's; ``local`` starts one.
        tracker: where to send learning curves, one of ``trackers.TRACKERS`` or an import path.
        retry_failed: compute again what diverged.
        stall: seconds without progress after which the work of a worker process is begun again.

    Raises:
        SoftstartError: bad input; failures of single nodes are in the outcome instead.
    """
    display = display or Quiet()
    check_study_folder(folder)
    where = EXECUTORS.find(_executor_name(executor, workers, ray))
    resources = Resources(variants_of(study), device)
    appearance_of(resources.studies.values())  # a bad color fails here, not in the report after the work
    for variant, each in resources.studies.items():
        for spec in each.every_setting:
            resolve_setting(each, spec, resources.gym(variant))
    with open_store(folder) as store:
        display.stage("loading the backbone")
        resources.backbone(MAIN)
        display.stage("reading tasks")
        inputs = _packed(study, resources, store, display, workers if where.local else 0)
        store.set_inputs(inputs.to_json())
        if retry_failed:
            store.forget_failures()
        with atomic(folder / STUDY_FILE) as temporary:
            temporary.write_text(yaml.safe_dump(resolved(study), sort_keys=False), encoding="utf-8")
        for problem in damaged_prompts(folder):
            display.line(f"computed again: {problem.where}: {problem.what}")
        plan = make_plan(study, inputs)
        recorded = Recorded(display, folder)
        follower = open_tracker(tracker, study.name, folder) if tracker else None
        run = StudyRun(inputs, plan, store, recorded, follower)
        workers = min(workers, len(run.units))
        if executor is None or not run.units:  # fewer units may be left than workers
            where = EXECUTORS[_executor_name(None, workers, ray if run.units else None)]
        setup = Setup(resources.studies, device, folder.resolve() / CHECKPOINTS, inputs, max(1, workers))
        doing = where.of(Order(setup, resources, folder, workers, ray, stall))
        # Free this copy: workers in other processes load their own.
        del resources
        try:
            run.execute(doing)
        finally:
            doing.close()
            recorded.close()
            if follower:
                # A tracker may fail over a network; the report is written nevertheless.
                with suppress(Exception):
                    follower.close()
        store.check_in_place()
        return write_outcome(study, plan, store, run.failures)


def _packed(study: Study, resources: Resources, store: Store, display: Display, processes: int) -> Inputs:
    """What the study depends on, and how large its packs can be: as recorded when the study began, if it is
    the same study.

    With 0 ``processes`` on this machine, nothing is measured here.
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
        display.line(f"memory is short: packs have at most {listed} runs; with fewer --workers each has more")
    return replace(inputs, fits=fits)


def _executor_name(executor: str | None, workers: int, ray: str | None) -> str:
    """The name of the executor: the given one, Ray if there is an address, else by the number of workers."""
    return executor or ("ray" if ray is not None else "processes" if workers > 1 else "here")
