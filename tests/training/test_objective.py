"""Gradients and Hessian-vector products of a pack are those of its runs alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.models import prompts, random_batch, random_t5, relative
from softstart.training.gradients import run_gradients, run_losses
from softstart.training.hessian_products import run_hvps


def alone(backbone, stack, batch, run):
    """The loss of one run as a function of its prompt: token mean over its rows."""
    rows = batch.select((batch.run == run).nonzero().squeeze(1))

    def loss(prompt):
        sums, counts = backbone.nll(prompt[None].expand(len(stack), -1, -1), rows, twice=True)
        return sums.sum() / counts.sum()

    return loss


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    extra=st.lists(st.tuples(st.integers(1, 10), st.integers(1, 4), st.integers(0, 2)), max_size=5),
    budget=st.sampled_from([None, 1, 25, 60]),
)
def test_packed_gradients_equal_one_run_at_a_time(exact_norm, extra, budget):
    backbone = random_t5()
    batch = random_batch([(4, 2, 0), (9, 1, 1), (2, 3, 2), *extra])
    stack = prompts(backbone, runs=3)
    losses, gradients = run_gradients(backbone, stack, batch, budget)
    assert relative(losses, run_losses(backbone, stack, batch)) < 1e-12
    for run in range(3):
        leaf = stack[run].clone().requires_grad_()
        value = alone(backbone, stack, batch, run)(leaf)
        (expected,) = torch.autograd.grad(value, leaf)
        assert relative(losses[run], value.detach()) < 1e-12
        assert relative(gradients[run], expected) < 1e-10


@pytest.mark.parametrize("budget", [None, 30])
def test_hvp_equals_the_full_hessian(t5, budget):
    stack = prompts(t5, runs=2, length=2)
    batch = random_batch([(4, 2, 0), (6, 1, 1), (2, 3, 0)])
    vectors = prompts(t5, runs=2, length=2, seed=9)
    product = run_hvps(t5, stack, batch, vectors, budget)
    for run in range(2):
        loss = alone(t5, stack, batch, run)
        n = stack[run].numel()
        hessian = torch.autograd.functional.hessian(loss, stack[run]).reshape(n, n)
        assert relative(product[run].flatten(), hessian @ vectors[run].flatten()) < 1e-10


def test_a_run_without_rows_gets_a_zero_gradient(t5):
    losses, gradients = run_gradients(t5, prompts(t5, runs=3), random_batch([(4, 2, 0), (3, 1, 2)]))
    assert losses[1] == 0
    assert gradients[1].abs().max() == 0
    assert gradients[0].abs().max() > 0


def test_dropout_of_a_step_is_replayed_micro_batch_by_micro_batch(exact_norm):
    backbone = random_t5(dropout=0.2)
    batch = random_batch([(n, 2, 0) for n in range(1, 7)], dropout_seed=3)
    stack = prompts(backbone, runs=1)
    first = run_gradients(backbone, stack, batch, 20)
    assert torch.equal(run_gradients(backbone, stack, batch, 20)[1], first[1])


def test_gradients_are_the_same_bits_every_time_on_several_threads():
    backbone = random_t5(torch.float32)
    batch, stack = random_batch([(3, 1, n % 2) for n in range(128)]), prompts(backbone, runs=2, length=60)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        _, first = run_gradients(backbone, stack, batch)
        assert all(torch.equal(run_gradients(backbone, stack, batch)[1], first) for _ in range(8))
    finally:
        torch.set_num_threads(threads)
