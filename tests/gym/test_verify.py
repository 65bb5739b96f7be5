"""Folders that others made: checksums, broken rows, leaks."""

import json
import os
import shutil

import pytest

from helpers.gym_cli import gym
from helpers.shared import SHARED
from softstart.gym.verify import verify


@pytest.mark.skipif(SHARED is None, reason="shared is not here")
def test_verify_reads_folders_of_other_makers(tmp_path):
    real = SHARED / "data" / "gym"
    tasks = ["glue-rte", "imdb"]
    for task in tasks:
        shutil.copytree(real / task, tmp_path / task)
    by_task = {checked.task: checked for checked in verify(tmp_path)}
    assert by_task["glue-rte"].verdict == "exact"
    assert by_task["imdb"].verdict == "differs"
    assert by_task["imdb"].differs
    os.chmod(tmp_path / "glue-rte", 0o755)
    (tmp_path / "glue-rte" / "glue-rte_16_13_dev.tsv").unlink()
    (checked,) = (c for c in verify(tmp_path) if c.task == "glue-rte")
    assert (checked.verdict, checked.missing) == ("incomplete", ("glue-rte_16_13_dev.tsv",))
    assert "cannot read this file" in checked.problem


def test_verify_names_broken_rows_and_leaks_of_a_folder(tmp_path):
    for task in ("mine", "leaky"):
        (tmp_path / task).mkdir()
        for part in ("train", "dev"):
            (tmp_path / task / f"{task}_1_13_{part}.tsv").write_text(f"{part} x\ta\n{part} y\tb\n")
    (tmp_path / "mine" / "mine_test.tsv").write_text("x\ta\ny\n")
    (tmp_path / "leaky" / "leaky_test.tsv").write_text("train x\ta\nz\tc\n")
    done = gym("verify", tmp_path, "--json")
    assert done.returncode == 1
    leaky, mine = json.loads(done.stdout)
    assert "mine_test.tsv, line 2: no TAB between input and answer" in mine["problem"]
    assert leaky["problem"] == ""
    assert "1 train or dev input is in the test set too" in leaky["notes"]
    assert "sample 13: no training row of class 'c', which test has" in leaky["notes"]
