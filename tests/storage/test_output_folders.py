"""No command writes into a folder of others, or deletes what it did not write."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch

from helpers.own_tables import softstart
from helpers.toy_study import call, command, contents, toy
from softstart.errors import SoftstartError
from softstart.progress import Quiet
from softstart.prompt import SoftPrompt
from softstart.study import run_study
from softstart.study.results.folder import drop_checkpoints
from softstart.study.results.sqlite_store import SQLiteStore

KEY = "0123456789abcdef"
MINE = ("README.md", "study.yaml", "results.csv", "checkpoints/mine.safetensors")


@pytest.fixture
def taken(tmp_path):
    """A folder of a user with names that Softstart would write to; nothing may change in it."""
    folder = tmp_path / "taken"
    (folder / "checkpoints").mkdir(parents=True)
    for name in MINE:
        (folder / name).write_text("mine")
    yield folder
    files = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}
    assert files == dict.fromkeys(MINE, "mine")


def refused(result):
    code, _, err = result
    assert code == 1
    assert "holds files that Softstart did not write (README.md, checkpoints, results.csv and 1 more)" in err
    assert err.count("\n") == 1


def test_a_study_refuses_a_folder_of_others(world, taken):
    done = call(*command(world, taken))
    refused((done.returncode, done.stdout, done.stderr))


def test_a_prompt_refuses_a_folder_of_others_before_any_work(taken, tmp_path):
    SoftPrompt(torch.ones(2, 4), "x").save(tmp_path / "start.safetensors")
    rows = tmp_path / "missing"
    refused(softstart("export", "start.safetensors", taken, cwd=tmp_path))
    refused(softstart("adapt", "--train", rows, "--out", taken, cwd=tmp_path))
    refused(softstart("meta-train", rows, "--out", taken, cwd=tmp_path))
    refused(softstart("tiny", "pretrain", "--tokens", "1000", "--out", taken, cwd=tmp_path))
    with pytest.raises(SoftstartError, match="did not write"):
        SoftPrompt(torch.ones(2, 4), "x").save_pretrained(taken)


def test_a_prompt_does_not_replace_a_file_of_others(tmp_path):
    SoftPrompt(torch.ones(2, 4), "x").save(tmp_path / "start.safetensors")
    (tmp_path / "model.safetensors").write_text("weights")
    code, _, err = softstart("export", "start.safetensors", "model.safetensors", cwd=tmp_path)
    assert code == 1
    assert "model.safetensors: holds something that Softstart did not write" in err
    assert (tmp_path / "model.safetensors").read_text() == "weights"


def test_what_was_written_before_is_written_again(tmp_path):
    prompt = SoftPrompt(torch.ones(2, 4), "x")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / ".gitignore").write_text("hidden files do not count")
    for _ in range(2):
        prompt.save_pretrained(tmp_path / "adapter")
        prompt.save(tmp_path / "one.safetensors")


def test_only_checkpoints_under_names_of_softstart_are_dropped(tmp_path):
    left = [f"checkpoints/{KEY}.safetensors", f"checkpoints/pack-{KEY}.seconds", f"prompts/.{KEY}.12.tmp"]
    kept = ["checkpoints/mine.safetensors", "checkpoints/notes.seconds", "prompts/.vim.tmp"]
    for name in (*left, *kept):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    drop_checkpoints(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)


def test_a_place_that_cannot_be_written_is_said_before_any_work(world, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SoftstartError, match="file: not a folder"):
        run_study(toy(world, gym="/missing"), tmp_path / "file" / "out")
    code, _, err = softstart("adapt", "--train", "missing.csv", "--out", "file/out", cwd=tmp_path)
    assert (code, "file: not a folder" in err) == (1, True)


def test_prompts_that_a_power_failure_emptied_are_computed_again(finished, world, tmp_path):
    """A file of zeros of full length, as a disk has it that got the row before the data."""
    out = tmp_path / "study"
    shutil.copytree(finished[0], out)
    before = contents(out)
    emptied = sorted((out / "prompts").glob("*.safetensors"))[:3]
    for file in emptied:
        file.write_bytes(bytes(file.stat().st_size))
    (out / "study.yaml").write_text("")
    done = call(*command(world, out))
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("computed again") == 3
    after = contents(out)
    # Recomputed in a smaller pack: the mean losses of a curve may differ in their last bits.
    for row, expected in zip(
        map(json.loads, after.pop("runs")), map(json.loads, before.pop("runs")), strict=True
    ):
        for mine, theirs in zip(json.loads(row.pop("curve")), json.loads(expected.pop("curve")), strict=True):
            assert mine == pytest.approx(theirs, rel=1e-5, nan_ok=True)
        assert row == expected
    assert after == before
    assert (out / "study.yaml").read_text()


def test_a_prompt_is_on_the_disk_before_its_row(world, tmp_path, monkeypatch):
    synced, named = [], []
    sync, write = os.fsync, SQLiteStore.write

    def fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    def checked(store, rows, delete=None):
        for row in (*rows.get("runs", ()), *rows.get("meta_trainings", ())):
            if row["prompt"]:
                named.append(row["prompt"])
                assert str(tmp_path / row["prompt"]) in synced
                assert str(tmp_path / "prompts") in synced
        write(store, rows, delete)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(SQLiteStore, "write", checked)
    run_study(
        toy(world, methods={"pt": {}, "fomaml": {"inner_lr": 0.1}}, samples=[13]), tmp_path, device="cpu"
    )
    assert len(named) > 2


class Remover(Quiet):
    """Moves the folder of a study away once its first prompts are there."""

    def __init__(self, folder):
        self.folder = folder

    def advance(self, units, note=""):
        if self.folder.is_dir() and len(list(self.folder.glob("prompts/*.safetensors"))):
            self.folder.rename(self.folder.with_name("elsewhere"))


def test_a_folder_that_is_renamed_while_a_study_runs_is_noticed(world, tmp_path):
    study, out = toy(world, methods={"pt": {}}, samples=[13], pack_size=1), tmp_path / "out"
    with pytest.raises(SoftstartError, match=r"out.*was removed, renamed or replaced while the study"):
        run_study(study, out, device="cpu", display=Remover(out))
    assert not (out / "results.csv").exists()
    # What is left in the old place is no obstacle, and what was finished is all there.
    outcome = run_study(study, tmp_path / "elsewhere", device="cpu")
    assert not outcome.missing
    assert not run_study(study, out, device="cpu").missing
