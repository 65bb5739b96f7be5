"""Dry runs: what is left of a study, with or without its weights and data."""

from __future__ import annotations

import re

import pytest

from helpers.paths import ROOT
from helpers.toy_study import command
from softstart.cli import app as cli


def test_a_dry_run_tells_what_is_left_and_writes_nothing(world, finished, tmp_path, capsys):
    arguments = command(world, tmp_path / "new", "--dry-run")[1:]
    assert cli._main(arguments, debug=False) == 0
    printed = capsys.readouterr().out
    assert printed.split()[:8] == ["planned", "done", "meta-trainings", "4", "0", "adaptations", "40", "0"]
    assert "time with 1 worker" in printed
    assert not (tmp_path / "new").exists()
    before = {file: file.stat().st_mtime_ns for file in finished[0].rglob("*")}
    assert cli._main(command(world, finished[0], "--dry-run")[1:], debug=False) == 0
    assert "adaptations     40       40" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in finished[0].rglob("*.csv")}.items() <= before.items()


@pytest.mark.parametrize("name", ["paper-main", "paper-gpt2"])
def test_a_dry_run_needs_no_weights_and_no_data(name, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert cli._main(["run", str(ROOT / "studies" / f"{name}.yaml"), "--dry-run"], debug=False) == 0
    printed = capfd.readouterr()
    assert not printed.err
    assert re.search(r"adaptations +[\d,]+ +0 *\n", printed.out)
    assert re.search(r"tokens to process: about [\d.]+e\+\d\d\n", printed.out)
    assert "planned from the settings alone, with tasks of usual size (backbone" in printed.out
    assert not list(tmp_path.iterdir())


def test_tasks_that_the_gym_does_not_have_are_refused_and_not_planned_around(world, tmp_path, capsys):
    arguments = command(world, tmp_path / "new", "--dry-run", "--set", "setting.target=[toy-e]")[1:]
    assert cli._main(arguments, debug=False) == 1
    assert "names tasks that gym" in capsys.readouterr().err
