"""Predictions of many prompts at once are those of each alone; scorings and bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers.models import prompts, toy_encoded
from softstart.backbone import Decoding
from softstart.gym.metrics import score
from softstart.training.evaluation import Evaluation, Job, evaluate, predict

# Ranking label words: a random network scores between 0 and 1 with it, while it never writes a label freely.
HOW = Evaluation(scoring="rank")


@pytest.mark.parametrize("scoring", ["generate", "rank"])
def test_jobs_are_predicted_together_as_alone(t5, scoring):
    evaluation = Evaluation(Decoding(max_new_tokens=5), scoring, max_tokens=60)
    tasks = [toy_encoded(t5), replace(toy_encoded(t5, "long"), max_new_tokens=2)]
    jobs = [Job(r, tasks[r % 2], tasks[r % 2].test) for r in range(4)]
    together = predict(t5, prompts(t5, scale=3.0), jobs, evaluation)
    for job, texts in zip(jobs, together, strict=True):
        assert predict(t5, prompts(t5, scale=3.0), [job], evaluation) == [texts]
    if scoring == "generate":
        assert max(len(t.split()) for t in together[1]) == 2
        assert max(len(t.split()) for t in together[0]) > 2


def test_rank_scoring_answers_with_label_words(t5):
    task = toy_encoded(t5)
    jobs = [Job(r, task, task.test) for r in range(4)]
    for texts in predict(t5, prompts(t5), jobs, Evaluation(scoring="rank", max_tokens=50)):
        assert set(texts) <= set(task.labels)
        assert len(texts) == len(task.test)


@pytest.mark.parametrize("bounded", [True, False])
def test_generation_stops_where_a_task_needs_no_more_if_bounded(t5, bounded):
    task = replace(toy_encoded(t5), max_new_tokens=2)
    evaluation = Evaluation(Decoding(max_new_tokens=6), bounded=bounded)
    (texts,) = predict(t5, prompts(t5, scale=3.0), [Job(0, task, task.test)], evaluation)
    assert (max(len(text.split()) for text in texts) > 2) != bounded


def test_f1_over_gold_labels_decides_on_dev_too(t5):
    task = replace(toy_encoded(t5), metric="Classification-F1")
    stack = prompts(t5, scale=3.0)
    jobs = [Job(r, task, task.test) for r in range(4)]
    scored = {
        labels: evaluate(t5, stack, jobs, Evaluation(Decoding(max_new_tokens=3), f1_labels=labels))
        for labels in ("union", "gold")
    }
    texts = predict(t5, stack, jobs, Evaluation(Decoding(max_new_tokens=3)))
    for labels, scores in scored.items():
        assert scores == [
            score("Classification-F1", t, task.test.references, f1_labels=labels) for t in texts
        ]
