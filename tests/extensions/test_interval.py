"""An interval from outside of the package: one function, named by its import path, in every table."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from helpers.toy_study import SOFTSTART, toy
from softstart.analysis import INTERVALS, arg_table, bootstrap_interval, speed_table
from softstart.analysis.resampling import score_interval
from softstart.analysis.tasks import task_intervals
from softstart.errors import SoftstartError
from softstart.report.words import interval, signed
from softstart.study import report_study, run_study

MODULE = """
import numpy as np


def around(values, statistic, *, level, resamples, seed):
    observed = statistic(values[:, None])[:, 0]
    return np.stack([observed - 1, observed + 2], axis=1)


nothing = 1
"""
AROUND = "outside_interval.around"


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A module that is not in the package, as a user's own on PYTHONPATH."""
    (tmp_path / "outside_interval.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("outside_interval", None)


def called(tmp_path, *arguments):
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([SOFTSTART, *map(str, arguments)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_study_is_reported_with_it(outside, world, tmp_path):
    study = toy(world, methods={"pt": {}, "reptile": {"inner_lr": 0.1}}, learning_rates=[0.5])
    folder = tmp_path / "out"
    before = run_study(study, folder, device="cpu")
    assert (before.failures, before.missing) == ([], 0)
    page = folder / "report.html"
    assert "intervals (studentized)" in page.read_text()
    called(tmp_path, "report", folder, "--interval", AROUND)
    (arg,) = before.arg.loc[before.arg["method"] == "reptile", "arg"]
    expected = f"{signed(arg)} {interval(arg - 1, arg + 2)}"
    assert expected in (folder / "report" / "report.md").read_text()
    assert interval(arg - 1, arg + 2) in page.read_text()
    assert f"intervals ({AROUND})" in page.read_text()
    for name, value in (("arg", "arg"), ("speed", "area_points")):
        table = pd.read_csv(folder / "report" / f"{name}.csv")
        low = "low" if name == "arg" else "area_points_low"
        np.testing.assert_allclose(table[low], table[value] - 1, atol=1e-9)
    # The comparison itself is the same, and goes back to the default by itself.
    after = report_study(folder)
    pd.testing.assert_frame_equal(after.arg, before.arg)
    table = pd.read_csv(
        io.StringIO(called(tmp_path, "arg", folder / "results.csv", "--interval", AROUND, "--format", "csv"))
    )
    np.testing.assert_allclose(table["high"], table["arg"] + 2, atol=1e-9)


def test_every_table_takes_it(outside, monkeypatch):
    monkeypatch.setattr(INTERVALS, "_entries", dict(INTERVALS))
    INTERVALS.add("around", INTERVALS.find(AROUND))
    tests = [("pt", "a", 13, 0.5), ("pt", "a", 21, 0.4), ("maml", "a", 13, 0.6), ("maml", "a", 21, 0.7)]
    rows = pd.DataFrame(tests, columns=["method", "task", "sample", "test"])
    rows["run"] = rows["method"] + rows["sample"].astype(str)
    steps = pd.concat([rows[["run"]].assign(step=step, dev=rows["test"] * step / 10) for step in (0, 10)])
    for table, value, low, high in (
        (arg_table(rows, interval="around"), "arg", "low", "high"),
        (speed_table(rows, steps, interval="around"), "area_points", "area_points_low", "area_points_high"),
    ):
        np.testing.assert_allclose(table[low], table[value] - 1)
        np.testing.assert_allclose(table[high], table[value] + 2)
    ends = task_intervals(rows, interval="around")
    np.testing.assert_allclose(ends["high"] - ends["low"], 3)
    assert score_interval("ACC", ["yes", "no"], [["yes"], ["yes"]], interval="around") == (-0.5, 2.5)


def test_what_is_not_an_interval_is_refused_before_anything_is_written(outside, tmp_path):
    rows = pd.DataFrame({"method": ["pt"], "task": ["a"], "sample": [13], "test": [0.5]})
    with pytest.raises(SoftstartError, match=r"unknown interval 'percentil'\. Did you mean percentile\?"):
        bootstrap_interval(rows, interval="percentil")
    with pytest.raises(SoftstartError, match=r"'outside_interval\.nothing' is not an interval"):
        bootstrap_interval(rows, interval="outside_interval.nothing")
    with pytest.raises(SoftstartError, match="unknown interval"):
        report_study(tmp_path, "percentil")
