"""Stacked optimizers against the library's optimizer on each run alone, and how a study declares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import torch
from transformers.optimization import Adafactor as LibraryAdafactor

from softstart.errors import SoftstartError
from softstart.training.identity import Added
from softstart.training.optimizers import OPTIMIZERS, SGD, Adafactor, AdamW, Optimizer, StackedOptimizer

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
    optimizer = StackedOptimizer(stack, torch.tensor(LRS), OPTIMIZERS[name](weight_decay=1e-2))
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
    StackedOptimizer(stack, torch.ones(2), SGD(weight_decay=0.0, max_grad_norm=1.0)).step(stack, gradient)
    assert torch.isclose(stack[0].norm(), torch.tensor(1.0))
    assert torch.allclose(stack[1], torch.full((P, D), -1e-3))


@pytest.mark.parametrize("name", ["adafactor", "adamw"])
def test_restored_state_continues_bit_for_bit(name):
    g = torch.Generator().manual_seed(1)
    gradients = torch.randn(10, RUNS, P, D, generator=g)
    whole, parts = torch.ones(RUNS, P, D), torch.ones(RUNS, P, D)
    rule = OPTIMIZERS[name]()
    a = StackedOptimizer(whole, torch.tensor(LRS), rule)
    b = StackedOptimizer(parts, torch.tensor(LRS), rule)
    for step, gradient in enumerate(gradients):
        a.step(whole, gradient)
        if step == 5:
            saved = {key: value.clone() for key, value in b.state_dict().items()}
            b = StackedOptimizer(parts, torch.tensor(LRS), rule)
            b.load_state_dict(saved)
        b.step(parts, gradient)
    assert torch.equal(whole, parts)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_declaration_is_read_as_it_is_written(name):
    rule = OPTIMIZERS[name](weight_decay=0.5)
    assert Optimizer.declared(rule.declaration()) == rule


def test_each_optimizer_has_its_own_settings():
    assert Optimizer.declared({"name": "adamw", "betas": [0.8, 0.9]}) == AdamW(betas=(0.8, 0.9))
    assert Optimizer.declared({"weight_decay": 0.5}) == Adafactor(weight_decay=0.5)
    # What study files of version 0.1 say, where all optimizers shared their settings.
    old = {
        "name": "sgd",
        "weight_decay": 0.0,
        "clip_threshold": 1.0,
        "decay_rate": -0.8,
        "betas": [0.9, 0.999],
    }
    assert Optimizer.declared(old) == SGD(weight_decay=0.0)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"name": "adamv"}, r"optimizer: unknown optimizer 'adamv'\. Did you mean adamw\?"),
        ({"name": 3}, r"'3' is not a name\. Use one of adafactor, adamw, sgd\."),
        (
            {"name": "sgd", "betas": [0.5, 0.9]},
            r"'betas' is not a field of sgd\. Known: max_grad_norm, weight",
        ),
        ({"name": "adamw", "betas": 0.9}, "betas: Input should be a valid tuple"),
        ({"name": "adamw", "weight_decay": "much"}, "weight_decay: Input should be a valid number"),
        ({"name": "torch.optim.SGD"}, r"'torch\.optim\.SGD' is not an optimizer"),
        ({"name": "nowhere.Lion"}, "cannot import the optimizer 'nowhere.Lion'.*PYTHONPATH"),
        ({"name": "softstart.training.optimizers.Optimizer"}, "is not an optimizer"),
    ],
)
def test_a_mistake_is_one_error_with_its_place(declared, message):
    with pytest.raises(SoftstartError, match=message) as caught:
        Optimizer.declared(declared, "optimizer")
    assert "\n" not in str(caught.value)


def test_keys_of_the_first_version_hold_all_settings_and_those_of_others_their_own():
    shared = {"clip_threshold": 1.0, "decay_rate": -0.8, "betas": (0.9, 0.999)}
    first = {"weight_decay": 1e-5, "max_grad_norm": None, **shared}
    for name in ("adafactor", "adamw", "sgd"):
        assert OPTIMIZERS[name]().identity() == {"name": name, **first}
    assert AdamW(betas=(0.5, 0.6)).identity()["betas"] == (0.5, 0.6)

    @dataclass(frozen=True)
    class Later(Optimizer):
        speed: float = 2.0
        damping: Annotated[float, Added(0.0)] = 0.0

        def update(self, prompts, gradient, state, clock):
            return self.speed * gradient

    assert set(Later().identity()) == {"name", "weight_decay", "max_grad_norm", "speed"}
    assert Later(damping=0.5).identity()["damping"] == 0.5


def test_another_name_brings_its_own_settings():
    below = {"name": "adamw", "betas": [0.5, 0.6], "weight_decay": 0.1}
    assert Optimizer.merged(below, {"name": "sgd"}) == {"name": "sgd", "weight_decay": 0.1}
    assert Optimizer.merged(below, {"betas": [0.5, 0.7]}) == {**below, "betas": [0.5, 0.7]}
