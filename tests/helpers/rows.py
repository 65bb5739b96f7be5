"""A study with two sources and two targets as plain data, its plan, and rows of its database."""

from __future__ import annotations

import yaml

from softstart.study import parse_study
from softstart.study.plan.inputs import Inputs, Part, TaskFacts
from softstart.study.plan.plan import make_plan

SOURCE, TARGET = ["s1", "s2"], ["t1", "t2"]
STUDY = {
    "name": "unit",
    "setting": {"name": "x", "source": SOURCE, "target": TARGET},
    "samples": [13, 21],
    "learning_rates": [0.5, 0.2],
    "methods": {"pt": {}, "ft": {}, "maml": {"inner_steps": 3}, "long": {"algorithm": "maml", "steps": 9}},
}


def run_row(key, **changes):
    row = {"key": key, "method": "pt", "task": "t", "sample": 13, "lr": 0.5, "seed": 1, "start": None,
           "dev": 0.5, "best_step": 1, "steps": 2, "status": "done", "seconds": 1.0, "prompt": None,
           "curve": [[0, 0.1, None]], "environment": {}}  # fmt: skip
    return {**row, **changes}


DIGESTS = {name: name * 2 for name in (*SOURCE, *TARGET)}


def plan(changes=None, digests=DIGESTS, backbone="b", fits=None):
    study = parse_study(yaml.safe_dump({**STUDY, **(changes or {})}), "study.yaml")
    facts = {name: TaskFacts(digest, "ACC", 16) for name, digest in digests.items()}
    sources = tuple(digests[name] for name in SOURCE)
    part = Part("main", "x", tuple(SOURCE), tuple(TARGET), facts, sources)
    inputs = Inputs(backbone, 8, (part,), fits=fits or {})
    assert Inputs.from_json(inputs.to_json()) == inputs
    return make_plan(study, inputs)


def keys(plan):
    return {n.key for n in plan.metas}, {r.key for r in plan.runs}
