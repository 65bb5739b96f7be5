"""One way in to every kind of gym."""

import pytest

from helpers.gym_cli import gym
from softstart.errors import SoftstartError
from softstart.gym import load_task, open_gym


def test_every_kind_of_gym_has_one_interface(tmp_path):
    rows = "".join(f'"text {i}",{"good" if i % 3 else "bad"}\n' for i in range(180))
    (tmp_path / "mine.csv").write_text("input,output\n" + rows)
    gym("sample", "mine.csv", cwd=tmp_path)
    for spec in (None, tmp_path / "gym", tmp_path / "mine.csv"):
        opened = open_gym(spec)
        task = opened.load(opened.tasks()[0])
        assert task.test
        assert task.samples[13].train
        assert len(task.digest) == 64
        assert opened.version == (1 if spec is None else None)
    hub = open_gym("hub")
    assert len(hub.tasks()) == 160
    assert hub.version is None


def test_a_task_is_found_by_its_name_or_its_file(tmp_path):
    first = open_gym().tasks()[0]
    assert load_task(first).name == first
    (tmp_path / "mine.csv").write_text("input,output\n" + "".join(f"text {i},{i}\n" for i in range(90)))
    assert load_task(tmp_path / "mine.csv").name == "mine"


def test_only_the_mini_gym_has_versions(tmp_path):
    assert open_gym("mini", version=1).tasks() == open_gym().tasks()
    for spec in ("hub", tmp_path, "mine.csv"):
        with pytest.raises(SoftstartError, match=r"gym '.*' has no versions. Only the mini gym has"):
            open_gym(spec, version=1)
