"""A tracker from outside of the package: one class, named by its import path, receives every curve."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

from helpers.toy_study import toy
from softstart.errors import SoftstartError
from softstart.study import run_study
from softstart.study.run.trackers import TRACKERS

MODULE = """
import csv


class Table:
    "A CSV file in the study's folder."

    def __init__(self, study, folder):
        self.file = (folder / f"{study}-points.csv").open("w", newline="")
        self.rows = csv.writer(self.file)
        self.rows.writerow(["name", "value", "step"])

    def scalar(self, name, value, step):
        self.rows.writerow([name, value, step])

    def close(self):
        self.file.close()


Nothing = dict
"""
STUDY = {"methods": {"pt": {}, "reptile": {"inner_lr": 0.1}}, "samples": [13], "learning_rates": [0.5]}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A module that is not in the package, as a user's own on PYTHONPATH."""
    (tmp_path / "outside_tracker.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import outside_tracker

    yield outside_tracker
    sys.modules.pop("outside_tracker", None)


def points(folder):
    table = pd.read_csv(folder / "unit-points.csv")
    return {(row.name, row.step): row.value for row in table.itertuples(index=False)}


@pytest.mark.parametrize("registered", [False, True])
def test_a_study_runs_under_it_to_the_report(outside, world, tmp_path, monkeypatch, registered):
    monkeypatch.setattr(TRACKERS, "_entries", dict(TRACKERS))
    name = "outside_tracker.Table"
    if registered:
        TRACKERS.add("table", outside.Table)
        name = "table"
    outcome = run_study(toy(world, **STUDY), tmp_path / "out", device="cpu", tracker=name)
    assert (outcome.failures, outcome.missing) == ([], 0)
    assert (tmp_path / "out" / "report.html").exists()
    seen = points(tmp_path / "out")
    curves = pd.read_csv(tmp_path / "out" / "curves.csv")
    assert len(curves) == 2 * 2 * 3  # methods x tasks x evaluations
    for row in curves.itertuples(index=False):
        label = f"dev/{row.task}/{row.method}/sample 13/lr 0.5/seed 42"
        assert seen[label, row.step] == pytest.approx(row.dev)
        assert 0 <= row.dev <= 1, "scores are fractions"
    assert {step for label, step in seen if label.startswith("meta-training/reptile/")} == set(range(6))


def test_what_is_not_a_tracker_is_refused(outside, world, tmp_path):
    with pytest.raises(SoftstartError, match=r"'outside_tracker\.Nothing' is not a tracker"):
        run_study(toy(world), tmp_path / "out", tracker="outside_tracker.Nothing")
