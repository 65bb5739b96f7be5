"""An executor from outside of the package: one class, named by its import path, computes a study."""

from __future__ import annotations

import sys

import pytest

from helpers.toy_study import contents, toy
from softstart.errors import SoftstartError
from softstart.study import run_study
from softstart.study.run.executors import EXECUTORS

MODULE = """
from softstart.study.run.executors import attempt


class LastFirst:
    "Takes three pieces of work at a time and does the last one first."

    local = True
    slots = 3
    orders = []

    def __init__(self, worker):
        self.worker, self.items, self.closed = worker, [], False

    @classmethod
    def of(cls, order):
        cls.orders.append(order)
        return cls(order.setup.worker(order.resources))

    def submit(self, item):
        self.items.append(item)

    def collect(self, report):
        item = self.items.pop()
        return item, attempt(self.worker, item, lambda share, note="": report(item, share, note))

    def close(self):
        self.closed = True


class Nothing:
    pass
"""
STUDY = {"methods": {"pt": {}, "maml": {"inner_lr": 0.1}}, "samples": [13], "learning_rates": [0.5]}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A module that is not in the package, as a user's own on PYTHONPATH."""
    (tmp_path / "outside_executor.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import outside_executor

    yield outside_executor
    sys.modules.pop("outside_executor", None)


def test_a_study_runs_under_it_to_the_report(outside, world, tmp_path):
    study = toy(world, **STUDY)
    outcome = run_study(
        study, tmp_path / "out", device="cpu", executor="outside_executor.LastFirst", workers=3, stall=60
    )
    assert (outcome.failures, outcome.missing) == ([], 0)
    assert (tmp_path / "out" / "report.html").exists()
    (order,) = outside.LastFirst.orders
    assert (order.workers, order.stall, order.folder) == (3, 60, tmp_path / "out")
    # Nothing depends on where the work was done, nor on its order.
    assert not run_study(study, tmp_path / "here", device="cpu").failures
    assert contents(tmp_path / "out") == contents(tmp_path / "here")
    run_study(study, tmp_path / "out", device="cpu", executor="outside_executor.LastFirst")
    assert len(outside.LastFirst.orders) == 1, "there was nothing to do"


def test_it_can_be_registered_under_a_name(outside, world, tmp_path, monkeypatch):
    monkeypatch.setattr(EXECUTORS, "_entries", dict(EXECUTORS))
    EXECUTORS.add("last-first", outside.LastFirst)
    study = toy(world, **{**STUDY, "methods": {"pt": {}}})
    assert not run_study(study, tmp_path / "out", device="cpu", executor="last-first").failures
    assert len(outside.LastFirst.orders) == 1


def test_what_is_not_an_executor_is_refused(outside, world, tmp_path):
    for name, message in (
        ("outside_executor.Nothing", "'outside_executor.Nothing' is not an executor"),
        ("hear", r"unknown executor 'hear'\. Did you mean here"),
    ):
        with pytest.raises(SoftstartError, match=message):
            run_study(toy(world), tmp_path / "out", executor=name)
    assert not (tmp_path / "out").exists()
