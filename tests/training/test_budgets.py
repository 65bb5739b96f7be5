"""The work of an outer step: what algorithms declare is what they do, and everything that plans reads it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from helpers.episodes import SMALL, episodes
from helpers.models import prompts
from softstart.algorithms import (
    ANIL,
    IMAML,
    MAML,
    THETA,
    FoMAML,
    MetaSGD,
    MultiTask,
    Reptile,
    StepWork,
    further,
    meta_gradients,
    work_of,
)
from softstart.study.plan.plan import MetaNode
from softstart.training.budgets import MetaBudget, step_cost
from softstart.training.configs import MetaConfig
from softstart.training.methods import Method
from softstart.training.objective import PromptObjective
from softstart.training.spot import SPoT

MIXTURES = ("multitask", "spot")


class Counting(PromptObjective):
    """Notes where gradients and Hessian-vector products were asked for."""

    def __post_init__(self):
        super().__post_init__()
        self.gradients, self.products = [], []

    def gradient(self, prompts, batch):
        self.gradients.append((prompts, batch))
        return super().gradient(prompts, batch)

    def hvp(self, prompts, batch, vectors):
        self.products.append((prompts, batch))
        return super().hvp(prompts, batch, vectors)


@pytest.mark.parametrize("name", [name for name in SMALL if name not in MIXTURES])
@pytest.mark.parametrize("steps", [1, 3])
def test_an_algorithm_computes_what_it_declares(t5, name, steps):
    algorithm, loss = replace(SMALL[name], inner_steps=steps), Counting(t5)
    theta, meta_batch = prompts(t5)[0], episodes(steps)
    values = {THETA: theta, **further(algorithm, theta)}
    meta_gradients(algorithm, loss, values, meta_batch)
    taken = [(phi, batch) for phi, batch in loss.gradients if batch is not meta_batch.query]
    keepable = sum(any(p is phi and b is batch for p, b in taken) for phi, batch in loss.products)
    assert work_of(algorithm) == StepWork(len(taken), len(loss.products), keepable)
    assert len(loss.gradients) - len(taken) == (name != "reptile")


@dataclass(frozen=True)
class Outside:
    """An algorithm that declares nothing about its work."""

    inner_steps: int = 5
    support_size: int = 4
    query_size: int = 4
    data = "episodes"

    def meta_gradient(self, loss, theta, episodes):
        return torch.zeros_like(theta), {"query": 0.0}


SECOND = {"inner_steps": 5, "support_size": 4, "query_size": 4}


@pytest.mark.parametrize(
    ("algorithm", "kept", "again"),
    [
        (FoMAML(**SECOND), 5 * 4 + 4, 5 * 4 + 4),
        (Reptile(**{**SECOND, "query_size": 0}), 5 * 4, 5 * 4),
        (MAML(**SECOND), 5 * 4 * 2.5 + 4, 5 * 4 * 3.5 + 4),
        (ANIL(**SECOND), 5 * 4 * 2.5 + 4, 5 * 4 * 3.5 + 4),
        (MetaSGD(**SECOND), 5 * 4 * 2.5 + 4, 5 * 4 * 3.5 + 4),
        (IMAML(**SECOND, iterations=3), 5 * 4 + 3 * 4 * 2.5 + 4, 5 * 4 + 3 * 4 * 2.5 + 4),
        (Outside(), 5 * 4 + 4, 5 * 4 + 4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_cost_of_a_step_counts_hessian_vector_products(algorithm, kept, again):
    assert step_cost(algorithm, 2, 2.5) == 2 * kept
    assert step_cost(algorithm, 2, 2.5, recomputed=True) == 2 * again
    budget = MetaBudget(meta_batch=2, gradients=100_000)
    steps = budget.resolved(algorithm, 45, 225, 56_009, 2.5).steps
    assert abs(steps * 2 * kept - 100_000) <= kept


def node(algorithm, source=("a", "b")):
    return MetaNode("k", "main", "x", Method("m", "m", algorithm, MetaConfig(steps=100)), 1, source)


def test_a_plan_prices_every_second_order_method_as_one():
    maml = node(MAML(**SECOND)).cost
    assert maml == 100 * 2 * (5 * 4 * (1 + 2.1) + 4)
    assert node(ANIL(**SECOND)).cost == node(MetaSGD(**SECOND)).cost == maml
    assert node(IMAML(**SECOND, iterations=5)).cost == maml
    assert node(FoMAML(**SECOND)).cost == node(Outside()).cost < maml / 2
    assert node(MultiTask(query_size=4)).cost == 100 * 4
    assert node(SPoT(query_size=4), source=("a", "b", "c")).cost == 100 * 3 * 4
