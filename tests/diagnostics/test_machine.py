"""softstart doctor: what it says is there is there, and its rates are rates of work that was done."""

from __future__ import annotations

import os

import torch
import transformers

from helpers.toy_study import SOFTSTART, call
from softstart.backbone import TINY, load_backbone
from softstart.diagnostics import machine


def test_the_machine_is_this_one(monkeypatch):
    monkeypatch.setitem(machine.EXTRAS, "no_such_package", "nothing")
    here = machine.this_machine()
    assert here.packages["torch"] == torch.__version__
    assert here.packages["transformers"] == transformers.__version__
    assert here.packages["no_such_package"] is None
    assert here.cores == os.cpu_count()
    assert here.devices[0].name == "cpu"
    assert len(here.devices) == 1 + torch.cuda.device_count()
    for device in here.devices:
        for dtype in device.dtypes:
            x = torch.ones(8, 8, dtype=getattr(torch, dtype), device=device.name)
            assert (x @ x)[0, 0] == 8


def test_the_adaptation_that_is_timed_counts_the_flops_of_one_step():
    backbone = load_backbone(TINY, device="cpu")
    one, _ = machine._adaptation(backbone, 1, 1)
    eight, _ = machine._adaptation(backbone, 8, 1)
    weights = sum(p.numel() for p in backbone.model.encoder.parameters()) - backbone.embedding.weight.numel()
    rows = 8 * (100 + 5)  # at least 5 words a row, and the prompt
    assert one > 2 * 2 * rows * 0.9 * weights
    assert 6 < eight / one < 10


def test_doctor_prints_facts_and_measurements():
    done = call(SOFTSTART, "doctor", "--bench", "--device", "cpu", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert f"torch         {torch.__version__}" in done.stdout
    assert done.stdout.count("GFLOP/s") == 3
    assert "1 threads" in done.stdout


def test_a_device_that_is_not_there_is_refused_in_one_line():
    done = call(SOFTSTART, "doctor", "--bench", "--device", "cuda:99")
    assert done.returncode == 1
    assert done.stderr.startswith("error: device 'cuda:99'")
    assert len(done.stderr.strip().splitlines()) == 1
