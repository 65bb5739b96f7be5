"""Full fine-tuning learns, keeps its best weights and leaves the backbone alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from helpers.models import random_t5, toy_encoded
from softstart.training.configs import FineTuneConfig
from softstart.training.evaluation import Evaluation, Job, evaluate
from softstart.training.finetuning import finetune, score_finetuned

# Ranking label words: a random network scores between 0 and 1 with it, while it never writes a label freely.
HOW = Evaluation(scoring="rank")


def test_fine_tuning_learns_copies_its_best_weights_and_leaves_the_backbone_alone():
    backbone = random_t5(torch.float32)
    digest, task = backbone.digest, toy_encoded(backbone)
    settings = FineTuneConfig(steps=40, batch_size=8, eval_every=10)
    result = finetune(backbone, task, 13, 3e-2, settings, HOW)
    assert result.curve[-1][2] < 0.3 * result.curve[0][2]
    assert result.dev == max(dev for _, dev, _ in result.curve)
    del backbone.__dict__["digest"]
    assert backbone.digest == digest
    assert not any(p.requires_grad for p in backbone.model.parameters())
    model = backbone.trainable_copy()
    model.model.load_state_dict(result.weights)
    (test,) = score_finetuned(backbone, [result], task, HOW)
    empty = torch.zeros(1, 0, backbone.width)
    assert evaluate(model, empty, [Job(0, task, task.test)], HOW) == [test.score]
    assert test.companions["outside"] == 0.0  # ranked answers are label words
    assert test.companions["accuracy"] == test.score  # its metric
    assert evaluate(model, empty, [Job(0, task, task.dev[13])], HOW) == [result.dev]
    tests = []

    def test(now, twin):
        pair = [score_finetuned(backbone, [now], task, HOW, where) for where in (twin, None)]
        tests.append((now.steps - now.best_step, *pair))

    settings = replace(settings, budgets=(10, 20, 30))
    again = finetune(backbone, task, 13, 3e-2, settings, HOW, at_budget=test)
    assert all(there == alone for _, there, alone in tests)
    assert max(since for since, *_ in tests) > 0  # weights that are not those in training
    assert again.curve == result.curve
    assert all(torch.equal(again.weights[name], tensor) for name, tensor in result.weights.items())


def test_fine_tuning_ends_with_its_epochs_and_averages_parts():
    backbone = random_t5(torch.float32)
    task = toy_encoded(backbone)
    settings = FineTuneConfig(steps=40, batch_size=8, eval_every=10, epochs=3, reshuffle=False)
    ticks = []
    result = finetune(backbone, task, 13, 3e-2, settings, HOW, progress=lambda n, note="": ticks.append(n))
    assert (result.steps, result.status, sum(ticks)) == (3, "done", 40)
    assert [point[0] for point in result.curve] == [3]
    parts = finetune(backbone, task, 13, 3e-2, replace(settings, batch_parts=2), HOW)
    # Every output is two tokens long, so the mean of means is the mean.
    assert parts.curve[0][2] == pytest.approx(result.curve[0][2], rel=1e-4)
