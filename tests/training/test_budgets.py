"""The work of an outer step: what algorithms declare is what they do, and everything that plans reads it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from helpers import toy_study
from helpers.episodes import SMALL, episodes
from helpers.models import prompts, random_batch
from softstart.algorithms import (
    ANIL,
    IMAML,
    MAML,
    THETA,
    Episodes,
    FoMAML,
    MetaSGD,
    MultiTask,
    Reptile,
    StepWork,
    further,
    meta_gradients,
    work_of,
)
from softstart.study.declare.study_file import variants_of
from softstart.study.plan.plan import MetaNode, make_plan
from softstart.training.budgets import MetaBudget, step_cost
from softstart.training.configs import MetaConfig
from softstart.training.methods import Method
from softstart.training.objective import PromptObjective
from softstart.training.spot import SPoT

MIXTURES = ("multitask", "multitask_prompt", "source_mixture", "spot")


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
    ("algorithm", "rows"),
    [
        (FoMAML(**SECOND), 5 * 4 + 4),
        (Reptile(**{**SECOND, "query_size": 0}), 5 * 4),
        (MAML(**SECOND), 4 * 4 + 5 * 4 * 2.5 + 4),
        (ANIL(**SECOND), 4 * 4 + 5 * 4 * 2.5 + 4),
        (MetaSGD(**SECOND), 4 * 4 + 5 * 4 * 2.5 + 4),
        (IMAML(**SECOND, iterations=3), 5 * 4 + 3 * 4 * 2.5 + 4),
        (Outside(), 5 * 4 + 4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_cost_of_a_step_counts_hessian_vector_products(algorithm, rows):
    assert step_cost(algorithm, 2, 2.5) == 2 * rows
    budget = MetaBudget(meta_batch=2, gradients=100_000)
    steps = budget.resolved(algorithm, 45, 225, 56_009, 2.5).steps
    assert abs(steps * 2 * rows - 100_000) <= rows


def node(algorithm, source=("a", "b")):
    return MetaNode("k", "main", "x", Method("m", "m", algorithm, MetaConfig(steps=100)), 1, source)


def test_a_plan_prices_every_second_order_method_as_one():
    maml = node(MAML(**SECOND)).cost
    assert maml == 100 * 2 * (4 * 4 + 5 * 4 * 2.1 + 4)
    assert node(ANIL(**SECOND)).cost == node(MetaSGD(**SECOND)).cost == maml
    # None of its products differentiates a gradient of the inner loop.
    assert node(IMAML(**SECOND, iterations=5)).cost == maml + 100 * 2 * 4
    assert node(FoMAML(**SECOND)).cost == node(Outside()).cost < maml / 2
    assert node(MultiTask(query_size=4)).cost == 100 * 4
    assert node(SPoT(query_size=4), source=("a", "b", "c")).cost == 100 * 3 * 4


@pytest.mark.parametrize("name", ["fomaml", "reptile", "maml", "anil", "metasgd"])
def test_equal_compute_charges_what_is_computed(t5, name):
    """The FLOPs that the objective counts in a step, in gradients of a row of these lengths."""
    algorithm, loss = replace(SMALL[name], inner_steps=3, support_size=2), PromptObjective(t5)
    rows = [(9, 2, task) for task in range(3) for _ in range(2)]
    support, query = [random_batch(rows, seed=k) for k in range(3)], random_batch(rows, seed=3)
    theta = prompts(t5)[0]
    values = {THETA: theta, **further(algorithm, theta)}
    meta_gradients(algorithm, loss, values, Episodes(3, support, query if algorithm.query_size else None))
    row = t5.row_flops(len(theta) + 9, 2)
    charged = step_cost(
        replace(algorithm, query_size=2 * bool(algorithm.query_size)), 3, row.hvp / row.gradient
    )
    assert loss.work.flops == pytest.approx(charged * row.gradient, rel=1e-9)


def test_budgets_become_the_steps_of_equal_work():
    maml, fomaml = MAML(support_size=4, query_size=4), FoMAML()
    reptile, mixture = Reptile(inner_steps=10), MultiTask(query_size=16)
    sizes = (45, 225, 56_009, 2.5)

    def steps(algorithm, **budget):
        return MetaBudget(meta_batch=2, **budget).resolved(algorithm, *sizes).steps

    work = {"multitask": 16, "maml": 2 * (4 * 2.5 + 4), "fomaml": 2 * (4 + 4), "reptile": 2 * 10 * 4}
    for algorithm, name in ((mixture, "multitask"), (maml, "maml"), (fomaml, "fomaml"), (reptile, "reptile")):
        assert abs(steps(algorithm, gradients=100_000) * work[name] - 100_000) <= work[name] / 2
    rows = {16: mixture, 2 * 8: maml, 2 * 40: reptile}
    assert {n * steps(algorithm, examples=8000) for n, algorithm in rows.items()} == {8000}
    # What the logs show: 280,060 updates of multi-task learning in cls2cls, 3,600 steps of 12 source tasks.
    assert steps(MultiTask(), epochs=20) == 280_060
    assert MetaBudget(max_epochs=120).resolved(MAML(), 12, 60, 0, 2.1).steps == 3600
    assert MetaBudget(max_epochs=120).resolved(MAML(), *sizes).steps == 5000


def test_a_budget_in_gradients_follows_the_flops_of_the_data(world):
    shared = {"meta": {"gradients": 500, "meta_batch": 2}, "methods": {"pt": {}, "multitask": {}, "maml": {}}}
    from softstart.study.run.resources import Resources

    declared = toy_study.toy(world, **shared)
    resources = Resources(variants_of(declared))
    inputs = resources.inputs()
    (part,) = inputs.parts
    backbone, hvp, gradient = resources.backbone("main"), 0.0, 0.0
    for name in part.source:
        task = resources.task("main", name)
        for sample in (task.samples[13], task.samples[21]):
            for row in (*sample.train, *sample.dev):
                flops = backbone.row_flops(4 + len(row.input.split()), len(row.outputs[0].split()))
                hvp, gradient = hvp + flops.hvp, gradient + flops.gradient
    assert part.hvp_cost == pytest.approx(hvp / gradient, rel=1e-9)
    assert 2 < part.hvp_cost < 3
    assert part.source_rows == 2 * 2 * 16
    steps = {node.method.name: node.method.meta.steps for node in make_plan(declared, inputs).metas}
    assert steps == {"multitask": 125, "maml": round(500 / (2 * (2 * part.hvp_cost + 2)))}
    # Where a plan resolves to the same steps, it is the same work.
    plain = {"methods": {"multitask": {"steps": 125}, "maml": {"steps": steps["maml"]}}, "meta": {}}
    again = make_plan(toy_study.toy(world, **plain), inputs)
    assert [n.key for n in again.metas] == [n.key for n in make_plan(declared, inputs).metas]
