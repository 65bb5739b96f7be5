"""A loss from outside of the package: one class, named by its import path, is what a study trains."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from helpers import margin
from helpers.rows import STUDY
from helpers.toy_study import command, make_world, toy
from softstart.errors import SoftstartError
from softstart.study import parse_study, run_study
from softstart.study.plan.departures import protocol
from softstart.training.losses import LOSSES, RowLoss

MARGIN = {"name": "outside_loss.Margin", "margin": 3.0}
METHODS = {"pt": {}, "ft": {}, "maml": {"inner_lr": 0.1}}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A module that is not in the package, as a user's own on PYTHONPATH."""
    (tmp_path / "outside_loss.py").write_text(inspect.getsource(margin))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("outside_loss", None)


def declared(world, loss):
    loops = {"adaptation": {"steps": 8, "eval_every": 4}, "finetuning": {"steps": 8, "eval_every": 4}}
    loops["meta"] = {"steps": 6, "lr": 0.3, "checkpoint_every": 2}
    changes = {name: values | {"loss": loss} for name, values in loops.items()} if loss else loops
    return toy(world, methods=METHODS, samples=[13], learning_rates=[0.2], **changes)


def test_a_study_trains_by_it_to_the_report(outside, tmp_path):
    world = make_world(tmp_path)
    means, runs = {}, {}
    for name, loss in (("margin", MARGIN), ("tokens", None)):
        outcome = run_study(declared(world, loss), tmp_path / name, device="cpu")
        assert (outcome.failures, outcome.missing) == ([], 0)
        assert (tmp_path / name / "report.html").exists()
        means[name] = pd.read_csv(tmp_path / name / "curves.csv").groupby("method")["loss"].mean()
        runs[name] = set(pd.read_csv(tmp_path / name / "results.csv")["run"])
    assert not runs["margin"] & runs["tokens"]
    for method in METHODS:
        assert abs(means["margin"][method] / means["tokens"][method] - 1) > 0.1
    kept = yaml.safe_load((tmp_path / "margin" / "study.yaml").read_text())
    assert kept["adaptation"]["loss"] == {**MARGIN, "words": [[3], [4]]}
    shown = [value.here for value in protocol(declared(world, MARGIN)) if "loss" in value.what]
    assert shown == ["outside_loss.Margin, words ((3,), (4,)), margin 3"] * len(shown)
    assert len(shown) == 2  # adaptation with fine-tuning, meta-training


@pytest.mark.slow
def test_worker_processes_find_it(outside, tmp_path):
    world, out = make_world(tmp_path), tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{tmp_path}"}
    sets = [
        "adaptation.loss.name=outside_loss.Margin",
        "meta.loss={name: outside_loss.Margin}",
        "methods={pt: {}, maml: {}}",
    ]
    more = ["--workers", "2", *(part for value in sets for part in ("--set", value))]
    run = list(map(str, command(world, out, *more, where=())))
    done = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert (out / "report.html").exists()


def test_it_can_be_registered_under_a_name(outside, monkeypatch):
    monkeypatch.setattr(LOSSES, "_entries", dict(LOSSES))
    LOSSES.add("margin", LOSSES.find("outside_loss.Margin"))
    made = RowLoss.declared({"name": "margin", "margin": 2.0})
    assert (made.name, made.margin) == ("margin", 2.0)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"name": "token_meen"}, r"adaptation.loss: unknown loss 'token_meen'\. Did you mean token_mean\?"),
        ({"name": "outside_loss.RowLoss"}, r"'outside_loss\.RowLoss' is not a loss"),
        (
            {**MARGIN, "marjin": 1},
            r"'marjin' is not a field of outside_loss\.Margin\. Known: margin, w",
        ),
        ({**MARGIN, "margin": "wide"}, "adaptation.loss: margin: Input should be a valid number"),
    ],
)
def test_mistakes_are_one_line(outside, loss, message):
    with pytest.raises(SoftstartError, match=message) as caught:
        parse_study(yaml.safe_dump({**STUDY, "adaptation": {"loss": loss}}), "study.yaml")
    assert "\n" not in str(caught.value)
