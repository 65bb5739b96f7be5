"""A study folder as if its runs were computed."""

from __future__ import annotations

import yaml

from softstart.study import parse_study
from softstart.study.plan.inputs import Inputs, Part, TaskFacts
from softstart.study.plan.plan import make_plan
from softstart.study.results.folder import STUDY_FILE
from softstart.study.results.stores import open_store
from softstart.training.evaluation import Assessment

SCORES = {"pt": 0.4, "maml": 0.5, "reptile": 0.6}
STUDY = {
    "name": "unit",
    "settings": [
        {"name": "wide", "source": ["s"], "target": ["t1", "t2", "t3"]},
        {"name": "narrow", "source": ["s"], "target": ["t4"]},
    ],
    "samples": [13, 21],
    "learning_rates": [0.5],
    "methods": {name: {} for name in SCORES},
}


def folder_of(path, left_out, **changes):
    """A study folder as if all runs but those left out were computed."""
    study = parse_study(yaml.safe_dump({**STUDY, **changes}), "study.yaml")
    tasks = {name: TaskFacts(name, "ACC", 16, 8, 50) for name in ("s", "t1", "t2", "t3", "t4")}
    parts = [
        Part("main", each.name, ("s",), tuple(each.target), tasks, ("s",)) for each in study.every_setting
    ]
    inputs = Inputs("b", 8, tuple(parts))
    plan = make_plan(study, inputs)
    runs = {
        run.key: {
            "key": run.key, "method": run.method.name, "task": run.task, "sample": run.sample, "lr": run.lr,
            "seed": run.seed, "start": run.start, "dev": 0.5, "best_step": 50, "steps": 3000,
            "status": "done", "seconds": 1.0, "prompt": None, "curve": [[0, 0.2, 1.0], [50, 0.5, 0.5]],
            "environment": "{}",
        }
        for run in plan.runs
        if not left_out(run)
    }  # fmt: skip
    with open_store(path) as store:
        store.set_inputs(inputs.to_json())
        tests = {(key, 50): Assessment(SCORES.get(row["method"], 0.5), {}) for key, row in runs.items()}
        store.add(runs=list(runs.values()), tests=tests)
    (path / STUDY_FILE).write_text(yaml.safe_dump(study.model_dump(mode="json")))
    return path
