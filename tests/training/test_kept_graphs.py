"""Kept graphs of inner gradients: equal numbers at every budget, their sizes, which networks are refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from helpers.episodes import SMALL, episodes, task_losses, unrolled
from helpers.families import random_backbone
from helpers.models import prompts, random_batch, random_t5, relative
from softstart.algorithms import ANIL, IMAML, MAML, FoMAML
from softstart.backbone import t5_layers
from softstart.errors import SoftstartError
from softstart.training.configs import MetaConfig
from softstart.training.gradients import run_gradients
from softstart.training.kept_graphs import Graph
from softstart.training.meta_training import meta_train
from softstart.training.objective import PromptObjective

LR = 0.3
PLENTY = 1 << 40


def weights_of(t5):
    return {p.untyped_storage().data_ptr() for p in t5.model.parameters()}


def step_bytes(t5, batch):
    graph = Graph(prompts(t5)[:1].expand(3, -1, -1), batch)
    with graph.measured(weights_of(t5)):
        run_gradients(t5, graph.prompts, batch, graph=graph)
    return graph.bytes


def seeded(meta_batch, t5):
    """The same episodes with their own dropout masks for every batch."""
    support = [dataclasses.replace(b, seed=40 + k) for k, b in enumerate(meta_batch.support)]
    return dataclasses.replace(
        meta_batch, support=support, query=dataclasses.replace(meta_batch.query, seed=39)
    )


@pytest.mark.parametrize("steps", [1, 3, 5])
@pytest.mark.parametrize("max_tokens", [None, 30])
def test_maml_is_exact_at_every_budget_and_keeps_what_fits(t5, steps, max_tokens):
    theta, meta_batch = prompts(t5)[0], episodes(steps)
    leaf = theta.clone().requires_grad_()
    _, query = unrolled(t5, leaf, meta_batch, LR)
    (expected,) = torch.autograd.grad(query.mean(), leaf)
    one = step_bytes(t5, meta_batch.support[0])
    budgets = {0: 0, 1: 0, int(2.5 * one): min(2, steps), PLENTY: steps, None: 1}
    flops = {}
    for budget, kept in budgets.items():
        loss = PromptObjective(t5, max_tokens, budget)
        got, _ = MAML(inner_lr=LR, inner_steps=steps).meta_gradient(loss, theta, meta_batch)
        assert relative(got, expected) < 1e-12
        if max_tokens is None:
            assert loss.graphs.reused == kept, budget
        assert loss.graphs.steps == steps
        assert not loss.graphs.kept
        flops[loss.graphs.reused] = loss.work.flops
    # Every graph kept saves the recomputation of one gradient.
    assert sorted(flops.values(), reverse=True) == [flops[k] for k in sorted(flops)]


@pytest.mark.parametrize("algorithm", [MAML, ANIL])
def test_dropout_masks_are_those_of_the_unrolled_loop_at_every_budget(exact_norm, algorithm):
    t5, steps = random_t5(dropout=0.3), 3
    theta, meta_batch = prompts(t5)[0], seeded(episodes(steps), t5)
    got = {
        budget: algorithm(inner_lr=LR, inner_steps=steps).meta_gradient(
            PromptObjective(t5, None, budget), theta, meta_batch
        )[0]
        for budget in (0, None, PLENTY)
    }
    assert relative(got[0], got[None]) < 1e-12
    assert relative(got[0], got[PLENTY]) < 1e-12
    if algorithm is MAML:
        phi = leaf = theta.clone().requires_grad_()
        phi = phi.expand(3, *theta.shape)
        for batch in meta_batch.support:
            phi = (
                phi - LR * torch.autograd.grad(masked_losses(t5, phi, batch).sum(), phi, create_graph=True)[0]
            )
        (expected,) = torch.autograd.grad(masked_losses(t5, phi, meta_batch.query).mean(), leaf)
        assert relative(got[0], expected) < 1e-12
        plain, _ = MAML(inner_lr=LR, inner_steps=steps).meta_gradient(
            PromptObjective(t5), theta, episodes(steps)
        )
        assert relative(plain, expected) > 0.01  # the masks matter


@pytest.mark.parametrize("name", ["bart", "gpt2"])
def test_imaml_takes_the_hessian_under_the_masks_of_its_last_gradient(name, monkeypatch):
    model, ways = random_backbone(name), []  # dropout of 0.1, the default of both
    theta, batches = prompts(model)[0] * 0.3, seeded(episodes(2), model)
    first, last = batches.support
    nll = model.nll

    def watched(stack, batch, *, seed=None, twice=False):
        ways.append((seed, twice))
        return nll(stack, batch, seed=seed, twice=twice)

    monkeypatch.setattr(model, "nll", watched)
    loss = PromptObjective(model)
    got, _ = IMAML(inner_lr=0.01, inner_steps=2, strength=50.0, iterations=1).meta_gradient(
        loss, theta, batches
    )
    # On a GPU the kernels of first and second order draw different masks.
    assert ways == [(first.seed, False), (last.seed, True), (batches.query.seed, False), (last.seed, True)]
    assert not loss.graphs.kept
    monkeypatch.undo()

    def slope(stack, batch):
        leaf = stack.clone().requires_grad_()
        return torch.autograd.grad(masked_losses(model, leaf, batch).sum(), leaf)[0]

    phi = theta.expand(3, *theta.shape)
    for batch in batches.support:
        phi = phi - 0.01 * (slope(phi, batch) + 50.0 * (phi - theta))
    b = slope(phi, batches.query)
    image = b + (slope(phi + 1e-4 * b, last) - slope(phi - 1e-4 * b, last)) / (2e-4 * 50.0)
    curvature = (b * image).sum((1, 2), keepdim=True)
    step = torch.where(curvature > 0, (b * b).sum((1, 2), keepdim=True) / curvature, 1.0)
    assert relative(got, (step * b).mean(0)) < 1e-6


def masked_losses(t5, phi, batch):
    sums, counts = t5.nll(phi, batch, seed=batch.seed, twice=True)
    total = torch.zeros(3, dtype=sums.dtype).index_add(0, batch.run, sums)
    return total / torch.zeros(3, dtype=torch.long).index_add(0, batch.run, counts)


def test_a_graph_weighs_what_its_nodes_hold(t5):
    """Every node of the autograd graph is asked for what it saved."""
    batch, stack = episodes(1).support[0], prompts(t5)[:3]
    graph = Graph(stack, batch)
    with graph.measured(weights_of(t5)):
        run_gradients(t5, stack, batch, graph=graph)
    storages, stack, seen = {}, [graph.parts[0][1].grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        stack += [edge for edge, _ in node.next_functions]
        names = [n for n in dir(node) if n.startswith("_saved_")] + ["saved_tensors"]
        for value in (getattr(node, name, None) for name in names):
            for tensor in value if isinstance(value, tuple) else (value,):
                if isinstance(tensor, torch.Tensor):
                    storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    held = sum(size for at, size in storages.items() if at not in weights_of(t5))
    assert graph.bytes == pytest.approx(held, rel=0.05)
    assert len(seen) > 300


def test_first_order_methods_keep_nothing(t5):
    loss = PromptObjective(t5, None, PLENTY)
    FoMAML(inner_lr=LR, inner_steps=3).meta_gradient(loss, prompts(t5)[0], episodes(3))
    assert loss.graphs.steps == 0


@pytest.mark.parametrize("long_last", [False, True])
def test_batches_of_unequal_lengths_keep_the_one_that_fits(t5, long_last):
    theta = prompts(t5)[0]
    short, long = random_batch([(2, 1, r) for r in range(3)]), random_batch([(40, 3, r) for r in range(3)])
    support = [short, long] if long_last else [long, short]
    meta_batch = dataclasses.replace(episodes(2), support=support)
    loss = PromptObjective(t5, None, step_bytes(t5, short) + step_bytes(t5, long) // 2)
    got, _ = MAML(inner_lr=LR, inner_steps=2).meta_gradient(loss, theta, meta_batch)
    assert loss.graphs.reused == 1
    leaf = theta.clone().requires_grad_()
    _, query = unrolled(t5, leaf, meta_batch, LR)
    assert relative(got, torch.autograd.grad(query.mean(), leaf)[0]) < 1e-12


@pytest.mark.parametrize("budget", [0, None])
def test_a_network_without_second_derivatives_is_named_in_our_words(t5, budget, monkeypatch):
    layers = t5_layers.Pass(twice=False, activation="gelu_new")
    monkeypatch.setattr(t5, "_pass", lambda: layers)  # torch itself refuses from here on
    with pytest.raises(SoftstartError, match=r"differentiated twice.*fomaml"):
        MAML(inner_lr=LR).meta_gradient(PromptObjective(t5, None, budget), prompts(t5)[0], episodes(1))
    FoMAML(inner_lr=LR).meta_gradient(PromptObjective(t5), prompts(t5)[0], episodes(1))
    leaf = prompts(t5)[:3].requires_grad_()
    loss = task_losses(t5, leaf, episodes(1).query).sum()
    (slope,) = torch.autograd.grad(loss, leaf, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(slope.square().sum(), leaf)


def test_meta_training_logs_the_choice(backbone, tasks):
    start, notes = prompts(backbone)[0], []

    def trained(budget, name="maml"):
        config = MetaConfig(steps=2, lr=0.1, memory_budget=budget)
        return meta_train(
            backbone, SMALL[name], tasks, start, config, progress=lambda done, note="": notes.append(note)
        )

    runs = {budget: trained(budget) for budget in (0, None, 64.0)}
    for budget, kept in ((0, 0), (None, 1), (64.0, 2)):
        assert [point["kept"] for point in runs[budget].curve] == [kept, kept]
        assert relative(runs[budget].prompt, runs[0].prompt) < 1e-5
    assert any(note.endswith("2 of 2 graphs kept") for note in notes)
    assert "kept" not in trained(None, "fomaml").curve[0]
