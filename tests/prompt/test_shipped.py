"""The learned starts that the package brings along."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.own_tables import softstart, write_rows
from softstart.backbone import load_backbone
from softstart.errors import SoftstartError
from softstart.gym.task import Example
from softstart.prompt import SoftPrompt
from softstart.prompt.shipped import GAINED, shipped_starts


def adapted_from(init: str, folder: Path) -> str:
    """What ``adapt`` says of a few rows tuned from a start; the prompt is in ``tuned``."""
    rows = [Example(f"the film was {word}", (label,)) for word, label in [("good", "yes"), ("bad", "no")] * 6]
    write_rows(folder / "mine.csv", rows)
    code, said, problem = softstart(
        "adapt", "--init", init, "--train", "mine.csv", "--steps", 2, "--splits", 1, "--lr", 0.3,
        "--out", "tuned", cwd=folder,
    )  # fmt: skip
    assert code == 0, problem
    return said


@pytest.mark.parametrize("name", sorted(shipped_starts()))
def test_a_shipped_start_says_what_it_is_and_what_it_gained(name):
    prompt = SoftPrompt.from_pretrained(name)
    gained = prompt.info[GAINED]
    assert gained["low"] < gained["points"] < gained["high"]
    assert min(gained[of] for of in ("tasks", "samples", "seeds", "steps")) > 0
    assert prompt.info["source"]
    assert f"license: {prompt.info['license']!r}".replace("'", '"') in prompt.model_card()
    if prompt.backbone == "softstart/tiny":
        prompt.check_for(load_backbone("softstart/tiny"), name)


def test_an_unknown_name_is_one_line_with_the_nearest():
    with pytest.raises(SoftstartError, match="Did you mean softstart/tiny-mini"):
        SoftPrompt.from_pretrained("softstart/tiny-minni")


def test_starts_are_listed_and_begin_an_adaptation(tmp_path):
    code, listed, _ = softstart("starts", cwd=tmp_path)
    assert code == 0
    assert re.search(r"softstart/tiny-mini +softstart/tiny +20 +prefix +multitask +58 tasks", listed)
    assert "learned start" in adapted_from("softstart/tiny-mini", tmp_path)


def test_texts_are_read_as_the_start_was_learned(tmp_path):
    template = "{input}\nAnswer:"
    start = SoftPrompt.from_pretrained("softstart/tiny-mini")
    replace(start, info=start.info | {"template": template}).save(tmp_path / "start.safetensors")
    adapted_from("start.safetensors", tmp_path)
    assert SoftPrompt.from_pretrained(str(tmp_path / "tuned")).info["template"] == template
