"""The norms of causal models: transformers' values, and the gradients that autograd takes through them."""

from __future__ import annotations

import copy

import pytest
import torch

from helpers.families import CAUSAL, random_model
from softstart.backbone.causal_norms import is_rms_norm, lean_norms, prepare

NORMED = [name for name in CAUSAL if any(map(is_rms_norm, random_model(name).modules()))]


def norms_of(name: str, dtype: torch.dtype) -> list[torch.nn.Module]:
    """The norms of a family with random weights."""
    model = random_model(name).to(dtype).requires_grad_(False)
    found = [module for module in model.modules() if is_rms_norm(module)]
    for norm in found:
        norm.weight.copy_(torch.randn(norm.weight.shape))
    prepare(model)
    return found


def test_families_with_and_without_such_norms_are_listed():
    assert 0 < len(NORMED) < len(CAUSAL)


@pytest.mark.parametrize("name", NORMED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_values_are_those_of_transformers_to_the_bit(name, dtype):
    for norm in norms_of(name, dtype):
        x = torch.randn(2, 5, len(norm.weight), dtype=dtype)
        plain = norm(x)
        with lean_norms(True):
            assert torch.equal(norm(x), plain)


@pytest.mark.parametrize("name", NORMED)
def test_gradients_are_those_of_autograd(name):
    for norm in norms_of(name, torch.float32):
        x = torch.randn(2, 5, len(norm.weight), requires_grad=True)
        slope = torch.randn_like(x)
        (plain,) = torch.autograd.grad(norm(x), x, slope)
        with lean_norms(True):
            y = norm(x)
            assert type(y.grad_fn).__name__ == "_RMSNormBackward"
            (lean,) = torch.autograd.grad(y, x, slope)
        torch.testing.assert_close(lean, plain, rtol=1e-5, atol=1e-5)


def test_a_copy_of_a_model_has_norms_of_its_own():
    (norm, *_) = norms_of(NORMED[0], torch.float32)
    twin = copy.deepcopy(norm)
    twin.weight.mul_(2)
    x = torch.randn(3, len(norm.weight))
    with lean_norms(True):
        torch.testing.assert_close(twin(x), 2 * norm(x))
