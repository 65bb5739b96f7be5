"""A baseline from outside of the package: one class, named by its import path, is a method of a study."""

from __future__ import annotations

import sys
from textwrap import dedent

import pandas as pd
import pytest

from helpers.toy_study import toy
from softstart.errors import SoftstartError
from softstart.study import run_study
from softstart.training.configs import MetaConfig
from softstart.training.methods import resolve_method

MAJORITY = '''
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from softstart.training.baselines.base import TRAIN, Learned, Unpacked
from softstart.training.evaluation import assess_texts


@dataclass(frozen=True)
class Majority(Unpacked):
    """The most frequent answer of the train rows."""

    label: ClassVar[str] = "Majority"
    uses: ClassVar[tuple[str, ...]] = (TRAIN,)
    trains: ClassVar[str] = "nothing"
    work: ClassVar[str] = "majority"
    seeded: ClassVar[bool] = False
    last: bool = False

    def run(self, given, test):
        rows, task = given.task.train[given.sample], given.task
        best = Counter(answers[0] for answers in rows.references).most_common()[-1 if self.last else 0][0]

        def scored(rows):
            return assess_texts(task, [best] * len(rows), rows, given.evaluation)

        dev = scored(task.dev[given.sample]).score
        test(0, lambda: scored(task.test))
        return Learned(dev=dev, curve=[(0, dev, 0.0)], stored=len(best))
'''


@pytest.fixture
def outside(tmp_path, monkeypatch):
    (tmp_path / "outside_baseline.py").write_text(dedent(MAJORITY))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("outside_baseline", None)


def test_a_study_compares_it(outside, world, tmp_path):
    path = "outside_baseline.Majority"
    methods = {"pt": {}, "most": {"algorithm": path}, "least": {"algorithm": path, "last": True}}
    declared = toy(world, methods=methods, samples=[13], learning_rates=[0.2])
    outcome = run_study(declared, tmp_path / "out", device="cpu")
    assert (outcome.failures, outcome.missing) == ([], 0)
    rows = pd.read_csv(tmp_path / "out" / "results.csv")
    assert set(rows.loc[rows["method"] != "pt", "test"]) == {0.5}  # two classes of one size
    assert "Majority" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_mistakes_are_named(outside):
    path = "outside_baseline.Majority"
    with pytest.raises(SoftstartError, match=r"'lost' is not a field of outside_baseline\.Majority"):
        resolve_method("m", {"algorithm": path, "lost": 1}, MetaConfig(), "study")
    with pytest.raises(SoftstartError, match=r"'outside_baseline\.Counter' is not a method"):
        resolve_method("m", {"algorithm": "outside_baseline.Counter"}, MetaConfig(), "study")
