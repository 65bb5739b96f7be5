"""Studies: declare a comparison, plan it, run what is missing, report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from softstart.analysis.arg import arg_table, relative_gains
from softstart.console import Display, Quiet
from softstart.errors import SoftstartError
from softstart.files import atomic
from softstart.gym.settings import Setting, load_setting
from softstart.gym.sources import open_gym
from softstart.gym.task import Gym
from softstart.report.html import write_report
from softstart.study.plan import Inputs, Plan, make_plan
from softstart.study.prepare import prepare
from softstart.study.results import costs, environments, meta_curves, results
from softstart.study.spec import Study, load_study, parse_study, resolve_methods
from softstart.study.store import Store

BASELINE = "pt"
"""Gains are relative to plain prompt tuning."""

STUDY_FILE = "study.yaml"

__all__ = ["Outcome", "Study", "load_study", "parse_study", "report_study", "run_study"]


@dataclass(frozen=True)
class Outcome:
    """What a study came to: tables, and the nodes that failed.

    ``rows`` holds one row a selected run, ``gains`` one a method and task, ``arg`` one a method with an
    interval. ``missing`` counts runs not computed yet.
    """

    rows: pd.DataFrame
    gains: pd.DataFrame
    arg: pd.DataFrame
    failures: list[str]
    missing: int
    folder: Path


def run_study(
    study: Study, folder: Path, *, display: Display | None = None, device: str | None = None
) -> Outcome:
    """Compute what is missing of a study and write its tables and report into ``folder``.

    Args:
        study: the declared study.
        folder: the study folder; results already there are reused.
        display: shows progress.
        device: where to compute; by default the GPU where there is one.

    Raises:
        SoftstartError: bad input; failures of single nodes are in the outcome instead.
    """
    gym = open_gym(study.gym, shots=study.shots)
    setting = resolve_setting(study, gym)
    setting.check_against(gym)
    with Store(folder) as store:
        run = prepare(study, setting, gym, store, display or Quiet(), device)
        with atomic(folder / STUDY_FILE) as temporary:
            temporary.write_text(yaml.safe_dump(resolved(study), sort_keys=False), encoding="utf-8")
        run.execute()
        return _write(study, run.inputs, run.plan, store, run.failures)


def report_study(folder: Path) -> Outcome:
    """Write the tables and the report of a study folder from what is computed; needs no backbone, no gym.

    Raises:
        SoftstartError: not a study folder.
    """
    study = load_study(folder / STUDY_FILE)
    with Store(folder) as store:
        inputs = Inputs.from_json(store.inputs())
        return _write(study, inputs, make_plan(study, inputs), store, [])


def resolve_setting(study: Study, gym: Gym) -> Setting:
    """The setting a study names or spells out.

    Raises:
        SoftstartError: an unknown name, overlapping tasks, or nothing to learn a start from.
    """
    if isinstance(study.setting, str):
        return load_setting(study.setting, gym)
    own = study.setting
    setting = Setting(own.name, tuple(own.source), tuple(own.target))
    learners = [method.name for method in resolve_methods(study) if method.algorithm]
    if learners and not setting.source:
        raise SoftstartError(
            f"method '{learners[0]}' has no source task to learn from",
            where=f"setting '{setting.name}'",
            mend="Name some under 'source'.",
        )
    return setting


def resolved(study: Study) -> Mapping[str, Any]:
    """The study with every default filled in, as plain data."""
    data: Mapping[str, Any] = study.model_dump(mode="json")
    return data


def _write(study: Study, inputs: Inputs, plan: Plan, store: Store, failures: list[str]) -> Outcome:
    done, metas, folder = store.runs(), store.metas(), store.folder
    rows, runs, curves = results(study, inputs, plan, done)
    for name, table in (("results", rows), ("runs", runs), ("curves", curves)):
        with atomic(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
    gains, arg = pd.DataFrame(), pd.DataFrame()
    if BASELINE in set(rows["method"]):
        planned = (len(inputs.target), len(study.samples) * len(study.meta_seeds))
        gains, arg = relative_gains(rows, BASELINE), arg_table(rows, BASELINE, planned=planned)
    if len(rows):
        computed = (*done.values(), *metas.values())
        write_report(
            folder / "report.html",
            resolved(study),
            rows,
            curves,
            arg,
            gains,
            costs(study, plan, done, metas),
            baseline=BASELINE,
            meta_curves=meta_curves(plan, metas),
            environment=environments(row["environment"] for row in computed),
        )
    missing = sum(node.key not in done for node in plan.runs)
    return Outcome(rows, gains, arg, failures, missing, folder)
