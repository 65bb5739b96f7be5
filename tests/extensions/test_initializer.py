"""An initializer from outside of the package: one object; studies and commands name its import path."""

from __future__ import annotations

import sys

import pytest
import torch

from helpers.models import random_t5, toy_task
from helpers.toy_study import SOFTSTART, call, make_world, toy
from softstart.errors import SoftstartError
from softstart.prompt import INITIALIZERS, SoftPrompt, usages
from softstart.study import run_study
from softstart.training.configs import PromptSpec
from softstart.training.starts import draw_start
from softstart.yourtasks.starts import is_named, named_start

MODULE = '''
from softstart.prompt import NamedInitializer, gaussian


def label_noise(given):
    """Every label's first token once, then noise that is a tenth of PEFT's."""
    ids = [row[0] for row in given.tokens(given.labels)]

    def draw(length, generator):
        start = gaussian(given.backbone.width, std=0.1)(length, generator)
        start[: len(ids)] = given.table[ids][:length]
        return start

    return draw


quiet = NamedInitializer(label_noise, "labels, then a little noise", needs="labels")
scaled = NamedInitializer(lambda given: gaussian(given.backbone.width, float(given.text)), "noise", "text")
'''
QUIET = "outside_initializer.quiet"


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A module that is not in the package, as a user's own on PYTHONPATH."""
    (tmp_path / "outside_initializer.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    yield
    sys.modules.pop("outside_initializer", None)


def test_a_study_runs_from_it_to_the_report(outside, tmp_path):
    world = make_world(tmp_path)
    study = toy(
        world, methods={"pt": {}, "maml": {"inner_lr": 0.1}}, samples=[13], learning_rates=[1e-9],
        prompt={"length": 4, "init": QUIET}, meta={"steps": 1, "lr": 1e-9},
    )  # fmt: skip
    outcome = run_study(study, tmp_path / "out", device="cpu")
    assert (outcome.failures, outcome.missing) == ([], 0)
    assert (tmp_path / "out" / "report.html").exists()
    table = random_t5(torch.float32).vocabulary
    for file in (tmp_path / "out" / "prompts").iterdir():
        assert torch.allclose(SoftPrompt.load(file).tensor[:2], table[[3, 4]], atol=1e-5)  # labels w3 and w4


def test_a_command_takes_it_as_its_start(outside, tmp_path):
    rows = "".join(f"w{10 + i} w5,w{3 + i % 2}\n" for i in range(12))
    (tmp_path / "mine.csv").write_text("text,label\n" + rows)
    tuned = call(
        SOFTSTART, "adapt", "--init", QUIET, "--train", tmp_path / "mine.csv", "--input", "{text}",
        "--steps", "1", "--lr", "1e-9", "--splits", "1", "--length", "3", "--device", "cpu",
        "--out", tmp_path / "tuned",
    )  # fmt: skip
    assert tuned.returncode == 0, tuned.stderr
    assert SoftPrompt.load(tmp_path / "tuned").tensor[2].std() < 0.2


def test_it_states_what_it_needs_and_takes_values(outside):
    backbone = random_t5(torch.float32)
    with pytest.raises(SoftstartError, match="there are no labels to start from"):
        draw_start(backbone, PromptSpec(length=3, init=QUIET), [], 1)
    noise = named_start(backbone, "outside_initializer.scaled:0.001", [toy_task("toy")], length=50).tensor
    assert 0 < noise.std() < 0.002
    with pytest.raises(SoftstartError, match=r"needs a value.*scaled:WORDS"):
        is_named("outside_initializer.scaled")


def test_it_can_be_registered_under_a_name(outside, monkeypatch):
    monkeypatch.setattr(INITIALIZERS, "_entries", dict(INITIALIZERS))
    INITIALIZERS.add("quiet", INITIALIZERS.find(QUIET))
    assert "quiet" in usages()
    start = draw_start(random_t5(), PromptSpec(length=3, init="quiet"), [toy_task("toy")], 1)
    assert start[2].std() < 0.2


@pytest.mark.parametrize(("init", "message"), [
    ("frequent", "prompt.init: unknown initializer 'frequent'"),
    ("average:prompts", "prompt.init: 'average:prompts' reads prompts from files"),
    ("text", "prompt.init: initializer 'text' needs a value. Write text:WORDS"),
    ("gaussian:2", "prompt.init: initializer 'gaussian' takes no value"),
])  # fmt: skip
def test_a_study_refuses_what_it_cannot_start_from(tmp_path, init, message):
    with pytest.raises(SoftstartError, match=message):
        toy(tmp_path, prompt={"length": 4, "init": init})
