"""GPU hours of a dry run: the measured rates are those of the package, wherever it is called from."""

from __future__ import annotations

import json

import yaml

from helpers.paths import ROOT
from softstart.study import parse_study
from softstart.study.cost.estimate import Estimate, Rows
from softstart.study.cost.gpu_hours import MEASURED, cost_lines, measured_rate, rates_of

STUDY = {
    "name": "hours",
    "setting": "study/cls2cls",
    "backbone": "google/t5-large-lm-adapt",
    "dtype": "bfloat16",
    "methods": {"pt": {}},
}


def test_hours_do_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    study = parse_study(yaml.safe_dump(STUDY), "study.yaml")
    needed = Estimate({}, 174e6, None, None, None, (), {"main": Rows(1e6, 170, 4)})
    lines = list(cost_lines(study, needed))
    assert lines[-1].endswith("TFLOP/s, measured (NVIDIA H200)")
    monkeypatch.chdir(tmp_path)
    assert list(cost_lines(study, needed)) == lines
    # Nor is another file with the name of the benchmark's taken for it.
    (tmp_path / "benchmarks" / "gpu").mkdir(parents=True)
    other = {"machine": {"device": "X", "smoke": False}, "packs": {"large R=4": {"flops": 1.0}}}
    (tmp_path / "benchmarks" / "gpu" / "results.json").write_text(json.dumps(other))
    assert list(cost_lines(study, needed)) == lines


def test_the_rates_of_the_package_are_those_of_the_benchmark():
    results = json.loads((ROOT / "benchmarks" / "gpu" / "results.json").read_text())
    assert json.loads(MEASURED.read_text()) == rates_of(results)
    study = parse_study(yaml.safe_dump(STUDY), "study.yaml")
    best = max(row["flops"] for name, row in results["packs"].items() if "compiled" not in name)
    assert measured_rate(study) == (best, "NVIDIA H200")


def test_hours_that_say_nothing_are_not_shown():
    study = parse_study(yaml.safe_dump(STUDY), "study.yaml")
    needed = Estimate({}, 174e2, None, None, None, (), {"main": Rows(1e2, 170, 4)})
    assert list(cost_lines(study, needed)) == ["on one H200: under a minute"]
    assert len(list(cost_lines(study, needed, rate=100.0))) > 1
