"""Predictions of many prompts at once are those of each alone; scorings and bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from helpers.models import PLAIN, prompts, toy_encoded, toy_task
from softstart.backbone import Decoding, collate
from softstart.gym.metrics import score
from softstart.training.encoding import CONTENT_FREE, encode_task
from softstart.training.evaluation import SCORINGS, Evaluation, Job, evaluate, predict

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


LABELS = ("w3", "w4 w5 w6")


def likelihood(backbone, prompt, text, label):
    """Log-likelihood of a label by the plain loss of one row, and the tokens of the label."""
    texts = backbone.tokenizer([text]).input_ids
    sums, counts = backbone.nll(prompt[None], collate(texts, [label], [0], pad=0))
    return -float(sums[0]), int(counts[0])


@pytest.mark.parametrize("name", ["rank", "rank_per_token", "rank_calibrated"])
def test_labels_are_ranked_by_the_value_of_the_scoring(t5, name):
    task = toy_task("toy", labels=LABELS)
    encoded, stack = encode_task(task, t5, PLAIN), prompts(t5, runs=2)
    jobs = [Job(r, encoded, encoded.test) for r in range(2)]
    way, how, ids = SCORINGS[name], Evaluation(scoring=name, max_tokens=60), encoded.label_ids
    assert [len(label) for label in ids] == [1, 3]
    for r, found in enumerate(way.values(t5, stack, jobs, how)):
        for row, example in zip(found, task.test, strict=True):
            pairs = [likelihood(t5, stack[r], example.input, label) for label in ids]
            if name == "rank_per_token":
                expected = torch.tensor([value / count for value, count in pairs], dtype=torch.float64)
            else:
                expected = torch.tensor([value for value, _ in pairs], dtype=torch.float64)
            if name == "rank_calibrated":
                # Zhao et al. (2021): W = diag(p_cf)^-1, b = 0, and q is normalized to sum to 1.
                shares = []
                for text in CONTENT_FREE[:2]:  # the third is empty: this tokenizer makes no token of it
                    values = [likelihood(t5, stack[r], text, label)[0] for label in ids]
                    shares.append(torch.tensor(values, dtype=torch.float64).softmax(0))
                weighted = torch.softmax(expected, 0) / torch.stack(shares).mean(0)
                assert torch.allclose(torch.softmax(row.double(), 0), weighted / weighted.sum(), atol=1e-5)
            else:
                assert torch.allclose(row.double(), expected, atol=1e-5)
    texts = predict(t5, stack, jobs, how)
    values = way.values(t5, stack, jobs, how)
    assert texts == [[LABELS[int(i)] for i in found.argmax(1)] for found in values]


def test_scorings_that_rank_generate_where_there_are_no_labels(t5):
    free = replace(toy_encoded(t5), labels=(), label_ids=[])
    jobs, stack = [Job(0, free, free.test)], prompts(t5, scale=3.0)
    for name, way in SCORINGS.items():
        if way.ranks:
            assert predict(t5, stack, jobs, Evaluation(scoring=name)) == predict(
                t5, stack, jobs, Evaluation()
            )
