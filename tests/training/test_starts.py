"""Where prompts start: as published, and how often a start is drawn."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch

from helpers.models import random_t5, toy_task
from helpers.shared import SHARED
from softstart.errors import SoftstartError
from softstart.training.configs import PromptSpec
from softstart.training.starts import c4_tokens, draw_start, published_tokens


@pytest.mark.skipif(SHARED is None, reason="shared/paper is not here")
def test_the_published_start_is_found_again():
    known = json.loads((SHARED / "paper" / "init_check.json").read_text())
    assert published_tokens(5000, known["n"], known["seed"], 0) == known["token_ids"]
    counts = pd.read_csv(SHARED / "paper" / "c4_token_frequency.csv").sort_values(
        "count", ascending=False, kind="stable"
    )
    assert c4_tokens(5000) == [i for i in counts["token_id"] if i != 2][:5000]
    with pytest.raises(SoftstartError, match=r"Lower prompt\.top"):
        c4_tokens(5001)


def test_starts_are_drawn_anew_for_seeds_samples_or_runs():
    backbone, tasks = random_t5(torch.float32), [toy_task("w3")]

    def start(draw_per, *key, draw=0):
        return draw_start(backbone, PromptSpec(length=3, draw_per=draw_per), tasks, *key, draw=draw)

    assert torch.equal(start("seed", 42, 13), start("seed", 42))  # a run's, and that of meta-training
    assert torch.equal(start("seed", 42, 13), start("seed", 42, 21))
    assert not torch.equal(start("sample", 42, 13), start("sample", 42, 21))
    assert torch.equal(start("sample", 42, 13, draw=1), start("sample", 42, 13, draw=2))
    assert not torch.equal(start("run", 42, 13, draw=1), start("run", 42, 13, draw=2))
    with pytest.raises(SoftstartError, match="does not have T5's vocabulary"):
        draw_start(backbone, PromptSpec(length=3, frequent="c4"), tasks, 42)
