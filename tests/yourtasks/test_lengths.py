"""Inputs that are too long are cut and counted, or refused."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from helpers.families import random_backbone
from helpers.own_tables import failed, softstart, table
from softstart import Backbone
from softstart.errors import SoftstartError
from softstart.gym.tables import RawData, whole_task
from softstart.prompt import SoftPrompt
from softstart.training.encoding import TextFormat
from softstart.yourtasks import Predictor, fit_inputs
from softstart.yourtasks.lengths import cut_note


def test_what_is_too_long_is_cut_and_counted_or_refused(tmp_path, folder):
    here, _ = folder
    backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    prompt = SoftPrompt.from_pretrained(here / "tuned")
    rows = [{"input": "good " * n} for n in (3, 30, 40)]
    predictor = Predictor(backbone, prompt, max_input_tokens=10)
    assert len(list(predictor(rows))) == 3
    assert predictor.truncated == 2
    with pytest.raises(SoftstartError, match="more than 10"):
        list(Predictor(backbone, prompt, max_input_tokens=10, strict=True)(rows))
    table(tmp_path / "mine.csv", 40)
    task = whole_task(RawData(str(tmp_path / "mine.csv"), input="{body}"))
    gpt2 = random_backbone("gpt2", torch.float32)
    text, long = fit_inputs(gpt2, 20, task, TextFormat("{input}", 512, 41))
    assert (text.max_input_tokens, long) == (3, 40)
    text = TextFormat("{input}", 512, 41)
    assert cut_note(gpt2, 20, [task], text) == "inputs longer than 3 tokens are cut at their end: mine (40)"
    many = cut_note(gpt2, 20, [replace(task, name=f"t{i}") for i in range(7)], text)
    assert many.endswith("t3 (40), t4 (40) and 2 more tasks")
    assert cut_note(backbone, 20, [task], text) == ""
    with pytest.raises(SoftstartError, match="leaves no room for text: 'gpt2' reads at most 64"):
        fit_inputs(gpt2, 64, task, TextFormat("{input}", 512, 41))


def test_the_commands_count_what_they_cut_or_refuse_it(folder, tmp_path):
    here, _ = folder
    given = (
        "predict",
        here / "tuned",
        "--rows",
        here / "more.csv",
        "--out",
        "out.csv",
        "--max-input-tokens",
        3,
    )
    code, _, err = softstart(*given, cwd=tmp_path)
    assert (code, err.strip()) == (0, "warning: 20 inputs are longer than 3 tokens and were cut")
    (tmp_path / "out.csv").unlink()
    assert "more than 3" in failed(*given, "--strict", cwd=tmp_path)
    assert not (tmp_path / "out.csv").exists()
    tuning = ("adapt", "--train", here / "mine.csv", "--input", "{body}", "--max-input-tokens", 2, "--strict")
    assert "48 inputs are longer than 2 tokens" in failed(*tuning, cwd=tmp_path)
    scoring = ("evaluate", here / "tuned", "--rows", here / "more.csv", "--max-input-tokens", 3)
    code, shown, err = softstart(*scoring, cwd=tmp_path)
    assert (code, err.strip()) == (0, "warning: 20 inputs are longer than 3 tokens and were cut")
    assert re.match(r"Classification-F1 [\d.]+ on 20 rows", shown)
