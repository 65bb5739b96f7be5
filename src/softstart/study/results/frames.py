"""From the store to tables: one row per result, per run, and per point of a curve. Scores are fractions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from softstart.gym.metrics import metric_name
from softstart.report.words import listed
from softstart.study.declare.spec import Study
from softstart.study.declare.task_lists import test_rows
from softstart.study.plan.choice import budgets_of, choose
from softstart.study.plan.plan import Cell, Plan, RunNode
from softstart.study.results.store import Store
from softstart.training.evaluation import SCORINGS
from softstart.training.methods import Method

COMPANIONS = {
    "gold-F1": "gold_f1",
    "outside": "outside",
    "ECE": "ece",
    "accuracy": "accuracy",
    "accuracy at 50 %": "accuracy_at_half",
}
"""What is reported next to a test score (``training.evaluation.Assessment``), and its column."""
RESULT_COLUMNS = [
    "setting", "method", "backbone", "prompt_length", "variant", "task", "metric", "shots", "sample", "seed",
    "lr", "budget", "dev", "test", *COMPANIONS.values(), "best_step", "steps", "status", "seconds", "run",
    "chance", "majority", "protocol", "test_rows",
]  # fmt: skip
WORK = ("tokens", "flops", "computed_tokens", "computed_flops")
MEASURED = (*WORK, "memory", "trained", "stored")
ENVIRONMENT = ("device", "threads", "softstart", "torch", "transformers", "python", "git")
"""What a run was made with; ``MEASURED`` is what it took: tokens and FLOPs of training (as if rows were read
whole, and computed without what was read once for many rows), peak bytes, trained parameters and stored
bytes."""
RATE = "flops_per_second"
"""FLOPs of training over all seconds of a run, those of its dev evaluations included."""
RUN_COLUMNS = [*RESULT_COLUMNS, "selected", *MEASURED, RATE, *ENVIRONMENT]
_NAMES = [*RESULT_COLUMNS[: RESULT_COLUMNS.index("lr") + 1], "run"]


def results(plan: Plan, store: Store) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The tables of a study, as far as it is computed; ``dev`` and ``test`` are fractions.

    Returns:
        (results: for each cell and budget of steps the run that dev scores selected, columns
        ``RESULT_COLUMNS``; runs: every run of every cell at its largest budget, columns ``RUN_COLUMNS``;
        curves: dev score and training loss of every run by step). Without declared budgets there is one: all
        steps.
    """
    done, tests = store.runs(), store.tests()
    chosen: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for cell in plan.cells:
        study = plan.studies[cell.part.variant]
        budgets = budgets_of(study, cell.method)
        last = None
        for budget in budgets:
            choice = last = choose(cell, study, done, budget)
            if choice:
                at = {"budget": budget, "dev": choice.dev, "best_step": choice.best_step}
                row = _row(cell, choice.run, study, done[choice.run.key], at)
                chosen.append(row | _tested(tests, choice.run.key, choice.tested_step))
        for run in (run for run in cell.runs if run.key in done):
            selected = last is not None and last.run.key == run.key
            row = _row(cell, run, study, done[run.key], {"budget": budgets[-1], "selected": selected})
            tested = _tested(tests, run.key, last.tested_step) if last and selected else {}
            rows.append(row | tested | _made(done[run.key]))
            base = {name: row[name] for name in (*_NAMES, "selected")}
            curves += [
                {**base, "step": step, "dev": dev, "loss": loss} for step, dev, loss in done[run.key]["curve"]
            ]
    return (
        _table(chosen, RESULT_COLUMNS),
        _table(rows, RUN_COLUMNS),
        pd.DataFrame(curves, columns=[*_NAMES, "selected", "step", "dev", "loss"]),
    )


