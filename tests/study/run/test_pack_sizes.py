"""Packs that fit into memory, and memory that is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from helpers.toy_study import toy
from softstart.backbone import devices
from softstart.backbone.devices import device_memory
from softstart.study import run_study
from softstart.study.declare.study_file import variants_of
from softstart.study.plan.inputs import Inputs
from softstart.study.plan.plan import make_plan
from softstart.study.results.stores import open_store
from softstart.study.run import pack_sizes, work_graph
from softstart.study.run.resources import Resources


def test_packs_are_cut_to_the_memory_there_is_when_a_study_begins(world, finished, tmp_path, monkeypatch):
    peaks = {1: 1000, 2: 1300}
    assert [pack_sizes.fitting(peaks.get, room) for room in (900, 1100, 1300, 2000)] == [1, 1, 2, 4]
    assert pack_sizes.fitting({1: None}.get, 9e9) == pack_sizes.fitting({1: 10, 2: None}.get, 9e9) == 1
    assert pack_sizes.fitting({1: 10, 2: 10}.get, 100) > 10**9
    with monkeypatch.context() as short:
        short.setattr(pack_sizes, "free_memory", lambda device: 1)
        study = toy(world, methods={"pt": {}})
        plan = make_plan(study, _inputs(run_study(study, tmp_path)))
    assert [len(pack) for pack in work_graph.packs(plan)] == [2] * 4  # cells stay whole
    # More memory later does not change how the rest is cut.
    assert _inputs(run_study(study, tmp_path)).fits == {"main": 1}
    with open_store(finished[0], readonly=True) as store:
        assert json.loads(store.inputs())["fits"] == {}


def _inputs(outcome):
    with open_store(outcome.folder, readonly=True) as store:
        return Inputs.from_json(store.inputs())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is told by Linux alone")
def test_the_memory_of_a_step_is_measured(world, monkeypatch):
    resources = Resources(variants_of(toy(world)))
    run = next(make_plan(toy(world), resources.inputs()).runs)
    taken = []
    # Pages count once they are written to.
    monkeypatch.setattr(pack_sizes, "try_out", lambda *_: taken.append(torch.ones(len(taken) << 26).sum()))
    none, first, second = (pack_sizes._peak(resources, [run], 1) for _ in range(3))
    assert 0.9 * 2**28 < first - none < 1.2 * 2**28
    assert 0.9 * 2**28 < second - first < 1.2 * 2**28
    assert second < pack_sizes.free_memory(torch.device("cpu")) <= 2 * device_memory(torch.device("cpu"))


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_device_has_the_memory_that_its_container_may_use(tmp_path, monkeypatch, file):
    here = torch.device("cpu")
    monkeypatch.setattr(devices, "_GROUPS", tmp_path)
    whole = devices.device_memory(here)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    for text, limit in (("max", whole), (str(1 << 62), whole), (f"{whole // 3}\n", whole // 3)):
        (tmp_path / file).write_text(text)
        assert devices.device_memory(here) == limit
