"""A start learned from a folder of tables."""

from __future__ import annotations

import csv
from dataclasses import replace

import pandas as pd
import pytest
import torch

from helpers.doc_blocks import file_of
from helpers.own_tables import documented, failed, softstart, table
from helpers.paths import ROOT
from softstart import Backbone
from softstart.errors import SoftstartError
from softstart.gym import open_gym
from softstart.gym.mini import mini_settings
from softstart.gym.source_folder import source_tasks
from softstart.gym.tables import RawData, whole_task
from softstart.prompt import SoftPrompt
from softstart.training.configs import AdaptConfig
from softstart.yourtasks import LEARNED, PT, compare_starts, learn_start, outer_loop, plain_start


def test_source_tasks_keep_no_row_for_a_test(sources):
    here, names = sources
    tasks = source_tasks(here / "sources")
    assert [task.name for task in tasks] == sorted(names)
    for task in tasks:
        (sample,) = task.samples.values()
        with (here / "sources" / f"{task.name}.csv").open(newline="") as file:
            rows = {(row["input"].strip(), row["output"].strip()) for row in csv.DictReader(file)}
        assert {(e.input, e.outputs[0]) for e in (*sample.train, *sample.dev)} == rows
        assert not task.test
    with pytest.raises(SoftstartError, match="no tables to learn from"):
        source_tasks(here)


@pytest.mark.slow
def test_a_start_learned_from_a_folder_of_tables_beats_plain_tuning_in_few_steps(sources):
    """The command, the code of docs/ecosystem.md, and whether it is worth it on tasks it never saw."""
    here, names = sources
    options = ("--steps", 40, "--seed", 0, "--device", "cpu")
    code, shown, err = softstart("meta-train", "sources", "--out", "start", *options, cwd=here)
    assert code == 0, err
    assert "start of 8 source tasks: start" in shown
    assert sorted(path.name for path in (here / "start").iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "curves.csv", "curves.svg",
    ]  # fmt: skip
    learned = SoftPrompt.from_pretrained(here / "start")
    assert learned.info["source"] == sorted(names)
    assert learned.info["algorithm"] == "multitask"
    backbone, gym, gains = Backbone.from_pretrained("softstart/tiny", device="cpu"), open_gym("mini"), []
    config = AdaptConfig(steps=20, eval_every=10, max_tokens=2048)
    for name in mini_settings()["mini-random"].target:
        task = gym.load(name)
        starts = {PT: plain_start(backbone, 20), LEARNED: learned.check_for(backbone)}
        tuned = compare_starts(backbone, task, starts, samples=[13], rates=[0.3], config=config)
        gains.append(tuned[LEARNED].test - tuned[PT].test)
    print([round(100 * gain, 1) for gain in gains])
    assert sum(gains) / len(gains) > 0.1
    assert sum(gain > 0 for gain in gains) > len(gains) / 2


def test_the_documented_meta_training_is_what_the_command_does(sources, monkeypatch):
    here, _ = sources
    code = documented("<!-- meta-train -->")
    assert len(code.strip().splitlines()) <= 5 + 3  # the imports apart
    monkeypatch.chdir(here)
    exec(code.replace('"fomaml",', '"fomaml", steps=3,').replace('"start"', '"python"'), {})
    options = ("--steps", 3, "--algorithm", "fomaml", "--set", "inner_lr=3.0", "--set", "inner_steps=2")
    assert softstart("meta-train", "sources", "--out", "command", *options, "--lr", 0.3, cwd=here)[0] == 0
    first, second = (SoftPrompt.from_pretrained(here / name) for name in ("python", "command"))
    assert torch.equal(first.tensor, second.tensor)
    again = softstart("meta-train", "sources", "--out", "command", *options, "--lr", 0.3, cwd=here)
    assert again[1].strip() == "nothing to do: command is finished, from the same rows and settings"
    other = failed("meta-train", "sources", "--out", "command", *options, "--lr", 0.2, cwd=here)
    assert "command: holds a finished prompt of other rows, settings or backbone" in other