def _row(
    cell: Cell, run: RunNode, study: Study, done: Mapping[str, Any], at: Mapping[str, Any]
) -> dict[str, Any]:
    facts = cell.part.tasks[cell.task]
    return {
        "setting": cell.part.setting,
        "method": cell.method.name,
        "backbone": study.backbone,
        "prompt_length": study.prompt.length,
        "variant": cell.part.variant,
        "task": cell.task,
        "metric": metric_name(facts.metric, study.evaluation.f1_labels),
        "shots": facts.shots,
        "chance": facts.chance,
        "majority": facts.majority,
        "sample": cell.sample,
        "seed": cell.seed,
        "lr": run.lr,
        "run": run.key,
        "protocol": reading(study, cell.task, facts.test, cell.method),
        "test_rows": facts.test or test_rows(study, cell.task),
        **{name: done[name] for name in ("dev", "best_step", "steps", "status", "seconds")},
        **at,
    }


def reading(study: Study, task: str, rows: int = 0, method: Method | None = None) -> str:
    """What decides the meaning of a test score, part by part; different readings must not be compared.

    The metric (with its labels) and k have their own columns.

    Args:
        study: the variant.
        task: the target task.
        rows: of its test set, where known.
        method: what is scored, which may predict in another way than the study.
    """
    evaluation, text = study.evaluation, study.text
    if method and method.unpacked:
        evaluation = method.unpacked.predicts_with(evaluation)
    decoding, most = evaluation.decoding, "at most " if evaluation.bounded else ""
    start = " or the start" if study.adaptation.select == "best" and study.adaptation.eval_start else ""
    return "; ".join(
        (
            SCORINGS.find(evaluation.scoring).label,
            f"{decoding.num_beams} beam{'' if decoding.num_beams == 1 else 's'}",
            f"{most}{decoding.max_new_tokens} new tokens",
            f"repetition penalty {decoding.repetition_penalty:g}",
            f"length penalty {decoding.length_penalty:g}",
            f"{study.adaptation.select} prompt{start}",
            f"text {text.template!r} of {text.max_input_tokens} to {text.max_output_tokens} tokens",
            f"{rows or test_rows(study, task) or 'all'} test rows",
        )
    )


def gaps(
    plan: Plan, done: Mapping[str, Any], metas: Mapping[str, Any], failures: Sequence[str] = ()
) -> list[str]:
    """What is missing of a study, and what failed: one sentence each; empty for a finished study.

    Args:
        plan: all of it.
        done: finished runs by key.
        metas: finished meta-trainings by key.
        failures: what failed, by name and reason.
    """
    runs = [done.get(run.key) for run in plan.runs]
    missing, left = runs.count(None), sum(node.key not in metas for node in plan.metas)
    diverged = sum(run is not None and run["status"] == "diverged" for run in runs)
    sentences = []
    if missing:
        starts = f" and {left:,} of {len(plan.metas):,} meta-trainings" if left else ""
        sentences.append(f"The study is incomplete: {missing:,} of {len(runs):,} runs{starts} are missing.")
    if diverged:
        sentences.append(f"{diverged:,} of {len(runs):,} runs diverged; they count up to where they did.")
    if failures:
        sentences.append(f"{len(failures):,} failed, among them {failures[0]}.")
    return sentences


def _made(done: Mapping[str, Any]) -> dict[str, Any]:
    made = json.loads(done["environment"] or "{}")
    known = done.get("flops") is not None and done["seconds"]
    return {
        **{name: done.get(name) for name in MEASURED},
        RATE: done["flops"] / done["seconds"] if known else None,
        **{name: made.get(name) for name in ENVIRONMENT},
    }


def _tested(tests: Mapping[tuple[str, int], Mapping[str, Any]], run: str, step: int) -> dict[str, Any]:
    test = tests.get((run, step))
    if test is None:
        return {}
    companions = json.loads(test["companions"] or "{}")
    return {"test": test["test"], **{column: companions.get(of) for of, column in COMPANIONS.items()}}


def _table(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=columns)
    measured = ["dev", "test", *COMPANIONS.values()]
    table[measured] = table[measured].astype(float)
    return table


