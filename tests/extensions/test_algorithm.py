"""An algorithm from outside of the package: the tutorial's Sign-MAML, by its import path or registered."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from helpers.doc_blocks import file_of
from helpers.models import random_t5, toy_task
from helpers.paths import ROOT
from helpers.toy_study import STUDY, TASKS, command, contents, make_world, toy
from softstart.algorithms import ALGORITHMS
from softstart.errors import SoftstartError
from softstart.prompt import SoftPrompt
from softstart.study import run_study
from softstart.study.plan.plan import make_plan
from softstart.study.run.resources import Resources
from softstart.training.configs import MetaConfig
from softstart.training.methods import resolve_method
from softstart.yourtasks.learn import learn_start, outer_loop

PAGE = ROOT / "docs" / "tutorials" / "add-an-algorithm.md"
SIGN = {"algorithm": "sign_maml.SignMAML", "inner_lr": 0.2}
METHODS = {"pt": {}, "fomaml": {"inner_lr": 0.1}, "sign": SIGN, "sign5": {**SIGN, "inner_steps": 5}}

BARE = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Bare:
    data = "episodes"
    inner_steps = 3
    support_size = 2
    query_size = 2

    def meta_gradient(self, loss, theta, episodes):
        value, gradient = loss.gradient(theta.expand(episodes.tasks, *theta.shape), episodes.query)
        return gradient.mean(0), {"query": float(value.mean())}


@dataclass(frozen=True)
class Middle:
    query_size: int = 4
    inner_steps = support_size = 0
    data = "tasks"

    def learn(self, backbone, tasks, start, config, *, samples=None, checkpoint=None, progress=None):
        from softstart.training.meta_training import MetaTrained

        return MetaTrained(start + 1, [{"step": 0, "query": 0.5}], further={"sources": start[None]})

    def nearest(self, backbone, library, cells, config):
        from softstart.training.objective import Work
        from softstart.training.spot import Near

        start, alike = library["sources"][0] - 1, library["sources"].new_ones(1)
        return [Near(start, alike, Work(7, 8.0)) for _ in cells]
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """Modules that are not in the package, as a user's own on PYTHONPATH."""
    (tmp_path / "sign_maml.py").write_text(file_of(PAGE, "sign_maml.py"))
    (tmp_path / "bare.py").write_text(BARE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("sign_maml", "bare"):
        sys.modules.pop(name, None)


def test_a_study_runs_it_to_the_report_under_its_label_and_color(outside, tmp_path):
    world = make_world(tmp_path)
    study = toy(world, methods=METHODS, samples=[13], learning_rates=[0.2])
    outcome = run_study(study, tmp_path / "out", device="cpu")
    assert (outcome.failures, outcome.missing) == ([], 0)
    assert set(outcome.rows["method"]) == set(METHODS)
    assert (outcome.appearance["sign"].label, outcome.appearance["sign"].color) == ("Sign-MAML", "#7a5195")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Sign-MAML" in page
    assert "#7a5195" in page
    # FoMAML, Sign-MAML and Sign-MAML with more inner steps each learned a start of their own.
    keys = [json.loads(row)["key"] for row in contents(tmp_path / "out")["meta_trainings"]]
    starts = [SoftPrompt.load(tmp_path / "out" / "prompts" / f"{key}.safetensors") for key in keys]
    assert len({prompt.tensor.numpy().tobytes() for prompt in starts}) == 3


@pytest.mark.slow
def test_worker_processes_and_a_later_report_find_it(outside, tmp_path):
    world, out = make_world(tmp_path), tmp_path / "out"
    changed = {**STUDY, "methods": {"pt": {}, "sign": SIGN}}
    (world / "study.yaml").write_text(yaml.safe_dump(changed))
    environment = {**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{tmp_path}"}
    run = list(map(str, command(world, out, "--workers", "2", where=())))
    done = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    again = subprocess.run([run[0], "report", str(out)], capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stderr
    alone = subprocess.run([run[0], "report", str(out)], capture_output=True, text=True, cwd="/")
    assert alone.returncode == 1
    assert re.search(r"methods\.sign: cannot import the method 'sign_maml\.SignMAML'", alone.stderr)


def test_budgets_and_plans_price_it_by_what_it_declares(outside, tmp_path):
    world = make_world(tmp_path)
    methods = {"fomaml": {"support_size": 4, "query_size": 4, "inner_steps": 2}, "sign": SIGN}
    study = toy(world, methods=methods, meta={"gradients": 480, "meta_batch": 2})
    plan = make_plan(study, Resources({"main": study}).inputs())
    assert {node.method.name: node.method.meta.steps for node in plan.metas} == {"fomaml": 20, "sign": 20}
    assert {node.cost for node in plan.metas} == {480.0}


def test_one_that_declares_nothing_but_its_steps_works(outside, tmp_path):
    world = make_world(tmp_path)
    study = toy(world, methods={"pt": {}, "bare.Bare": {}}, samples=[13], learning_rates=[0.2])
    outcome = run_study(study, tmp_path / "out", device="cpu")
    assert (outcome.failures, outcome.missing) == ([], 0)
    assert outcome.appearance["bare.Bare"].label == "bare.Bare"
    node = resolve_method("bare.Bare", {}, MetaConfig(), "study")
    assert (node.label, node.color) == ("bare.Bare", None)


def test_one_that_learns_from_whole_tasks_chooses_the_start_of_every_run(outside, tmp_path):
    world = make_world(tmp_path)
    study = toy(
        world, methods={"pt": {}, "middle": {"algorithm": "bare.Middle"}}, samples=[13], learning_rates=[0.2],
        adaptation={"steps": 1, "eval_every": 1, "optimizer": {"name": "sgd", "weight_decay": 0.0}},
    )  # fmt: skip
    outcome = run_study(study, tmp_path / "out", device="cpu")
    assert (outcome.failures, outcome.missing) == ([], 0)
    assert set(outcome.rows["method"]) == {"pt", "middle"}


def test_a_registered_one_is_a_method_by_name(outside, tmp_path, monkeypatch):
    from sign_maml import SignMAML

    monkeypatch.setattr(ALGORITHMS, "_entries", dict(ALGORITHMS))
    ALGORITHMS.add("signmaml", SignMAML)
    algorithm, config = outer_loop("signmaml", steps=2, overrides=["inner_lr=0.5"])
    assert algorithm == SignMAML(inner_lr=0.5)
    prompt = learn_start(random_t5(), [toy_task(name) for name in TASKS[:2]], algorithm, config, length=3)
    assert prompt.tensor.shape == (3, 16)


def test_workers_find_what_a_program_registered(outside, tmp_path, monkeypatch):
    from sign_maml import SignMAML

    monkeypatch.setattr(ALGORITHMS, "_entries", dict(ALGORITHMS))
    ALGORITHMS.add("signmaml", SignMAML)
    study = toy(make_world(tmp_path), methods={"pt": {}, "signmaml": {}}, samples=[13], learning_rates=[0.2])
    outcome = run_study(study, tmp_path / "out", device="cpu", workers=2)
    assert (outcome.failures, outcome.missing) == ([], 0)
    assert outcome.appearance["signmaml"].label == "Sign-MAML"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"algorithm": "sign_maml.dataclass"}, r"methods\.sign: 'sign_maml\.dataclass' is not a method"),
        ({"algorithm": "sign_maml.SignSGD"}, "cannot import the method 'sign_maml.SignSGD'"),
        ({**SIGN, "inner_rate": 1}, r"'inner_rate' is not a field of sign_maml\.SignMAML\. Known: "),
        ({**SIGN, "inner_lr": "fast"}, r"methods\.sign: inner_lr: Input should be a valid number"),
    ],
)
def test_mistakes_are_one_line(outside, tmp_path, method, message):
    with pytest.raises(SoftstartError, match=message) as caught:
        toy(tmp_path, methods={"sign": method})
    assert "\n" not in str(caught.value)
