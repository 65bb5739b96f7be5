"""A way to make predictions from outside of the package: one object, named by its import path."""

from __future__ import annotations

import os
import subprocess
import sys

import pandas as pd
import pytest

from helpers.models import prompts, random_t5, toy_encoded
from helpers.toy_study import command, make_world, toy
from softstart.errors import SoftstartError
from softstart.study import run_study
from softstart.training.evaluation import SCORINGS, Evaluation, Job, Scoring, predict

MODULE = """
from softstart.training.evaluation import Scoring, rank_labels


def contrary(backbone, prompts, jobs, evaluation):
    ranked = rank_labels(backbone, prompts, jobs, evaluation)
    opposite = {word: other for job in jobs for word, other in zip(job.task.labels, job.task.labels[::-1])}
    return [[f" {opposite[text]} " for text in texts] for texts in ranked]


least = Scoring(contrary, "least likely label", ranks=True)
nothing = "rank"
"""
LEAST = "outside_scoring.least"
METHODS = {"pt": {}, "maml": {"inner_lr": 0.1}}
STILL = {"steps": 4, "eval_every": 2, "select": "last"}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A module that is not in the package, as a user's own on PYTHONPATH."""
    (tmp_path / "outside_scoring.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("outside_scoring", None)


def scores(folder):
    table = pd.read_csv(folder / "results.csv")
    return table.sort_values(["method", "task"])["test"].tolist()


def test_a_study_is_scored_by_it_to_the_report(outside, tmp_path):
    world = make_world(tmp_path)
    folders = {}
    for scoring in ("rank", LEAST):
        study = toy(
            world, methods=METHODS, samples=[13], learning_rates=[0.2], adaptation=STILL,
            evaluation={"scoring": scoring},
        )  # fmt: skip
        folders[scoring] = tmp_path / scoring
        outcome = run_study(study, folders[scoring], device="cpu")
        assert (outcome.failures, outcome.missing) == ([], 0)
        assert (folders[scoring] / "report.html").exists()
    assert "least likely label" in (folders[LEAST] / "results.csv").read_text()
    # Two labels: where the likeliest is right, the other one is wrong.
    assert scores(folders["rank"]) == pytest.approx([1 - score for score in scores(folders[LEAST])])


@pytest.mark.slow
def test_worker_processes_and_a_later_report_find_it(outside, tmp_path):
    world = make_world(tmp_path)
    environment = {**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{tmp_path}"}
    out = tmp_path / "out"
    more = ["--workers", "2", "--set", f"evaluation.scoring={LEAST}", "--set", "methods={pt: {}, maml: {}}"]
    run = command(world, out, *more, where=())
    done = subprocess.run(list(map(str, run)), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    report = [run[0], "report", str(out)]
    again = subprocess.run(report, capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stderr
    alone = subprocess.run(report, capture_output=True, text=True, cwd="/")
    assert alone.returncode == 1
    assert "cannot import the scoring 'outside_scoring.least'" in alone.stderr


def test_it_can_be_registered_under_a_name(outside, t5, monkeypatch):
    monkeypatch.setattr(SCORINGS, "_entries", dict(SCORINGS))
    SCORINGS.add("first", Scoring(lambda backbone, prompts, jobs, evaluation: [["w3"]] * len(jobs), "w3"))
    task = toy_encoded(t5)
    assert predict(t5, prompts(t5), [Job(0, task, task.test)], Evaluation(scoring="first")) == [["w3"]]


def test_what_is_not_a_scoring_is_refused(outside, tmp_path):
    task = toy_encoded(backbone := random_t5())
    with pytest.raises(SoftstartError, match=r"unknown scoring 'ranked'\. Did you mean rank\?"):
        predict(backbone, prompts(backbone), [Job(0, task, task.test)], Evaluation(scoring="ranked"))
    with pytest.raises(SoftstartError, match=r"'outside_scoring\.nothing' is not a scoring"):
        toy(tmp_path, evaluation={"scoring": "outside_scoring.nothing"})
