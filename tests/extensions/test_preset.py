"""A preset from outside of the package: a file of values, registered under a name."""

from __future__ import annotations

import pytest

from helpers.toy_study import toy
from softstart.errors import SoftstartError
from softstart.study import load_study, run_study
from softstart.study.declare.presets import PRESETS

PRESET = """
learning_rates: [0.4]
adaptation: {steps: 4, eval_every: 2}
methods: {pt: {}, maml: {inner_lr: 0.25}}
"""


def test_a_study_runs_under_it_to_the_report(world, tmp_path, monkeypatch):
    monkeypatch.setattr(PRESETS, "_entries", dict(PRESETS))
    (tmp_path / "mine.yaml").write_text(PRESET)
    PRESETS.add("mine", tmp_path / "mine.yaml")
    study = toy(world, preset="mine", learning_rates=[0.3], samples=[13])
    assert (study.adaptation.steps, study.adaptation.eval_every) == (8, 4), "what a study says stays"
    (tmp_path / "study.yaml").write_text(
        "{name: unit, preset: mine, samples: [13], text: {template: '{input}'}, prompt: {length: 4}, "
        "meta: {steps: 2}, evaluation: {scoring: rank}, "
        "setting: {name: unit, source: [toy-a, toy-b], target: [toy-c, toy-d]}}"
    )
    places = [f"gym={world / 'gym'}", f"backbone={world / 'model'}"]
    study = load_study(tmp_path / "study.yaml", places)
    assert (study.adaptation.steps, study.learning_rates, list(study.methods)) == (4, [0.4], ["pt", "maml"])
    outcome = run_study(study, tmp_path / "out", device="cpu")
    assert (outcome.failures, outcome.missing) == ([], 0)
    assert "mine" in (tmp_path / "out" / "report.html").read_text()


def test_without_it_the_name_is_unknown(world):
    with pytest.raises(SoftstartError, match="preset: unknown preset 'mine'"):
        toy(world, preset="mine")
