"""Prompt tuning on the embedded backbone really works, and so does what is learned for it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from helpers.models import PLAIN
from softstart.algorithms import MultiTask
from softstart.backbone import TINY, Decoding, load_backbone
from softstart.gym.metrics import score
from softstart.gym.mini import MiniGym, mini_settings
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig, MetaConfig, PromptSpec
from softstart.training.encoding import encode_task
from softstart.training.evaluation import Evaluation, Job, evaluate
from softstart.training.meta_training import meta_train
from softstart.training.starts import draw_start

HOW = Evaluation(Decoding(max_new_tokens=16))
TARGETS = sorted({t for setting in mini_settings().values() for t in setting.target})


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(TINY, device="cpu")


def chance(task):
    """The best score of a constant answer or, for classes, of guessing: what needs no input."""
    answers = Counter(answer for e in task.test for answer in e.outputs)
    constant = max(
        score(task.metric, [answer] * len(task.test), [e.outputs for e in task.test]) for answer in answers
    )
    return max(constant, 1 / len(task.labels) if task.labels else 0.0)


@pytest.mark.slow
def test_prompt_tuning_beats_chance_with_a_margin_on_most_targets(backbone):
    gym = MiniGym()
    tasks = {name: gym.load(name) for name in TARGETS}
    encoded = {name: encode_task(task, backbone, PLAIN) for name, task in tasks.items()}
    runs = [
        AdaptRun(draw_start(backbone, PromptSpec(length=20), [encoded[name]], 0, 13), encoded[name], 13, 0.3)
        for name in TARGETS
    ]
    digest = backbone.digest
    results = adapt(backbone, runs, AdaptConfig(steps=100, eval_every=25, max_tokens=4096), HOW)
    jobs = [Job(i, encoded[name], encoded[name].test) for i, name in enumerate(TARGETS)]
    scores = evaluate(backbone, torch.stack([r.prompt for r in results]), jobs, HOW)
    margins = {name: s - chance(tasks[name]) for name, s in zip(TARGETS, scores, strict=True)}
    print({name: round(margin, 2) for name, margin in margins.items()})
    above = [name for name, margin in margins.items() if margin > 0.15]
    assert len(above) >= 0.6 * len(TARGETS), margins
    del backbone.__dict__["digest"]
    assert backbone.digest == digest


def test_meta_training_lowers_the_loss_of_its_sources(backbone):
    gym = MiniGym()
    names = mini_settings()["mini-random"].source[:8]
    tasks = [encode_task(gym.load(name), backbone, PLAIN) for name in names]
    start = draw_start(backbone, PromptSpec(length=20), tasks, 1)
    curve = meta_train(
        backbone, MultiTask(query_size=16), tasks, start, MetaConfig(steps=40, lr=0.3), samples=[13]
    ).curve
    first, last = (sum(p["query"] for p in part) / 5 for part in (curve[:5], curve[-5:]))
    assert last < 0.7 * first
