"""Studies as they are declared, with facts to plan them by."""

from __future__ import annotations

import yaml

from softstart.study import parse_study
from softstart.study.declare.spec import resolve_methods
from softstart.study.plan.inputs import Inputs, Part, TaskFacts

SIX = {name: {} for name in ("pt", "ft", "multitask", "maml", "fomaml", "reptile")}

SETTING = {"name": "x", "source": ["s1", "s2"], "target": ["t1", "t2"]}


def study(**changes):
    declared = {"name": "unit", "setting": SETTING, "methods": SIX, **changes}
    return parse_study(yaml.safe_dump(declared, sort_keys=False), "study.yaml")


def method(of, name):
    return next(m for m in resolve_methods(of) if m.name == name)


def facts(names, rows=0, hvp=2.1):
    tasks = {name: TaskFacts(name, "ACC", 16) for name in names}
    return Inputs("b", 8, (Part("main", "x", ("s1", "s2"), ("t1", "t2"), tasks, ("s1", "s2"), rows, hvp),))
