"""Features are transformers' hidden states, the classifier is scikit-learn's logistic regression."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from helpers.families import random_backbone
from helpers.models import PLAIN, random_batch, random_t5, toy_task
from softstart.training.baselines.base import Given
from softstart.training.baselines.features import FrozenFeatures, Scaler, logistic_regression
from softstart.training.encoding import encode_task
from softstart.training.evaluation import Evaluation

LENGTHS = [(5, 1, 0), (2, 1, 0), (9, 1, 0)]


def test_features_are_the_mean_hidden_states_of_transformers(t5):
    batch = random_batch(LENGTHS)
    causal = random_backbone("gpt2")
    for backbone, stack in ((t5, t5.model.encoder), (causal, causal.model.transformer)):
        together = backbone.features(batch)
        assert torch.allclose(backbone.features(batch, max_tokens=5), together, rtol=0, atol=1e-12)
        for row, (length, _, _) in enumerate(LENGTHS):
            ids = batch.input_ids[row : row + 1, :length]
            with torch.no_grad():
                alone = stack(input_ids=ids).last_hidden_state.mean(1)
            assert torch.allclose(together[row], alone[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("strength", [0.1, 1.0, 10.0])
def test_the_classifier_is_that_of_scikit_learn(classes, strength):
    generator = torch.Generator().manual_seed(classes)
    features = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    target = torch.arange(40) % classes
    features[:, 0] += target
    found = logistic_regression(features, target, classes, strength)
    reference = LogisticRegression(C=strength, tol=1e-12, max_iter=10_000)
    if classes == 2:  # scikit-learn has one vector for two classes: ours are its halves, of half the penalty
        reference.C = 2 * strength
    reference.fit(features.numpy(), target.numpy())
    weight, bias = (torch.tensor(part) for part in (reference.coef_, reference.intercept_))
    if classes == 2:
        assert torch.allclose(found.weight[1] - found.weight[0], weight[0], rtol=0, atol=1e-5)
        assert torch.allclose(found.bias[1] - found.bias[0], bias[0], rtol=0, atol=1e-5)
    else:
        assert torch.allclose(found.weight, weight, rtol=0, atol=1e-5)
        assert torch.allclose(found.bias - found.bias.mean(), bias - bias.mean(), rtol=0, atol=1e-5)


def test_a_constant_feature_is_left_at_zero():
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert Scaler.of(features)(features).tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_a_run_learns_a_task_whose_label_is_a_feature():
    backbone = random_t5(torch.float32)
    task, tests = encode_task(_of_eight_words(toy_task("toy", rows=16)), backbone, PLAIN), {}
    given = Given(backbone, task, 13, 0.0, 0, Evaluation(scoring="rank"))
    learned = FrozenFeatures().run(given, lambda step, score: tests.setdefault(step, score()))
    assert (learned.dev, tests[0].score) == (1.0, 1.0)
    assert learned.curve == [(0, learned.dev, pytest.approx(float("nan"), nan_ok=True))]
    assert learned.trained == 2 * (backbone.width + 1)
    assert learned.flops > 0


def _of_eight_words(task):
    """One word, of four for each label: features of any network tell them apart."""

    def short(rows):
        return tuple(
            replace(row, input=f"w{4 * int(row.outputs[0][1:]) + i // 2 % 4}") for i, row in enumerate(rows)
        )

    samples = {
        seed: replace(sample, train=short(sample.train), dev=short(sample.dev))
        for seed, sample in task.samples.items()
    }
    return replace(task, samples=samples, test=short(task.test))
