"""Hessian-vector products by tangents and compiled kernels are those of double backward, or are not taken."""

from __future__ import annotations

import copy
import logging

import pytest
import torch

from helpers.families import CAUSAL, exact_norms, exact_softmax, random_backbone
from helpers.models import prompts, random_batch, random_t5, relative
from softstart.backbone import Backbone, compiling
from softstart.training.hessian_products import run_hvps

ROWS = [(9, 3, 0), (4, 2, 1), (7, 1, 1)]
FAST = ("llama", "gemma3_text", "gpt2")


@pytest.fixture(autouse=True)
def graphs_alone(monkeypatch):
    """Graphs are taken but run without a C compiler; nothing compiled stays."""
    torch._dynamo.reset()
    compiling.compiled.cache_clear()
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    yield
    torch._dynamo.reset()
    compiling.compiled.cache_clear()


def random_like(stack: torch.Tensor) -> torch.Tensor:
    return torch.randn(stack.shape, dtype=stack.dtype, generator=torch.Generator().manual_seed(2))


def pair(name: str, placement: str = "prefix") -> tuple[Backbone, Backbone]:
    """A backbone, and the same one compiled."""
    if name == "t5":
        plain, compiled = random_t5(placement=placement), random_t5(placement=placement)
    else:
        plain, compiled = (random_backbone(name, placement=placement) for _ in range(2))
        exact_norms(plain.model)
        exact_norms(compiled.model)
    compiled.compile()
    return plain, compiled


@pytest.mark.parametrize("placement", ["prefix", "suffix"])
@pytest.mark.parametrize(
    "name",
    ["t5", *(name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CAUSAL)],
)
def test_products_are_those_of_double_backward(exact_norm, monkeypatch, name, placement):
    exact_softmax(monkeypatch)
    plain, compiled = pair(name, placement)
    stack, batch = prompts(plain, runs=3), random_batch(ROWS)  # the third run has no row
    vectors = random_like(stack)
    expected = run_hvps(plain, stack, batch, vectors)
    for max_tokens in (None, 24):
        assert relative(run_hvps(compiled, stack, batch, vectors, max_tokens), expected) < 1e-12
    assert compiled.tangents_checked


def test_fast_products_of_float32_carry_tangents():
    plain, compiled = random_t5(torch.float32), random_t5(torch.float32)
    compiled.compile()
    stack, batch = prompts(plain, runs=2), random_batch([(40, 3, 0), (44, 2, 1), (30, 1, 1)])
    vectors = random_like(stack)
    product = run_hvps(compiled, stack, batch, vectors)
    assert relative(product, run_hvps(plain, stack, batch, vectors)) < 1e-3
    assert compiled.tangents_checked


def test_layers_that_cannot_carry_tangents_are_found_and_said(caplog):
    plain, compiled = random_backbone("gpt2"), random_backbone("gpt2")
    compiled.carries_tangents = True  # but its layer norms are torch's own, whose tangents are wrong
    stack, batch = prompts(plain), random_batch(ROWS)
    vectors = random_like(stack)
    with caplog.at_level(logging.WARNING, "softstart"):
        products = [run_hvps(compiled, stack, batch, vectors) for _ in range(2)]
    expected = run_hvps(plain, stack, batch, vectors)
    assert all(torch.equal(product, expected) for product in products)
    assert not compiled.carries_tangents
    (said,) = caplog.messages
    assert "Hessian-vector products are not compiled (by tangents they are" in said


def test_a_machine_without_a_compiler_takes_double_backward(monkeypatch, caplog):
    def broken(graph, inputs):
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(compiling, "BACKEND", broken)
    plain, compiled = random_backbone("llama"), random_backbone("llama")
    compiled.compile()
    stack, batch = prompts(plain), random_batch(ROWS)
    with caplog.at_level(logging.WARNING, "softstart"):
        product = run_hvps(compiled, stack, batch, stack)
    assert torch.equal(product, run_hvps(plain, stack, batch, stack))
    assert "no C compiler" in caplog.messages[-1]


def test_other_passes_of_a_compiled_causal_model_keep_their_bits():
    plain, compiled = random_backbone("gemma3_text"), random_backbone("gemma3_text")
    compiled.compile()
    stack, batch = prompts(plain), random_batch(ROWS)
    assert compiled.nll(stack, batch)[0].equal(plain.nll(stack, batch)[0])
    assert not compiled.tangents_checked


@pytest.mark.parametrize("name", FAST)
def test_backbones_that_share_a_model_can_all_be_compiled(name):
    _, compiled = pair(name)
    other = copy.copy(compiled)
    other.carries_tangents = other.tangents_checked = False
    other.compile()
    stack, batch = prompts(other), random_batch(ROWS)
    run_hvps(other, stack, batch, random_like(stack))
    assert other.carries_tangents
    assert other.tangents_checked


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t5", "llama", "gpt2"])
def test_torch_s_own_compiler_gives_the_same(exact_norm, monkeypatch, name):
    monkeypatch.setattr(compiling, "BACKEND", "inductor")
    exact_softmax(monkeypatch)
    plain, compiled = pair(name)
    stack, batch = prompts(plain), random_batch(ROWS)
    vectors = random_like(stack)
    product = run_hvps(compiled, stack, batch, vectors)
    assert relative(product, run_hvps(plain, stack, batch, vectors)) < 1e-10
    assert compiled.tangents_checked
