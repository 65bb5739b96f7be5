"""An optimizer from outside of the package: the tutorial's Lion, named by its import path or registered."""

from __future__ import annotations

import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
import yaml

from helpers.doc_blocks import file_of
from helpers.paths import ROOT
from helpers.toy_study import STUDY, command, make_world, toy
from softstart.errors import SoftstartError
from softstart.study import run_study
from softstart.study.declare.study_file import variants_of
from softstart.study.plan.departures import protocol
from softstart.training.optimizers import OPTIMIZERS, AdamW, Optimizer, StackedOptimizer

PAGE = ROOT / "docs" / "tutorials" / "add-an-optimizer.md"
LION = {"name": "lion.Lion", "weight_decay": 0.0}
METHODS = {"pt": {}, "maml": {"inner_lr": 0.1}}
STEPS = {"steps": 4, "eval_every": 2}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A module that is not in the package, as a user's own on PYTHONPATH."""
    (tmp_path / "lion.py").write_text(file_of(PAGE, "lion.py"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("lion", None)


def test_a_study_trains_by_it_to_the_report_with_its_own_settings(outside, tmp_path):
    world = make_world(tmp_path)
    runs = {}
    optimizers = {"lion": LION, "narrow": {**LION, "betas": [0.5, 0.6]}, "adamw": {"name": "adamw"}}
    for name, optimizer in optimizers.items():
        study = toy(
            world, methods=METHODS, samples=[13], learning_rates=[0.2],
            adaptation={**STEPS, "optimizer": optimizer},
            meta={"steps": 4, "lr": 0.3, "checkpoint_every": 2, "optimizer": optimizer},
        )  # fmt: skip
        outcome = run_study(study, tmp_path / name, device="cpu")
        assert (outcome.failures, outcome.missing) == ([], 0)
        assert (tmp_path / name / "report.html").exists()
        runs[name] = set(pd.read_csv(tmp_path / name / "results.csv")["run"])
        if name == "lion":
            assert study.adaptation.optimizer.betas == (0.9, 0.99)  # Lion's own, not AdamW's
            kept = yaml.safe_load((tmp_path / name / "study.yaml").read_text())["adaptation"]["optimizer"]
            assert kept == {**LION, "max_grad_norm": None, "betas": [0.9, 0.99]}
            (shown,) = (v.here for v in protocol(study) if v.what == "optimizer of adaptation")
            assert shown == "lion.Lion, decay 0, betas (0.9, 0.99)"
    assert not runs["lion"] & runs["narrow"]
    assert not runs["lion"] & runs["adamw"]


@pytest.mark.slow
def test_worker_processes_and_a_later_report_find_it(outside, tmp_path):
    world, out = make_world(tmp_path), tmp_path / "out"
    changed = {**STUDY, "methods": METHODS, "adaptation": {**STEPS, "optimizer": LION}}
    (world / "study.yaml").write_text(yaml.safe_dump(changed))
    environment = {**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{tmp_path}"}
    run = list(map(str, command(world, out, "--workers", "2", where=())))
    done = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    again = subprocess.run([run[0], "report", str(out)], capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stderr
    alone = subprocess.run([run[0], "report", str(out)], capture_output=True, text=True, cwd="/")
    assert alone.returncode == 1
    assert "adaptation.optimizer: cannot import the optimizer 'lion.Lion'" in alone.stderr


def test_a_variant_of_another_optimizer_takes_over_what_they_share_and_no_more(outside, tmp_path):
    base = {"name": "adamw", "weight_decay": 0.25, "betas": [0.5, 0.6]}
    study = toy(
        tmp_path, adaptation={**STEPS, "optimizer": base},
        variants={"lion": {"adaptation.optimizer.name": "lion.Lion"}},
    )  # fmt: skip
    variants = variants_of(study)
    assert variants["main"].adaptation.optimizer == AdamW(weight_decay=0.25, betas=(0.5, 0.6))
    assert variants["lion"].adaptation.optimizer == Optimizer.declared({**LION, "weight_decay": 0.25})


def test_it_can_be_registered_under_a_name(outside, monkeypatch):
    monkeypatch.setattr(OPTIMIZERS, "_entries", dict(OPTIMIZERS))
    made = OPTIMIZERS.find("lion.Lion")
    assert made().name == "lion.Lion"
    OPTIMIZERS.add("lion", made)
    assert made().name == "lion"
    prompts = torch.zeros(2, 1, 3)
    rule = Optimizer.declared({"name": "lion", "weight_decay": 0.0})
    StackedOptimizer(prompts, torch.tensor([0.5, 0.1]), rule).step(prompts, torch.ones(2, 1, 3))
    assert prompts[:, 0, 0].tolist() == pytest.approx([-0.5, -0.1])


def test_mistakes_are_one_line(outside, tmp_path):
    for optimizer, message in (
        (
            {**LION, "beta": 1},
            r"adaptation\.optimizer: 'beta' is not a field of lion\.Lion\. Known: betas",
        ),
        ({"name": "lion.dataclass"}, r"'lion\.dataclass' is not an optimizer"),
        ({"name": "lion"}, r"unknown optimizer 'lion'\. Use one of adafactor, adamw, sgd\."),
    ):
        with pytest.raises(SoftstartError, match=message) as caught:
            toy(tmp_path, adaptation={**STEPS, "optimizer": optimizer})
        assert "\n" not in str(caught.value)
