"""Pieces of work: what each took."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from helpers.families import random_backbone
from helpers.toy_study import command, toy
from softstart.backbone import devices
from softstart.cli import app as cli
from softstart.progress import silent
from softstart.study.declare.spec import MAIN
from softstart.study.declare.study_file import variants_of
from softstart.study.plan.plan import make_plan
from softstart.study.run import work
from softstart.study.run.executors import attempt
from softstart.study.run.resources import Resources
from softstart.training.baselines import weights


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is told by Linux alone")
def test_every_piece_of_work_has_a_peak_of_its_own(world, tmp_path):
    worker = work.Worker(Resources(variants_of(toy(world)), "cpu"), tmp_path)

    class Work:
        name = "work"

        def __init__(self, size):
            self.size = size

        def perform(self, worker, progress):
            float(torch.ones(self.size).sum())
            return work.Done(metas=[{"memory": devices.peak_memory(torch.device("cpu"))}])

    large, small = (attempt(worker, Work(n), silent).metas[0]["memory"] for n in (1 << 27, 1))
    assert 0.9 * 2**29 < large - small < 1.2 * 2**29


def test_tests_are_no_part_of_what_a_fine_tuning_took(world, tmp_path, monkeypatch):
    resources = Resources(variants_of(toy(world)), "cpu")
    run = next(run for run in make_plan(toy(world), resources.inputs()).runs if run.method.kind == "ft")
    now, score = [0.0], weights.score_finetuned

    def slow(*arguments):
        now[0] += 1000.0
        return score(*arguments)

    monkeypatch.setattr(work, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(weights, "score_finetuned", slow)
    done = work.UnpackedRun(run).perform(work.Worker(resources, tmp_path))
    assert (len(done.tests), now[0], done.runs[0]["seconds"]) == (1, 1000.0, 0.0)


def test_a_worker_gets_its_share_of_memory_for_texts(world):
    for given, bytes_ in ((5, 5 << 20), (None, None)):
        studies = variants_of(toy(world, text_cache=given))
        resources = Resources(studies, load=lambda *_, **__: random_backbone("llama"), processes=3)
        backbone = resources.backbone(MAIN)
        assert (backbone.text_cache, backbone.processes) == (bytes_, 3)


def test_the_memory_for_texts_is_an_option_of_a_run(world, tmp_path, capsys):
    few = ("methods={pt: {}}", "adaptation.steps=1", "adaptation.eval_every=1", "samples=[13]")
    sets = [part for each in few for part in ("--set", each)]
    assert cli._main(command(world, tmp_path / "out", "--text-cache", "7", *sets)[1:], debug=False) == 0
    assert yaml.safe_load((tmp_path / "out" / "study.yaml").read_text())["text_cache"] == 7
    assert cli._main(command(world, tmp_path / "out", "--text-cache", "-1")[1:], debug=False) == 2
