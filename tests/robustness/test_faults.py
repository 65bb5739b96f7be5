"""The short forms of the fault campaigns.

The long ones are ``python -m tests.faults --faults 200 --out DIR`` (what happens to a command) and
``python -m tests.faults.inputs --faults 300 --out DIR`` (what is given to one).
"""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest

from faults.input_kinds import KINDS
from faults.inputs import Trial, World
from faults.running import Ended
from faults.targets import whole_work
from helpers.paths import ROOT


def test_what_a_damage_must_leave_is_what_it_did_not_touch():
    rows = {
        **{key: {"key": key, "method": "pt", "seconds": 1.0} for key in ("same", "prompt", "row", "gone")},
        **{key: {"key": key, "method": "ft", "seconds": 1.0} for key in ("tuned", "untested")},
        "test of same 2": {"run": "same", "step": 2},
        "test of row 2": {"run": "row", "step": 2},
        "test of tuned 2": {"run": "tuned", "step": 2},
        "test of untested 2": {"run": "untested", "step": 2},
    }
    after = {key: row for key, row in rows.items() if key not in ("gone", "test of untested 2")}
    after["row"] = {**rows["row"], "seconds": 2.0}
    left = whole_work(rows, after, hurt={"prompt"})
    assert left.keys() == {"same", "tuned", "test of same 2", "test of tuned 2"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_few_faults_cost_nothing(tmp_path):
    command = [sys.executable, "-m", "tests.faults", "--short", "--real", "0", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = json.loads((tmp_path / "report.json").read_text())["trials"]
    assert len(trials) == 5
    for trial in trials:
        assert not {"wrong", "lost", "tracebacks", "unfinished"} & trial.keys(), trial
    assert sum("skipped" in trial for trial in trials) <= 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_one_fault_of_each_kind_of_what_is_given_costs_nothing(tmp_path):
    command = [
        sys.executable,
        "-m",
        "tests.faults.inputs",
        "--faults",
        str(len(KINDS)),
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = json.loads((tmp_path / "report.json").read_text())["trials"]
    assert {trial["kind"] for trial in trials} == {kind.__name__ for kind in KINDS}


def test_a_trial_notices_what_it_is_there_for(tmp_path):
    trial = Trial(0, "kind", World(tmp_path), tmp_path / "here", random.Random(0))
    trial.refused(Ended(1, "error: t.csv: bad"), "t.csv")
    assert not trial.failed
    trial.refused(Ended(0, "fine"))
    assert (trial.wrong, trial.failed) == (["accepted: fine"], True)
    trial.refused(Ended(1, "error: bad"), "t.csv")
    assert len(trial.bugs) == 1
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine").write_text("new")
    trial.kept(tmp_path / "here", {"mine": b"old", "gone": b""})
    assert trial.lost == ["mine", "gone"]
