"""A classifier on frozen features: logistic regression on the backbone's mean hidden state.

The cheap way to use a frozen model: one forward pass over the rows, then a convex problem (the head of
SetFit, Tunstall et al., 2022, without its contrastive training of the encoder). The problem is that of
scikit-learn's ``LogisticRegression``, which tests compare with; torch solves it, so nothing more has to be
installed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from softstart.errors import SoftstartError
from softstart.training.baselines.base import Given, Learned, Test, Unpacked
from softstart.training.encoding import Rows
from softstart.training.evaluation import Assessment, assess_values, text_batch


@dataclass(frozen=True)
class FrozenFeatures(Unpacked):
    """Classes are the answers of the train rows; the strength of the penalty is chosen on dev rows."""

    label: ClassVar[str] = "Features"
    color: ClassVar[str | None] = "#0089da"
    trains: ClassVar[str] = "a linear classifier"
    work: ClassVar[str] = "feature classifier"
    seeded: ClassVar[bool] = False
    inverse_strengths: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    """Scikit-learn's C: the weight of the loss against the penalty. The first of equals is chosen."""

    def run(self, given: Given, test: Test) -> Learned:
        """Fit, choose on dev, test."""
        task = given.task
        train, dev = task.train[given.sample], task.dev[given.sample]
        taught = train.trainable
        if not taught:
            raise SoftstartError("the train file has no example", where=f"{task.name} {given.sample}")
        answers = [train.references[i][0] for i in taught]
        classes = list(dict.fromkeys(answers))
        seen = _features(given, train)
        target = torch.tensor([classes.index(answer) for answer in answers])
        scaler = Scaler.of(seen[taught])
        given.progress(0.5)

        def scored(head: Linear, rows: Rows, features: Tensor) -> Assessment:
            values = scaler(features) @ head.weight.T + head.bias
            return assess_values(task, classes, values, rows, given.evaluation)

        features, chosen, best = _features(given, dev), None, math.nan
        for strength in self.inverse_strengths:
            head = logistic_regression(scaler(seen[taught]), target, len(classes), strength)
            score = scored(head, dev, features).score
            if chosen is None or score > best or (math.isnan(best) and not math.isnan(score)):
                chosen, best = head, score
        assert chosen is not None
        test(0, lambda: scored(chosen, task.test, _features(given, task.test)))
        given.progress(0.5)
        size = chosen.weight.numel() + chosen.bias.numel()
        learned = Learned(
            dev=best,
            curve=[(0, best, math.nan)],
            trained=size,
            stored=4 * (size + 2 * len(scaler.mean)),
        )
        for rows in (train, dev):
            for ids in rows.inputs:
                flops = given.backbone.row_flops(len(ids), 0).forward
                learned.add(len(ids), flops, len(ids), flops)
        return learned


@dataclass(frozen=True)
class Scaler:
    """Brings every feature to mean 0 and standard deviation 1 on the train rows; a constant one stays 0."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Scaler:
        """Of features [N, d]."""
        std = features.std(0, unbiased=False)
        return cls(features.mean(0), torch.where(std > 0, std, torch.ones_like(std)))

    def __call__(self, features: Tensor) -> Tensor:
        """Features [N, d], scaled."""
        return (features - self.mean) / self.std


@dataclass(frozen=True)
class Linear:
    """Class scores x Wᵀ + b: W [C, d], b [C]."""

    weight: Tensor
    bias: Tensor


def logistic_regression(features: Tensor, target: Tensor, classes: int, inverse_strength: float) -> Linear:
    """Multinomial logistic regression with a squared penalty on the weights, by L-BFGS in float64.

    Minimizes ½ |W|² + C Σ loss; the bias is free, as in scikit-learn.

    Args:
        features: [N, d].
        target: classes [N].
        classes: their number.
        inverse_strength: C.
    """
    x, parameters = features.double(), torch.zeros(classes, features.shape[1] + 1, dtype=torch.float64)
    parameters.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [parameters], max_iter=1000, tolerance_grad=1e-9, tolerance_change=0.0, history_size=20,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        scores = x @ parameters[:, :-1].T + parameters[:, -1]
        losses = torch.nn.functional.cross_entropy(scores, target, reduction="sum")
        total = losses + 0.5 / inverse_strength * parameters[:, :-1].square().sum()
        total.backward()
        return total

    optimizer.step(closure)
    found = parameters.detach()
    return Linear(found[:, :-1], found[:, -1])


def _features(given: Given, rows: Rows) -> Tensor:
    """Mean hidden states [N, d] in float64, on the CPU."""
    batch = text_batch(given.backbone, rows.inputs, [0] * len(rows))
    return given.backbone.features(batch, given.evaluation.max_tokens).cpu().double()