def test_an_algorithm_of_ones_own_learns_a_start_by_its_import_path(sources, tmp_path, monkeypatch):
    page = ROOT / "docs" / "tutorials" / "add-an-algorithm.md"
    (tmp_path / "ones_own_sign.py").write_text(file_of(page, "sign_maml.py"))
    monkeypatch.syspath_prepend(str(tmp_path))
    options = ("--algorithm", "ones_own_sign.SignMAML", "--set", "inner_lr=0.5", "--steps", 1, "--length", 4)
    code, _, err = softstart("meta-train", sources[0] / "sources", "--out", "start", *options, cwd=tmp_path)
    assert code == 0, err
    assert SoftPrompt.load(tmp_path / "start").info["inner_lr"] == 0.5


def test_a_start_is_learned_where_it_will_be_placed(sources, tmp_path):
    folder, options = sources[0] / "sources", ("--steps", 1, "--length", 4, "--out", "start")
    code, _, err = softstart("meta-train", folder, "--placement", "suffix", *options, cwd=tmp_path)
    assert code == 0, err
    assert "this suffix prompt is for Softstart alone" in err
    assert SoftPrompt.load(tmp_path / "start").placement == "suffix"
    again = ("--init", "start", "--steps", 1, "--out", "more")
    code, _, err = softstart("meta-train", folder, *again, cwd=tmp_path)
    assert code == 0, err
    assert SoftPrompt.load(tmp_path / "more").placement == "suffix"
    assert "--placement" in failed("meta-train", folder, "--placement", "middle", *options, cwd=tmp_path)


def test_meta_training_resumes_where_it_was_killed(sources, tmp_path):
    here, _ = sources
    backbone, tasks = (
        Backbone.from_pretrained("softstart/tiny", device="cpu"),
        source_tasks(here / "sources")[:2],
    )
    algorithm, config = outer_loop("multitask", steps=4, lr=0.3, seed=1, overrides=["checkpoint_every=1"])
    reports = []

    def kill(n, note=""):
        reports.append((n, note))
        if len(reports) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_start(backbone, tasks, algorithm, config, length=4, folder=tmp_path, progress=kill)
    assert len(list(tmp_path.iterdir())) == 1
    learn_start(backbone, tasks, algorithm, replace(config, seed=2), length=4, folder=tmp_path)  # another one
    resumed = learn_start(
        backbone, tasks, algorithm, config, length=4, folder=tmp_path,
        progress=lambda n, note="": reports.append((n, note)),
    )  # fmt: skip
    assert reports[3] == (2, "resumed")
    whole = learn_start(backbone, tasks, algorithm, config, length=4)
    assert torch.equal(resumed.tensor, whole.tensor)
    assert torch.equal(SoftPrompt.from_pretrained(tmp_path).tensor, whole.tensor)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "curves.csv", "curves.svg",
    ]  # fmt: skip
    assert list(pd.read_csv(tmp_path / "curves.csv")["step"]) == [0, 1, 2, 3]
    for name, overrides, message in (
        ("pt", [], "learns no start"), ("mamml", [], "unknown method"),
        ("maml", ["a=1"], "not a field of maml"), ("maml", ["a"], "not of the form"),
        ("maml", ["lr=0"], "lr: 0 is out of range"),
    ):  # fmt: skip
        with pytest.raises(SoftstartError, match=message):
            outer_loop(name, steps=1, lr=0.1, seed=0, overrides=overrides)


def test_all_rows_are_used_and_none_twice(tmp_path):
    table(tmp_path / "mine.csv", 40)
    raw = RawData(str(tmp_path / "mine.csv"), input="{id} {body}")
    task = whole_task(raw)
    (sample,) = task.samples.values()
    parts = [sample.train, sample.dev, task.test]
    assert [len(part) for part in parts] == [24, 8, 8]
    assert len({e.input for part in parts for e in part}) == 40
    assert whole_task(raw).digest == task.digest
    several = whole_task(raw, splits=3)
    assert several.test == task.test
    assert several.samples[42] == sample
    parts = [{*s.train, *s.dev} for s in several.samples.values()]
    assert len(parts) == 3
    assert parts[0] == parts[1] == parts[2]
    assert len({frozenset(s.dev) for s in several.samples.values()}) == 3
