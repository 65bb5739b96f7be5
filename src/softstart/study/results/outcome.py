"""The outcome of a study: its tables and its report, written from the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from softstart.analysis import (
    DEFAULT_INTERVAL,
    INTERVALS,
    arg_table,
    largest_budget,
    refuse_mixed,
    relative_gains,
    with_defaults,
)
from softstart.errors import SoftstartError
from softstart.report.html import write_report
from softstart.report.style import Appearance
from softstart.storage.csv_files import csv_text, read_csv
from softstart.storage.files import atomic
from softstart.study.declare.spec import Study, resolve_methods, resolved
from softstart.study.declare.study_file import load_study
from softstart.study.plan.departures import protocol
from softstart.study.plan.inputs import Inputs
from softstart.study.plan.plan import Plan, make_plan
from softstart.study.results.folder import REPORT, RESULTS, STUDY_FILE
from softstart.study.results.frames import costs, environments, footing, gaps, meta_curves, results
from softstart.study.results.similarity_file import read_similarity
from softstart.study.results.store import Store
from softstart.study.results.stores import open_store

BASELINE = "pt"
"""The method that gains are relative to: plain prompt tuning."""


@dataclass(frozen=True)
class Outcome:
    """The results of a study as tables, and what failed.

    ``rows`` has one row per selected run; ``gains`` one per method and task, and ``arg`` one per method with
    its interval, at the largest budget. ``missing`` counts runs that are not computed yet.
    """

    rows: pd.DataFrame
    gains: pd.DataFrame
    arg: pd.DataFrame
    failures: list[str]
    missing: int
    folder: Path
    notes: Sequence[str] = ()
    """What is missing, failed or not comparable: one sentence each."""
    costs: pd.DataFrame = field(default_factory=pd.DataFrame)
    """What each method took (``results.costs``)."""
    footing: pd.DataFrame = field(default_factory=pd.DataFrame)
    """What each method may use and what it takes (``results.footing``)."""
    protocol: Sequence[Mapping[str, str]] = ()
    """Every value of the published protocol next to the study's (``departures.protocol``)."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the numbers were made with."""
    appearance: Mapping[str, Appearance] = field(default_factory=dict)
    """Label and color of every method, for reports."""
    interval: str = DEFAULT_INTERVAL
    """How intervals were made (``softstart.analysis.INTERVALS``)."""
    similarity: Mapping[str, Any] | None = None
    """What ``softstart similarity`` measured, if it was called."""


def report_study(folder: Path, interval: str = DEFAULT_INTERVAL) -> Outcome:
    """Write the tables and the report of a study folder from its results; needs neither backbone nor gym.

    Args:
        folder: the study folder.
        interval: how intervals are made, a name in ``softstart.analysis.INTERVALS`` or an import path.

    Raises:
        SoftstartError: not a study folder, no such interval, or results that do not belong to the plan; then
            nothing is written.
    """
    INTERVALS.find(interval)
    study = load_study(folder / STUDY_FILE)
    with open_store(folder, readonly=True) as store:
        plan = make_plan(study, Inputs.from_json(store.inputs()))
        _refuse_loss(folder, plan, store)
        return write_outcome(study, plan, store, [], interval)


def _refuse_loss(folder: Path, plan: Plan, store: Store) -> None:
    """Refuse to replace the tables by ones with fewer results than they have."""
    planned, done = {run.key for run in plan.runs}, set(store.runs())
    rows, written = len(results(plan, store)[0]), pd.DataFrame({"run": []})
    with suppress(SoftstartError):
        written = read_csv(folder / RESULTS, usecols=["run"])
    lost = written[~written["run"].isin(planned & done)]
    if (len(lost) and rows < len(written)) or (done and not done & planned):
        what = f"{len(lost)} of {len(written)} results" if len(lost) else f"all {len(done)} runs"
        why = "do not belong to the study as it is planned now; it, its data or the protocol has changed"
        if len(lost) and set(lost["run"]) <= planned:
            why = "have lost their prompt files"
        raise SoftstartError(
            f"{what} in this folder {why}; nothing was written",
            where=str(folder),
            fix="Run the study again, or use the version that made it.",
        )


def study_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables ``results``, ``runs`` and ``curves`` of a study folder; nothing is written.

    Raises:
        SoftstartError: not a study folder.
    """
    study = load_study(folder / STUDY_FILE)
    with open_store(folder, readonly=True) as store:
        tables = results(make_plan(study, Inputs.from_json(store.inputs())), store)
    return dict(zip(("results", "runs", "curves"), tables, strict=True))


def write_outcome(
    study: Study, plan: Plan, store: Store, failures: list[str], interval: str = DEFAULT_INTERVAL
) -> Outcome:
    """Write the tables and the report of what is computed.

    Args:
        study: the study.
        plan: all of it.
        store: its results.
        failures: what failed in this run; empty: those that the store recorded.
        interval: see ``report_study``.
    """
    done, metas, folder = store.runs(), store.metas(), store.folder
    rows, runs, curves = results(plan, store)
    for name, table in (("results", rows), ("runs", runs), ("curves", curves)):
        with atomic(folder / f"{name}.csv") as temporary:
            temporary.write_text(csv_text(table), encoding="utf-8")
    failed = failures or [f"{row['name']}: {row['reason']}" for row in store.failures().values()]
    notes = gaps(plan, done, metas, failed)
    gains, arg = pd.DataFrame(), pd.DataFrame()
    if BASELINE in set(rows["method"]):
        top = largest_budget(with_defaults(rows))
        gains = relative_gains(top, BASELINE)
        arg = arg_table(top, BASELINE, planned=_planned(plan), interval=interval)
        try:
            refuse_mixed(top, BASELINE)
        except SoftstartError as problem:
            notes.append(f"{problem.where}: {problem.what}.")
    took, stands = costs(plan, done, metas), footing(plan, done, metas)
    values = [asdict(value) for value in protocol(study, Inputs.from_json(store.inputs()))]
    made = environments(row["environment"] for row in (*done.values(), *metas.values()))
    appearance = appearance_of(plan.studies.values())
    similarity = None
    try:
        similarity = read_similarity(folder)
    except SoftstartError as problem:
        notes.append(f"{problem}.".replace("..", "."))
    if len(rows):
        write_report(
            folder / REPORT,
            resolved(study),
            rows,
            curves,
            arg,
            gains,
            took,
            footing=stands,
            baseline=BASELINE,
            meta_curves=meta_curves(plan, metas),
            environment=made,
            notes=notes,
            similarity=similarity,
            protocol=values,
            appearance=appearance,
            interval=interval,
        )
    missing = sum(node.key not in done for node in plan.runs)
    return Outcome(
        rows,
        gains,
        arg,
        failures,
        missing,
        folder,
        notes,
        took,
        stands,
        values,
        made,
        appearance,
        interval,
        similarity,
    )


def appearance_of(studies: Iterable[Study]) -> dict[str, Appearance]:
    """Label and color of every method, as its algorithm declares them.

    Raises:
        SoftstartError: a color that is none.
    """
    methods = {method.name: method for study in studies for method in resolve_methods(study)}
    return {name: Appearance(method.label, method.color) for name, method in methods.items()}


def _planned(plan: Plan) -> dict[tuple[str, str], tuple[int, int]]:
    """How many tasks a cell of a setting and variant should hold, and how many runs a task."""
    sizes = {}
    for part in {id(cell.part): cell.part for cell in plan.cells}.values():
        study = plan.studies[part.variant]
        sizes[part.setting, part.variant] = (len(part.target), len(study.samples) * len(study.meta_seeds))
    return sizes
