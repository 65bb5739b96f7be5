"""Multitask prompt tuning: gradients of the shared prompt and of every task's factors, against autograd."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from helpers.episodes import TASKS, episodes, task_losses
from helpers.models import prompts, relative, toy_encoded
from softstart.algorithms import COLUMNS, ROWS, SHARED, THETA, MultitaskPrompt, further, meta_gradients
from softstart.training.configs import MetaConfig
from softstart.training.meta_training import meta_train
from softstart.training.objective import PromptObjective


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("sources", [[0, 1, 2], [3, 1, 3]])
def test_gradients_equal_autograd_through_the_products(t5, rank, sources):
    theta, count, algorithm = prompts(t5)[0], 4, MultitaskPrompt(rank=rank)
    begun = further(algorithm, theta, count)
    assert begun[COLUMNS].shape == (count * 3, rank)
    assert begun[ROWS].shape == (count * rank, t5.width)
    generator = torch.Generator().manual_seed(1)
    values = {THETA: theta} | {
        name: torch.randn(of.shape, generator=generator, dtype=of.dtype) for name, of in begun.items()
    }
    meta_batch = replace(episodes(1), sources=torch.tensor(sources))
    got, logs = meta_gradients(algorithm, PromptObjective(t5), values, meta_batch)
    leaves = {name: of.clone().requires_grad_() for name, of in values.items()}
    own = [
        leaves[THETA] * (leaves[COLUMNS][3 * n : 3 * n + 3] @ leaves[ROWS][rank * n : rank * n + rank])
        for n in sources
    ]
    batches = (*meta_batch.support, meta_batch.query)
    losses = [task_losses(t5, torch.stack(own), batch).mean() for batch in batches]
    expected = torch.autograd.grad(sum(losses) / 2, list(leaves.values()))
    assert got.keys() == values.keys()
    for name, of in zip(leaves, expected, strict=True):
        assert relative(got[name], of) < 1e-10
    assert logs["query"] == pytest.approx(float(losses[1]))


def test_it_begins_at_the_start_and_ends_at_the_means_of_the_factors(t5):
    tasks = [toy_encoded(t5, f"toy{i}", seed=i) for i in range(TASKS)]
    start, algorithm = prompts(t5)[0], MultitaskPrompt(rank=2, further_lr=0.5)
    begun = {THETA: start} | further(algorithm, start, TASKS)
    assert torch.equal(algorithm.begin(begun)[THETA], start)
    learned = meta_train(t5, algorithm, tasks, start, MetaConfig(steps=6, lr=0.3))
    u = learned.further[COLUMNS].view(TASKS, 3, 2)
    v = learned.further[ROWS].view(TASKS, 2, t5.width)
    assert relative(learned.prompt, learned.further[SHARED] * (u.mean(0) @ v.mean(0))) < 1e-12
    assert relative(u[0] @ v[0], u[1] @ v[1]) > 1e-4  # each task has learned its own
    with_all_samples = meta_train(t5, algorithm, tasks, start, MetaConfig(steps=1, lr=0.3), samples=[13])
    assert with_all_samples.further[COLUMNS].shape == (TASKS * 3, 2)
