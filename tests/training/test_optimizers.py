"""Stacked optimizers against the library's optimizer on each run alone."""

from __future__ import annotations

import pytest
import torch
from transformers.optimization import Adafactor as LibraryAdafactor

from softstart.errors import SoftstartError
from softstart.training.optimizers import OptimizerConfig, make_optimizer

RUNS, P, D = 4, 5, 7
LRS = [0.5, 0.4, 0.03, 0.2]


def library(name: str, parameter: torch.nn.Parameter, lr: float, decay: float) -> torch.optim.Optimizer:
    if name == "adafactor":
        return LibraryAdafactor(
            [parameter], lr=lr, scale_parameter=False, relative_step=False, warmup_init=False,
            weight_decay=decay, clip_threshold=1.0, decay_rate=-0.8,
        )  # fmt: skip
    if name == "adamw":
        return torch.optim.AdamW([parameter], lr=lr, weight_decay=decay)
    return torch.optim.SGD([parameter], lr=lr, weight_decay=decay)


@pytest.mark.parametrize("name", ["adafactor", "adamw", "sgd"])
def test_every_run_moves_as_if_alone(name):
    g = torch.Generator().manual_seed(0)
    start = torch.randn(RUNS, P, D, generator=g, dtype=torch.float64)
    gradients = torch.randn(50, RUNS, P, D, generator=g, dtype=torch.float64)
    gradients *= torch.tensor([1e-3, 1.0, 30.0, 0.1], dtype=torch.float64)[:, None, None]
    stops = [50, 20, 50, 35]  # runs that finish early
    stack = start.clone()
    optimizer = make_optimizer(stack, torch.tensor(LRS), OptimizerConfig(name, weight_decay=1e-2))
    for step, gradient in enumerate(gradients):
        optimizer.step(stack, gradient, torch.tensor([step < stop for stop in stops]))
    for run in range(RUNS):
        parameter = torch.nn.Parameter(start[run].clone())
        alone = library(name, parameter, optimizer.lr[run].item(), 1e-2)
        for gradient in gradients[: stops[run], run]:
            parameter.grad = gradient.clone()
            alone.step()
        assert float((stack[run] - parameter.detach()).abs().max() / parameter.detach().abs().max()) < 1e-10


def test_gradients_are_clipped_run_by_run():
    stack = torch.zeros(2, P, D)
    gradient = torch.stack((torch.full((P, D), 10.0), torch.full((P, D), 1e-3)))
    config = OptimizerConfig("sgd", weight_decay=0.0, max_grad_norm=1.0)
    make_optimizer(stack, torch.ones(2), config).step(stack, gradient)
    assert torch.isclose(stack[0].norm(), torch.tensor(1.0))
    assert torch.allclose(stack[1], torch.full((P, D), -1e-3))


@pytest.mark.parametrize("name", ["adafactor", "adamw"])
def test_restored_state_continues_bit_for_bit(name):
    g = torch.Generator().manual_seed(1)
    gradients = torch.randn(10, RUNS, P, D, generator=g)
    whole, parts = torch.ones(RUNS, P, D), torch.ones(RUNS, P, D)
    config = OptimizerConfig(name)
    a = make_optimizer(whole, torch.tensor(LRS), config)
    b = make_optimizer(parts, torch.tensor(LRS), config)
    for step, gradient in enumerate(gradients):
        a.step(whole, gradient)
        if step == 5:
            saved = {key: value.clone() for key, value in b.state_dict().items()}
            b = make_optimizer(parts, torch.tensor(LRS), config)
            b.load_state_dict(saved)
        b.step(parts, gradient)
    assert torch.equal(whole, parts)


def test_unknown_optimizer_is_refused():
    with pytest.raises(SoftstartError, match="unknown optimizer 'lion'"):
        make_optimizer(torch.ones(1, 2, 3), torch.ones(1), OptimizerConfig("lion"))
