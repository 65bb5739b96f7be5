"""A metric from outside of the package: one object, named by its import path, scores the tasks of a study."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch

from helpers.models import random_t5
from helpers.toy_study import command, make_world, toy
from softstart.errors import SoftstartError
from softstart.gym import load_task
from softstart.gym.metrics import METRICS, companions, score
from softstart.gym.task import Example
from softstart.prompt import SoftPrompt
from softstart.study import run_study
from softstart.yourtasks.predict import Predictor, evaluate_rows

MODULE = """
from softstart.gym.metrics import Metric


def half_for_a_label(predictions, references, labels):
    rows = list(zip(predictions, references, strict=True))
    return sum(0.5 * (text in labels) + 0.5 * (text == answers[0]) for text, answers in rows) / len(rows)


def too_short(answers):
    return "an answer needs two letters" if len(answers[0]) < 2 else None


half = Metric(half_for_a_label, "half a point for any label", needs_labels=True, problem=too_short, fewest=2)
nothing = 1
"""
HALF = "outside_metric.half"
METHODS = {"pt": {}, "maml": {"inner_lr": 0.1}}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A module that is not in the package, as a user's own on PYTHONPATH."""
    (tmp_path / "outside_metric.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("outside_metric", None)


def scored_by(world, metric):
    for file in world.glob("gym/*/task.json"):
        file.write_text(json.dumps({"kind": "classification", "metric": metric, "category": "toy"}))


def results(folder):
    table = pd.read_csv(folder / "results.csv")
    return table.sort_values(["method", "task", "sample"]).reset_index(drop=True)


def test_a_study_is_scored_by_it_to_the_report(outside, tmp_path):
    world = make_world(tmp_path)
    run_study(toy(world, methods=METHODS), tmp_path / "acc", device="cpu")
    scored_by(world, HALF)
    outcome = run_study(toy(world, methods=METHODS), tmp_path / "half", device="cpu")
    assert (outcome.failures, outcome.missing) == ([], 0)
    acc, half = results(tmp_path / "acc"), results(tmp_path / "half")
    assert set(half["metric"]) == {HALF}
    # Ranked answers are label words: half a point for each, and half for the right one. So the same steps
    # are selected, and every score follows from the accuracy.
    assert len(half) == 8
    assert half["test"].tolist() == pytest.approx(((1 + acc["test"]) / 2).tolist(), abs=1e-12)
    assert half["dev"].tolist() == pytest.approx(((1 + acc["dev"]) / 2).tolist(), abs=1e-12)
    assert not set(half["run"]) & set(acc["run"])
    report = (tmp_path / "half" / "report.html").read_text()
    for mean in half.groupby(["method", "task"])["test"].mean():
        assert f"{100 * mean:.1f}" in report


def test_the_command_line_finds_it_on_pythonpath(outside, tmp_path):
    world = make_world(tmp_path)
    scored_by(world, HALF)
    small = ("--set", "samples=[13]", "--set", "methods={pt: {}}")
    arguments = command(world, tmp_path / "out", *small)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert set(results(tmp_path / "out")["metric"]) == {HALF}


def test_it_refuses_what_it_cannot_score(outside, tmp_path):
    assert score(HALF, ["yes", "no"], [["yes"], ["yes"]], labels=("yes", "no")) == 0.75
    with pytest.raises(SoftstartError, match="example 2: an answer needs two letters"):
        score(HALF, ["yes", "no"], [["yes"], ["y"]])
    with pytest.raises(SoftstartError, match="needs at least 2 examples"):
        score(HALF, ["yes"], [["yes"]])


def test_it_can_be_registered_under_a_name(outside, monkeypatch):
    monkeypatch.setattr(METRICS, "_entries", dict(METRICS))
    METRICS.add("half", METRICS.find(HALF))
    assert score("half", ["yes", "no"], [["yes"], ["yes"]], labels=("yes", "no")) == 0.75
    assert companions(("yes", "no"), "half", ["yes", "oh"], [["yes"], ["yes"]]) == {"outside": 0.5}


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("outside_metric.nothing", "'outside_metric.nothing' is not a metric"),
        ("no_such.metric", "cannot import the metric 'no_such.metric'"),
        ("halve", "unknown metric 'halve'"),
    ],
)
def test_what_is_not_a_metric_is_refused_where_it_is_named(outside, tmp_path, metric, says):
    world = make_world(tmp_path)
    scored_by(world, metric)
    with pytest.raises(SoftstartError) as error:
        load_task("toy-a", world / "gym")
    assert says in str(error.value)
    assert "task.json" in str(error.value)


def test_the_name_in_a_prompt_file_is_never_imported(outside):
    backbone = random_t5(torch.float32)
    info = {"metric": HALF, "labels": ["w3", "w4"]}
    prompt = SoftPrompt.of(backbone, torch.zeros(4, backbone.width), info)
    rows = [Example("a", ("w3",)), Example("b", ("w4",))]
    with pytest.raises(SoftstartError, match="tuned by a metric that is not registered"):
        evaluate_rows(Predictor(backbone, prompt), rows)
    assert "outside_metric" not in sys.modules
    assert evaluate_rows(Predictor(backbone, prompt), rows, HALF).score in (0.5, 0.75, 1.0)
