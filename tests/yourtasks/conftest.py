"""Tables, starts and prompts made from them on the command line."""

from __future__ import annotations

import pytest

from helpers.own_tables import softstart, table, write_rows
from softstart import Backbone
from softstart.gym import open_gym
from softstart.gym.mini import mini_settings
from softstart.prompt import SoftPrompt
from softstart.yourtasks import plain_start


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Tables, and a start and a tuned prompt made from them on the command line."""
    here = tmp_path_factory.mktemp("own")
    table(here / "mine.csv", 48)
    table(here / "more.csv", 20, seed=1)
    tiny = Backbone.from_pretrained("softstart/tiny", device="cpu")
    SoftPrompt.of(tiny, plain_start(tiny, 5, seed=7), {"source": ["a", "b"]}).save_pretrained(here / "start")
    options = ("--input", "{title}: {body}", "--steps", 12, "--lr", 0.3, "--device", "cpu")
    done = softstart(
        "adapt", "--init", "start", "--train", "mine.csv", "--test", "more.csv", *options, "--out", "tuned",
        cwd=here,
    )  # fmt: skip
    assert done[0] == 0, done[2]
    return here, done[1]


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Eight source tasks of the mini gym as tables, and tables of a target task they were not made of."""
    here, gym = tmp_path_factory.mktemp("meta"), open_gym("mini")
    names = mini_settings()["mini-random"].source[:8]
    (here / "sources").mkdir()
    for name in names:
        sample = gym.load(name).samples[13]
        write_rows(here / "sources" / f"{name}.csv", (*sample.train, *sample.dev))
    (here / "sources" / "notes.txt").write_text("no table")
    return here, names
