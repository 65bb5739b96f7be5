"""Demonstrations: what is read, in which order, and how much of it fits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given as such_that
from hypothesis import strategies as st

from helpers.families import random_backbone
from helpers.models import random_t5, toy_encoded
from softstart.errors import SoftstartError
from softstart.training.baselines.base import Given
from softstart.training.baselines.in_context import InContext
from softstart.training.baselines.zero_shot import ZeroShot
from softstart.training.evaluation import Evaluation, Job, assess, no_prompt

HOW = Evaluation(scoring="rank")


@pytest.fixture(scope="module")
def of_t5():
    backbone = random_t5(torch.float32)
    return Given(backbone, toy_encoded(backbone), 13, 0.0, 42, HOW)


@pytest.fixture(scope="module")
def of_gpt2():
    backbone = random_backbone("gpt2", torch.float32)
    return Given(backbone, toy_encoded(backbone), 13, 0.0, 42, HOW)


def demonstrations(given, ids):
    """The (text, answer) pairs that a row begins with: the end token stands between them here."""
    rows = given.task.train[13]
    known = {
        (*text, *(token for token in answers[0] if token != 1), 1): i
        for i, (text, answers) in enumerate(zip(rows.inputs, rows.outputs, strict=True))
    }
    found, rest = [], tuple(ids)
    while match := next((part for part in known if rest[: len(part)] == part), None):
        found.append(known[match])
        rest = rest[len(match) :]
    return found, list(rest)


def test_a_row_begins_with_whole_train_rows_and_ends_with_its_text(of_t5, of_gpt2):
    for given in (of_t5, of_gpt2):
        orders = set()
        for draw in range(3):
            shown = InContext().demonstrated(given, draw)
            assert shown.train is given.task.train
            for before, after in zip(given.task.test.inputs, shown.test.inputs, strict=True):
                found, rest = demonstrations(given, after)
                assert rest == before
                assert len(set(found)) == len(found)
                orders.add(tuple(found[:3]))
        assert len(orders) == 3  # one order a draw
        again = InContext().demonstrated(given, 1).test.inputs
        assert again == InContext().demonstrated(given, 1).test.inputs
        other = replace(given, seed=43)
        assert again != InContext().demonstrated(other, 1).test.inputs


def test_as_many_are_read_as_the_window_holds_with_the_output(of_gpt2):
    window, new = of_gpt2.backbone.window, of_gpt2.task.max_new_tokens
    rows = of_gpt2.task.train[13]
    longest = max(map(len, rows.inputs)) + 3
    for ids in InContext().demonstrated(of_gpt2, 0).test.inputs:
        assert window - new - longest < len(ids) <= window - new
    few = InContext(demonstrations=2).demonstrated(of_gpt2, 0)
    assert {len(demonstrations(of_gpt2, ids)[0]) for ids in few.test.inputs} == {2}


@such_that(st.integers(10, 60), st.integers(0, 9))
def test_a_bound_on_tokens_holds(of_t5, bound, draw):
    for part in (InContext(most_tokens=bound).demonstrated(of_t5, draw).dev[13],):
        assert all(len(ids) <= bound for ids in part.inputs)


def test_a_text_that_leaves_no_room_is_refused(of_t5):
    with pytest.raises(SoftstartError, match="leaves no room for an output within 2"):
        InContext(most_tokens=2).demonstrated(of_t5, 0)


def test_scores_are_means_over_the_draws(of_t5):
    tests = {}
    learned = InContext(draws=2).run(of_t5, lambda step, score: tests.setdefault(step, score()))
    parts = [InContext().demonstrated(of_t5, draw) for draw in range(2)]
    nothing = no_prompt(of_t5.backbone)
    each = [assess(of_t5.backbone, nothing, [Job(0, part, part.test)], HOW)[0] for part in parts]
    assert tests[0].score == sum(test.score for test in each) / 2
    assert (learned.trained, learned.steps, learned.flops) == (0, 0, 0.0)
    rows = of_t5.task.train[13]
    tokens = sum(len(text) + len(out[0]) for text, out in zip(rows.inputs, rows.outputs, strict=True))
    assert learned.stored == 4 * (tokens + len(rows))  # an end token each


def test_zero_shot_is_the_backbone_without_a_prompt_under_its_own_scoring(of_t5):
    tests = {}
    generated = replace(of_t5, evaluation=Evaluation())
    learned = ZeroShot(scoring="rank").run(generated, lambda step, score: tests.setdefault(step, score()))
    task, nothing = of_t5.task, no_prompt(of_t5.backbone)
    jobs = [Job(0, task, task.test), Job(0, task, task.dev[13])]
    test, dev = assess(of_t5.backbone, nothing, jobs, HOW)
    assert (tests, learned.dev) == ({0: test}, dev.score)
    assert ZeroShot().predicts_with(HOW) is HOW
