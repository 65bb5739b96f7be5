"""The examples in docstrings do what they say, without a network."""

from __future__ import annotations

import doctest
import importlib
import re

import pytest

from helpers.imports import modules
from helpers.paths import ROOT

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

WITH_EXAMPLES = [
    name
    for name, path in modules(ROOT / "src" / "softstart").items()
    if re.search(r"^\s*>>> ", path.read_text(encoding="utf-8"), re.M)
]

MET_FIRST = {
    "softstart.backbone.loading.load_backbone",
    "softstart.prompt.SoftPrompt",
    "softstart.training.adaptation.adapt",
    "softstart.training.encoding.encode_task",
    "softstart.training.evaluation.evaluate",
    "softstart.training.evaluation.predict",
    "softstart.training.finetuning.finetune",
    "softstart.training.meta_training.meta_train",
    "softstart.training.methods.learn",
    "softstart.training.optimizers.StackedOptimizer",
    "softstart.gym.metrics.score",
    "softstart.gym.sampling.kshot",
    "softstart.gym.settings.load_setting",
    "softstart.gym.sources.load_task",
    "softstart.yourtasks.adapt.compare_starts",
    "softstart.yourtasks.learn.learn_start",
    "softstart.yourtasks.learn.outer_loop",
    "softstart.yourtasks.predict.Predictor",
    "softstart.yourtasks.predict.evaluate_rows",
}
"""What a user meets first; each has an example."""


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_the_examples_of_a_module_hold(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed = []
    every = doctest.DocTestFinder().find(importlib.import_module(module))
    tests = [test for test in every if test.examples]
    assert tests, "examples that no docstring holds"
    for test in tests:
        said: list[str] = []
        if doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append).failed:
            failed.append("".join(said))
    assert not failed, "\n".join(failed)


def test_what_a_user_meets_first_has_an_example():
    missing = []
    for name in sorted(MET_FIRST):
        module, _, thing = name.rpartition(".")
        documented = getattr(importlib.import_module(module), thing)
        if not any(test.examples for test in doctest.DocTestFinder(recurse=False).find(documented)):
            missing.append(name)
    assert not missing
