"""Where prompts start: as published, and how often a start is drawn."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch

from helpers.models import random_t5, toy_encoded, toy_task
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


def test_demonstrations_are_the_embeddings_of_the_samples_own_rows_in_an_order_that_is_drawn():
    backbone = random_t5(torch.float32)
    task, table = toy_encoded(backbone), backbone.vocabulary
    rows = {
        sample: [[*text, *answers[0], 1] for text, answers in zip(of.inputs, of.outputs, strict=True)]
        for sample, of in task.train.items()
    }

    def tokens(start):
        return [(table - row).abs().sum(1).argmin().item() for row in start]

    def leading(ids, known):
        """The rows that the ids begin with, the last one cut."""
        found = []
        while ids:
            row = next(row for row in known if row[: len(ids)] == ids[: len(row)])
            found.append(row)
            ids = ids[len(row) :]
        return found

    for sample in (13, 21):
        orders = set()
        for seed in range(3):
            spec = PromptSpec(length=25, init="demonstrations", draw_per="seed")
            start = draw_start(backbone, spec, [task], seed, sample)
            found = leading(tokens(start), rows[sample])
            assert len(found) >= 2
            orders.add(tuple(map(tuple, found)))
        assert len(orders) == 3
    everything = sum(map(len, rows[13]))
    spec = PromptSpec(length=everything + 2, init="demonstrations")
    start = draw_start(backbone, spec, [task], 0, 13)
    assert sorted(tokens(start[:everything])) == sorted(token for row in rows[13] for token in row)
    # A start of meta-training begins with rows of every source task and sample.
    learned = draw_start(backbone, PromptSpec(length=4, init="demonstrations"), [task, task], 0)
    assert leading(tokens(learned), rows[13] + rows[21])
