"""What fails alone, what ends a study, and that nothing is lost."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
import torch

from helpers.toy_study import STUDY, command, contents, toy
from softstart.backbone import T5Backbone
from softstart.cli import app as cli
from softstart.errors import SoftstartError
from softstart.study import run_study
from softstart.study.declare.study_file import variants_of
from softstart.study.plan.plan import make_plan
from softstart.study.results.stores import open_store
from softstart.study.run import work
from softstart.study.run.executors import InProcess
from softstart.study.run.resources import Resources
from softstart.study.run.status import read_status


def test_what_diverged_is_recorded_and_tried_again_only_on_request(world, tmp_path):
    study = toy(
        world,
        methods={"pt": {}, "maml": {"inner_lr": 0.1, "lr": 1e6, "optimizer": {"weight_decay": 1e30}}},
        learning_rates=[1e6, 0.2],
        adaptation={"steps": 8, "eval_every": 8, "optimizer": {"weight_decay": 1e4}},
    )
    first = run_study(study, tmp_path)
    assert len(first.failures) == 1
    assert "meta-training maml: meta-training diverged: the loss is not finite" in first.failures[0]
    runs = pd.read_csv(tmp_path / "runs.csv").groupby("lr")["status"].unique().map(list)
    assert runs.to_dict() == {0.2: ["done"], 1e6: ["diverged"]}
    assert any("diverged after step" in reason for reason in read_status(tmp_path).failures.values())
    before = contents(tmp_path)
    second = run_study(study, tmp_path)
    assert "in an earlier run" in second.failures[0]
    third = run_study(study, tmp_path, retry_failed=True)
    assert third.failures == first.failures
    assert contents(tmp_path) == before


@pytest.mark.parametrize("problem", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_pack_that_does_not_fit_is_parted_and_nothing_is_lost(
    world, finished, tmp_path, monkeypatch, problem
):
    """A device that has room for six runs at a time."""
    real, packs = T5Backbone.nll, []

    def nll(self, prompts, *rest, **options):
        packs.append(len(prompts))
        if len(prompts) > 6:
            raise problem
        return real(self, prompts, *rest, **options)

    monkeypatch.setattr(T5Backbone, "nll", nll)
    with open_store(finished[0], readonly=True) as store:
        done, tested = store.runs(), store.tests()
    study = toy(world, methods={"pt": {}, "reptile": STUDY["methods"]["reptile"]})
    # One run, and so its place in a pack, is there already.
    kept = next(run for run in make_plan(study, Resources(variants_of(study)).inputs()).runs if not run.start)
    with open_store(tmp_path) as store:
        store.add(runs=[{**done[kept.key], "environment": {"kept": "as it was"}}])
        subprocess.run(["cp", finished[0] / done[kept.key]["prompt"], tmp_path / "prompts"], check=True)
    outcome = run_study(study, tmp_path)
    assert not outcome.failures
    # The pack of eight runs (pt: seven) is tried once; what is like it is parted before it is tried.
    assert [n for n in packs if n > 6] in ([7], [8])
    with open_store(tmp_path) as store:
        runs = store.runs()
        # The same runs are chosen; packs of another size may differ in last bits.
        assert store.tests() == {of: row for of, row in tested.items() if of[0] in runs}
    assert json.loads(runs[kept.key]["environment"]) == {"kept": "as it was"}


def test_one_run_that_does_not_fit_fails_alone_and_says_what_to_change(world, tmp_path, monkeypatch):
    def nll(self, prompts, *rest, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(T5Backbone, "nll", nll)
    outcome = run_study(toy(world, methods={"pt": {}}, samples=[13], learning_rates=[0.1]), tmp_path)
    assert outcome.failures == [
        f"adaptation of {task}: out of memory (CUDA out of memory); a smaller max_tokens needs less memory"
        for task in ("toy-c", "toy-d")
    ]


def test_data_that_change_under_a_running_study_are_refused(world, tmp_path):
    subprocess.run(["cp", "-r", world / "gym", tmp_path / "gym"], check=True)
    study = toy(world, gym=str(tmp_path / "gym"))
    inputs = Resources(variants_of(study)).inputs()
    file = tmp_path / "gym" / "toy-c" / "toy-c_test.tsv"
    file.write_text("\n".join(file.read_text().splitlines()[1:]) + "\n")
    later = Resources(variants_of(study), None, inputs)
    later.task("main", "toy-d")
    with pytest.raises(SoftstartError, match="task 'toy-c' has changed since the study began"):
        later.task("main", "toy-c")


def test_a_disk_without_room_is_one_clear_line(world, tmp_path):
    done = subprocess.run(
        command(world, tmp_path / "o"),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000)),
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    assert "study.db" in lines[0]
    assert "Check free space" in lines[0]


def test_a_prompt_that_cannot_be_written_ends_the_study_and_loses_nothing(world, tmp_path):
    study = toy(world, methods={"pt": {}})
    key = next(make_plan(study, Resources(variants_of(study)).inputs()).runs).key
    obstacle = tmp_path / "prompts" / f"{key}.safetensors"
    obstacle.mkdir(parents=True)
    (tmp_path / "study.lock").touch()
    with pytest.raises(SoftstartError, match=r"safetensors: cannot write .* Choose a writable folder"):
        run_study(study, tmp_path)
    with open_store(tmp_path, readonly=True) as store:
        assert not store.runs()
    assert list((tmp_path / "checkpoints").iterdir())
    obstacle.rmdir()
    outcome = run_study(study, tmp_path)
    assert not outcome.failures
    assert not outcome.missing
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.skipif(not Path("/sys").exists(), reason="no folder that nobody can write")
def test_a_folder_that_nobody_can_write_is_one_clear_line(world, capsys):
    assert cli._main(command(world, "/sys/study")[1:], debug=False) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "/sys/study: cannot write (" in line
    assert "Choose a writable folder (--out)" in line


class Watched(InProcess):
    """This process; remembers the pieces of work in their order."""

    items: ClassVar[list] = []

    def submit(self, item):
        self.items.append(item)
        super().submit(item)


def test_equal_packs_on_the_same_texts_follow_each_other(world, tmp_path, monkeypatch):
    monkeypatch.setattr(Watched, "items", [])
    study = toy(
        world, pack_size=2, methods={"pt": {}, "multitask": {}, "reptile": {"inner_lr": 0.1}},
        meta={"steps": 1, "lr": 0.3}, adaptation={"steps": 1, "eval_every": 1},
    )  # fmt: skip
    run_study(study, tmp_path, executor=f"{__name__}.Watched")
    packs = [item for item in Watched.items if isinstance(item, work.Adaptation)]
    texts = [{(run.task, run.sample) for run in pack.runs} for pack in packs]
    assert len(texts) == 12
    assert all(len(each) == 1 for each in texts)
    turns = [each for each, before in zip(texts, [None, *texts], strict=False) if each != before]
    assert len(turns) == 4
    tests = [item.task for item in Watched.items if isinstance(item, work.Testing)]
    assert [tests[:3], tests[3:]] in ([[a] * 3, [b] * 3] for a, b in (("toy-c", "toy-d"), ("toy-d", "toy-c")))


def test_a_task_that_lacks_what_a_start_is_made_of_fails_alone(world, tmp_path):
    """A start from label words, and a target without labels in the same pack as one with them."""
    subprocess.run(["cp", "-r", world / "gym", tmp_path / "gym"], check=True)
    facts = '{"kind": "text2text", "metric": "EM", "category": "toy"}'
    (tmp_path / "gym" / "toy-d" / "task.json").write_text(facts)
    study = toy(
        world, gym=str(tmp_path / "gym"), evaluation={}, samples=[13], learning_rates=[0.2],
        methods={"pt": {}, "words": {"algorithm": "pt", "init": "labels"}},
    )  # fmt: skip
    outcome = run_study(study, tmp_path / "out")
    assert len(outcome.failures) == 1
    assert outcome.failures[0].startswith("adaptation of toy-d by words: ")
    done = pd.read_csv(tmp_path / "out" / "results.csv").dropna(subset="test")
    assert set(zip(done["method"], done["task"], strict=True)) == {
        ("pt", "toy-c"), ("pt", "toy-d"), ("words", "toy-c"),
    }  # fmt: skip
