"""Every algorithm against its definition, on a language model and on a quadratic."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.episodes import TASKS, episodes, task_losses, unrolled
from helpers.models import SavedBytes, prompts, random_batch, relative
from softstart.algorithms import (
    ALGORITHMS,
    ANIL,
    IMAML,
    LOG_RATES,
    MAML,
    THETA,
    Episodes,
    FoMAML,
    MetaSGD,
    MultiTask,
    Reptile,
    further,
    meta_gradients,
)
from softstart.training.objective import PromptObjective


@pytest.mark.parametrize("steps", [1, 3, 5])
@pytest.mark.parametrize("budget", [None, 30])
def test_maml_equals_autograd_through_the_unrolled_loop(t5, steps, budget):
    theta, lr, meta_batch = prompts(t5)[0], 0.3, episodes(steps)
    got, _ = MAML(inner_lr=lr, inner_steps=steps).meta_gradient(
        PromptObjective(t5, budget), theta, meta_batch
    )
    leaf = theta.clone().requires_grad_()
    _, query = unrolled(t5, leaf, meta_batch, lr)
    (expected,) = torch.autograd.grad(query.mean(), leaf)
    assert relative(got, expected) < 1e-10
    # The test has teeth: leaving the second order out is plainly wrong here.
    first_order, _ = FoMAML(inner_lr=lr, inner_steps=steps).meta_gradient(
        PromptObjective(t5), theta, meta_batch
    )
    assert relative(first_order, expected) > 0.05


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(("share", "rows"), [(0.0, 1), (0.34, 1), (0.67, 2), (1.0, 3)])
def test_anil_equals_autograd_through_the_inner_loop_of_the_last_rows(t5, steps, share, rows):
    theta, lr, meta_batch = prompts(t5)[0], 0.3, episodes(steps)
    algorithm = ANIL(inner_lr=lr, inner_steps=steps, adapted=share)
    got, _ = algorithm.meta_gradient(PromptObjective(t5), theta, meta_batch)
    leaf = theta.clone().requires_grad_()
    body, head = leaf[:-rows].expand(TASKS, -1, -1), leaf[-rows:].expand(TASKS, -1, -1)
    for batch in meta_batch.support:
        losses = task_losses(t5, torch.cat((body, head), 1), batch).sum()
        head = head - lr * torch.autograd.grad(losses, head, create_graph=True)[0]
    (expected,) = torch.autograd.grad(
        task_losses(t5, torch.cat((body, head), 1), meta_batch.query).mean(), leaf
    )
    assert relative(got, expected) < 1e-10


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("budget", [None, 0])
def test_metasgd_equals_autograd_through_start_and_rates(t5, steps, budget):
    theta, meta_batch = prompts(t5)[0], episodes(steps)
    algorithm = MetaSGD(inner_lr=0.3, inner_steps=steps)
    log_rates = torch.tensor([[0.5], [-1.0], [0.1]], dtype=torch.float64)
    values = {THETA: theta, LOG_RATES: log_rates}
    assert {name: v.shape for name, v in further(algorithm, theta).items()} == {LOG_RATES: (3, 1)}
    got, _ = meta_gradients(algorithm, PromptObjective(t5, memory_budget=budget), values, meta_batch)
    leaf, rates = theta.clone().requires_grad_(), log_rates.clone().requires_grad_()
    _, query = unrolled(t5, leaf, meta_batch, 0.3 * rates.exp())
    expected = dict(zip(values, torch.autograd.grad(query.mean(), (leaf, rates)), strict=True))
    assert got.keys() == expected.keys()
    for name in expected:
        assert relative(got[name], expected[name]) < 1e-10
    # Without what flows through later steps, the slope of the rates is plainly another.
    if steps > 1:
        leaf, phi = theta.expand(TASKS, 3, -1), 0.0
        for batch in meta_batch.support:
            phi, leaf = PromptObjective(t5).gradient(leaf, batch)[1], leaf - 0.3 * log_rates.exp() * phi
        last = -(phi * PromptObjective(t5).gradient(leaf, meta_batch.query)[1]).sum(-1, keepdim=True)
        assert relative((last * 0.3 * log_rates.exp()).mean(0), expected[LOG_RATES]) > 0.05


def test_metasgd_with_even_rates_is_maml(t5):
    theta, meta_batch = prompts(t5)[0], episodes(3)
    algorithm = MetaSGD(inner_lr=0.3, inner_steps=3)
    values = {THETA: theta, **further(algorithm, theta)}
    got, logs = meta_gradients(algorithm, PromptObjective(t5), values, meta_batch)
    maml = MAML(inner_lr=0.3, inner_steps=3)
    expected, same = meta_gradients(maml, PromptObjective(t5), {THETA: theta}, meta_batch)
    assert relative(got[THETA], expected[THETA]) < 1e-14
    assert logs == same


def test_imaml_solves_its_linear_system_on_a_language_model(t5):
    theta, strength = prompts(t5)[0] * 0.3, 300.0
    meta_batch = episodes(1)
    algorithm = IMAML(inner_lr=0.01, inner_steps=1, strength=strength, iterations=60)
    got, _ = algorithm.meta_gradient(PromptObjective(t5), theta, meta_batch)
    expected = []
    for task in range(TASKS):

        def loss(prompt, batch, task=task):
            stack = theta.expand(TASKS, *theta.shape).index_copy(0, torch.tensor([task]), prompt[None])
            return task_losses(t5, stack, batch)[task]

        # One step from θ, where the proximal term pulls nowhere.
        gradient = torch.autograd.functional.jacobian(
            lambda p, loss=loss: loss(p, meta_batch.support[0]), theta
        )
        phi = theta - 0.01 * gradient
        hessian = torch.autograd.functional.hessian(lambda p, loss=loss: loss(p, meta_batch.support[0]), phi)
        size = theta.numel()
        matrix = torch.eye(size, dtype=theta.dtype) + hessian.view(size, size) / strength
        assert torch.linalg.eigvalsh(matrix).min() > 0  # what conjugate gradient asks for
        query = torch.autograd.functional.jacobian(lambda p, loss=loss: loss(p, meta_batch.query), phi)
        expected.append(torch.linalg.solve(matrix, query.flatten()).view_as(theta))
    assert relative(got, torch.stack(expected).mean(0)) < 1e-8


def test_imaml_is_the_closed_form_of_the_regularized_problem_and_survives_negative_curvature():
    g = torch.Generator().manual_seed(3)
    root = torch.randn(TASKS, 6, 6, generator=g, dtype=torch.float64)
    curvature, strength = root @ root.mT / 6, 2.0
    center, theta = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((TASKS, 2, 3), (2, 3)))
    algorithm = IMAML(inner_lr=0.1, inner_steps=400, strength=strength, iterations=6)
    got, _ = algorithm.meta_gradient(
        Quadratic(curvature, center), theta, Episodes(TASKS, [None] * 400, object())
    )
    # φ* = c + (I + A/λ)⁻¹ (θ - c), so with J = (I + A/λ)⁻¹ the meta-gradient is J A J (θ - c).
    jacobian = torch.linalg.inv(torch.eye(6, dtype=torch.float64) + curvature / strength)
    error = (theta - center).flatten(1)[..., None]
    expected = (jacobian @ curvature @ jacobian @ error).mean(0).view(2, 3)
    assert relative(got, expected) < 1e-8
    bent = Quadratic(-10 * torch.eye(6, dtype=torch.float64).expand(TASKS, 6, 6), center)
    got, _ = IMAML(inner_lr=0.01).meta_gradient(bent, theta, Episodes(TASKS, [None] * 5, object()))
    assert got.isfinite().all()


@pytest.mark.parametrize("steps", [1, 4])
def test_fomaml_is_the_query_gradient_at_the_adapted_prompts(t5, steps):
    theta, lr, meta_batch = prompts(t5)[0], 0.3, episodes(steps)
    got, _ = FoMAML(inner_lr=lr, inner_steps=steps).meta_gradient(PromptObjective(t5), theta, meta_batch)
    phi, _ = unrolled(t5, theta.clone().requires_grad_(), meta_batch, lr)
    leaf = phi.detach().requires_grad_()
    (expected,) = torch.autograd.grad(task_losses(t5, leaf, meta_batch.query).sum(), leaf)
    assert relative(got, expected.mean(0)) < 1e-10


@pytest.mark.parametrize("difference", [False, True])
def test_reptile_is_the_scaled_distance_to_the_adapted_prompts(t5, difference):
    theta, lr, meta_batch = prompts(t5)[0], 0.3, episodes(4)
    got, _ = Reptile(inner_lr=lr, inner_steps=4, difference=difference).meta_gradient(
        PromptObjective(t5), theta, meta_batch
    )
    phi, _ = unrolled(t5, theta.clone().requires_grad_(), meta_batch, lr)
    assert relative(got, ((theta - phi.detach()) / lr).mean(0)) < 1e-10


@pytest.mark.parametrize("name", ["maml", "fomaml", "reptile", "metasgd"])
def test_tasks_batched_together_are_the_mean_of_each_alone(t5, name):
    theta, meta_batch = prompts(t5)[0], episodes(2)
    algorithm = ALGORITHMS[name](inner_lr=0.3, inner_steps=2)
    values = {THETA: theta, **further(algorithm, theta)}
    together, _ = meta_gradients(algorithm, PromptObjective(t5), values, meta_batch)

    def only(batch, task):
        part = batch.select((batch.run == task).nonzero().squeeze(1))
        return type(part)(part.input_ids, part.attention_mask, part.labels, torch.zeros_like(part.run))

    alone = [
        Episodes(1, [only(b, m) for b in meta_batch.support], only(meta_batch.query, m)) for m in range(TASKS)
    ]
    gradients = [meta_gradients(algorithm, PromptObjective(t5), values, each)[0] for each in alone]
    for name_, value in together.items():
        assert relative(value, torch.stack([each[name_] for each in gradients]).mean(0)) < 1e-10


def test_multitask_is_the_gradient_of_the_mixture(t5):
    theta, batch = prompts(t5)[0], random_batch([(4, 2, 0), (7, 1, 0), (3, 3, 0)])
    got, _ = MultiTask().meta_gradient(PromptObjective(t5), theta, Episodes(1, [], batch))
    leaf = theta.clone().requires_grad_()
    sums, counts = t5.nll(leaf[None], batch)
    (expected,) = torch.autograd.grad(sums.sum() / counts.sum(), leaf)
    assert relative(got, expected) < 1e-10


def test_memory_of_maml_does_not_grow_with_the_inner_steps(t5):
    theta, loss = prompts(t5)[0], PromptObjective(t5, memory_budget=0)
    exact, through = {}, {}
    for steps in (1, 2, 6):
        with SavedBytes() as kept:
            MAML(inner_lr=0.3, inner_steps=steps).meta_gradient(loss, theta, episodes(steps))
        exact[steps] = kept.peak
        with SavedBytes() as kept:
            leaf = theta.clone().requires_grad_()
            _, query = unrolled(t5, leaf, episodes(steps), 0.3)
            torch.autograd.grad(query.mean(), leaf)
        through[steps] = kept.peak
    assert exact[6] == exact[2] == exact[1] > 0
    assert through[6] > 3 * exact[6]


class Quadratic:
    """Task m: ½ (φ - c_m)ᵀ A_m (φ - c_m), whose trajectories are known in closed form."""

    def __init__(self, curvature: torch.Tensor, center: torch.Tensor) -> None:
        self.curvature, self.center = curvature, center

    def expect(self, batches):
        pass

    def gradient(self, prompts, batch):
        error = (prompts - self.center).flatten(1)
        gradient = torch.einsum("mij,mj->mi", self.curvature, error)
        return 0.5 * (error * gradient).sum(1), gradient.view_as(prompts)

    def hvp(self, prompts, batch, vectors):
        return torch.einsum("mij,mj->mi", self.curvature, vectors.flatten(1)).view_as(vectors)


@given(seed=st.integers(0, 10_000), steps=st.integers(1, 6))
def test_closed_form_on_a_quadratic(seed, steps):
    g = torch.Generator().manual_seed(seed)
    root = torch.randn(TASKS, 6, 6, generator=g, dtype=torch.float64)
    curvature = root @ root.mT / 6
    center, theta = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((TASKS, 2, 3), (2, 3)))
    loss, lr = Quadratic(curvature, center), 0.05
    shrink = torch.linalg.matrix_power(torch.eye(6, dtype=torch.float64) - lr * curvature, steps)
    error = (theta - center).flatten(1)
    adapted = torch.einsum("mij,mj->mi", shrink, error)  # φ_K - c
    query = torch.einsum("mij,mj->mi", curvature, adapted)
    expected = {
        "maml": torch.einsum("mij,mj->mi", shrink, query),
        "fomaml": query,
        "reptile": (error - adapted) / lr,
    }
    for name, value in expected.items():
        algorithm = ALGORITHMS[name](inner_lr=lr, inner_steps=steps)
        got, _ = algorithm.meta_gradient(loss, theta, Episodes(TASKS, [None] * steps, object()))
        assert relative(got, value.mean(0).view(2, 3)) < 1e-9


def test_reptile_difference_drowns_in_float32_where_the_sum_does_not():
    """Paper fact sheet, section 7.3: α = 3e-5 against entries of 8..16."""
    center = torch.full((1, 2, 3), 12.0)
    theta = center[0] + 0.004
    loss = Quadratic(torch.eye(6)[None], center)
    meta_batch = Episodes(1, [None] * 10, None)
    total, _ = Reptile(inner_steps=10).meta_gradient(loss, theta, meta_batch)
    lost, _ = Reptile(inner_steps=10, difference=True).meta_gradient(loss, theta, meta_batch)
    assert float(lost.abs().max()) == 0.0
    assert float(total.min()) > 0.03
