"""From the store to tables: one row a result, one a run, one a point of a curve."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from softstart.study.plan import Inputs, Plan
from softstart.study.run import best_run
from softstart.study.spec import Study

RESULT_COLUMNS = [
    "setting", "method", "backbone", "prompt_length", "variant", "task", "metric", "shots", "sample", "seed",
    "lr", "dev", "test", "gold_f1", "outside", "best_step", "steps", "status", "seconds", "run",
]  # fmt: skip


def results(
    study: Study, inputs: Inputs, plan: Plan, done: dict[str, dict[str, Any]]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The tables of a study, as far as it is computed.

    Returns:
        (results: the run of each cell that dev selected, columns ``RESULT_COLUMNS``; runs: every run, with a
        column ``selected``; curves: dev score and training loss of every run by step).
    """
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for cell in plan.cells:
        best = best_run(cell, done)
        for node in cell.runs:
            if node.key not in done:
                continue
            run = done[node.key]
            base = {
                "setting": inputs.setting,
                "method": cell.method.name,
                "backbone": study.backbone,
                "prompt_length": study.prompt.length,
                "variant": "main",
                "task": cell.task,
                "metric": inputs.tasks[cell.task].metric,
                "shots": inputs.tasks[cell.task].shots,
                "sample": cell.sample,
                "seed": cell.seed,
                "lr": node.lr,
                "run": node.key,
            }
            fields = ("dev", "test", "best_step", "steps", "status", "seconds")
            selected = best is not None and best.key == node.key
            beside = json.loads(run["companions"] or "{}")
            base |= {"gold_f1": beside.get("gold-F1"), "outside": beside.get("outside")}
            rows.append({**base, **{f: run[f] for f in fields}, "selected": selected})
            curves += [
                {**base, "selected": selected, "step": step, "dev": dev, "loss": loss}
                for step, dev, loss in run["curve"]
            ]
    runs = pd.DataFrame(rows, columns=[*RESULT_COLUMNS, "selected"])
    measured = ["dev", "test", "gold_f1", "outside"]
    runs[measured] = runs[measured].astype(float)
    chosen = runs[runs["selected"].astype(bool)].drop(columns="selected").reset_index(drop=True)
    return chosen, runs, pd.DataFrame(curves)


def costs(study: Study, plan: Plan, done: Mapping[str, Any], metas: Mapping[str, Any]) -> pd.DataFrame:
    """Seconds by method: meta-training and adaptation, with the number of runs and steps behind them."""
    table = []
    for name in study.methods:
        meta = [metas[n.key]["seconds"] for n in plan.metas if n.method.name == name and n.key in metas]
        own = [done[r.key] for r in plan.runs if r.method.name == name and r.key in done]
        table.append(
            {
                "method": name,
                "meta_training_seconds": sum(meta),
                "adaptation_seconds": sum(row["seconds"] for row in own),
                "runs": len(own),
                "steps": sum(row["steps"] or 0 for row in own),
            }
        )
    return pd.DataFrame(table)


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
    """What the numbers were made with; several values where runs were made in several places."""
    merged: dict[str, list[str]] = {}
    for text in sorted(set(recorded)):
        for key, value in json.loads(text).items():
            if value not in merged.setdefault(key, []):
                merged[key].append(value)
    return {key: ", ".join(values) for key, values in merged.items()}