def costs(plan: Plan, done: Mapping[str, Any], metas: Mapping[str, Any]) -> pd.DataFrame:
    """The costs of each method: seconds of meta-training and of adaptation, runs and steps.

    Where they were recorded, tokens and FLOPs are the sums over both, and ``memory`` (bytes) is the largest.
    """
    table = []
    for name in dict.fromkeys(cell.method.name for cell in plan.cells):
        meta = [metas[n.key] for n in plan.metas if n.method.name == name and n.key in metas]
        runs = [done[r.key] for r in plan.runs if r.method.name == name and r.key in done]
        table.append(
            {
                "method": name,
                "meta_training_seconds": sum(row["seconds"] for row in meta),
                "adaptation_seconds": sum(row["seconds"] for row in runs),
                "runs": len(runs),
                "steps": sum(row["steps"] or 0 for row in runs),
                **{of: _over(fold, of, [*meta, *runs]) for of, fold in _MEASURED.items()},
            }
        )
    return pd.DataFrame(table).dropna(axis="columns", how="all")


def footing(plan: Plan, done: Mapping[str, Any], metas: Mapping[str, Any]) -> pd.DataFrame:
    """On what each method stands: what it may use and trains, and what that takes.

    Args:
        plan: all of a study.
        done: finished runs by key.
        metas: finished meta-trainings by key.

    Returns:
        One row per variant and method: ``variant``, ``method``, ``uses``, ``trains``, and means over its
        runs: ``trained`` (parameters), ``stored`` (bytes), ``run_flops``; ``start_flops`` over its
        meta-trainings, 0 without any. NaN where something was not recorded.
    """
    table = []
    for variant, method in {(c.part.variant, c.method.name): c.method for c in plan.cells}.items():
        cells = [c for c in plan.cells if (c.part.variant, c.method.name) == variant]
        nodes = {run.key: run for cell in cells for run in cell.runs}
        runs = [done[key] for key in nodes if key in done]
        learned = dict.fromkeys(run.start for run in nodes.values() if run.start)
        starts = [metas[key] for key in learned if key in metas]
        table.append(
            {
                "variant": variant[0],
                "method": method.name,
                "uses": listed(method.uses) or "nothing",
                "trains": method.trains,
                **{name: _over(_average, name, runs) for name in ("trained", "stored")},
                "start_flops": _over(_average, "flops", starts) if method.algorithm else 0.0,
                "run_flops": _over(_average, "flops", runs),
            }
        )
    return pd.DataFrame(table)


def _average(values: list[float]) -> float:
    return sum(values) / len(values)


_MEASURED: dict[str, Callable[[list[float]], float]] = {
    name: max if name == "memory" else sum for name in (*WORK, "memory")
}
"""How the values of several runs become one."""


def _over(fold: Callable[[list[float]], float], name: str, rows: list[dict[str, Any]]) -> float:
    """A sum or maximum; NaN unless every row has the value."""
    values = [row.get(name) for row in rows]
    known = [float(value) for value in values if value is not None]
    return fold(known) if known and len(known) == len(values) else float("nan")


def meta_curves(plan: Plan, metas: Mapping[str, Any]) -> pd.DataFrame:
    """The loss of every meta-training by outer step: the query loss, or the last inner one (Reptile)."""
    points = [
        {
            "method": node.method.name,
            "seed": node.seed,
            "step": point["step"],
            "loss": point.get("query", point.get("adapted")),
        }
        for node in plan.metas
        if node.key in metas
        for point in metas[node.key]["curve"]
    ]
    return pd.DataFrame(points, columns=["method", "seed", "step", "loss"])


def environments(recorded: Iterable[str]) -> dict[str, str]:
    """What the numbers were made with; several values if runs were computed in several places."""
    merged: dict[str, list[str]] = {}
    for text in sorted(set(recorded)):
        for key, value in json.loads(text).items():
            if value not in merged.setdefault(key, []):
                merged[key].append(value)
    return {key: ", ".join(values) for key, values in merged.items()}
