"""Compiled layers give the numbers of the plain ones, and serve nothing that they are not for."""

from __future__ import annotations

import pytest
import torch

from helpers.families import random_backbone
from helpers.models import prompts, random_batch, random_t5, relative
from softstart import Backbone
from softstart.algorithms import MAML, Episodes
from softstart.backbone import Decoding, T5Backbone, compiling
from softstart.backbone.unpadded import Unpadded
from softstart.errors import SoftstartError
from softstart.training.gradients import run_gradients
from softstart.training.hessian_products import run_hvps
from softstart.training.objective import PromptObjective

PADDED, EQUAL, ALONE = [(4, 2, 0), (9, 1, 1), (2, 3, 2)], [(5, 2, 0), (5, 2, 1), (5, 2, 2)], [(7, 1, 1)]
SHAPES = (PADDED, EQUAL, [(6, 3, 1), (3, 2, 0)], [(8, 3, 0), (8, 3, 2)], ALONE)


@pytest.fixture
def fresh():
    """Nothing is compiled yet, and nothing stays."""
    torch._dynamo.reset()
    compiling.compiled.cache_clear()
    yield
    torch._dynamo.reset()
    compiling.compiled.cache_clear()


@pytest.fixture
def graphs(fresh, monkeypatch):
    """The graphs that torch takes, run without a C compiler; counts what is compiled."""
    taken = []

    def backend(graph, inputs):
        from torch._dynamo.backends.registry import lookup_backend

        taken.append(graph)
        return lookup_backend("aot_eager")(graph, inputs)

    monkeypatch.setattr(compiling, "BACKEND", backend)
    return taken


@pytest.mark.parametrize(
    ("dtype", "padded"),
    [
        (torch.float64, True),
        (torch.bfloat16, False),
        pytest.param(torch.float64, False, marks=pytest.mark.slow),
        pytest.param(torch.bfloat16, True, marks=pytest.mark.slow),
    ],
)
def test_losses_and_gradients_are_those_of_plain_layers_at_any_size(
    exact_norm, graphs, monkeypatch, dtype, padded
):
    plain, compiled = random_t5(dtype), random_t5(dtype)
    compiled.compile()
    if padded:  # as on a GPU
        monkeypatch.setattr(Unpadded, "of", lambda mask: None)
    for rows in SHAPES:
        if rows is ALONE:  # torch specializes on sizes of one
            # An encoder layer with padding, or its halves without; one of equal rows; a decoder layer.
            assert len(graphs) == (3 if padded else 4)
        stack, batch = prompts(plain), random_batch(rows)
        (loss, gradient), (wanted, slope) = (run_gradients(b, stack, batch) for b in (compiled, plain))
        bound = 1e-12 if dtype == torch.float64 else 0.05
        assert relative(loss.double(), wanted.double()) < bound
        assert relative(gradient.double(), slope.double()) < bound


def test_long_outputs_go_through_plain_decoder_layers(exact_norm, graphs):
    plain, compiled = random_t5(), random_t5()
    compiled.compile()
    stack, batch = prompts(plain), random_batch([(4, 6, 0), (9, 1, 1), (3, 2, 2)])
    actual, expected = (run_gradients(b, stack, batch)[1] for b in (compiled, plain))
    assert relative(actual, expected) < 1e-12
    assert len(graphs) == 2  # the halves of an encoder layer


def test_dropout_and_evaluation_are_left_alone(graphs):
    plain, compiled = random_t5(dropout=0.3), random_t5(dropout=0.3)
    compiled.compile()
    stack = prompts(plain)
    batch = random_batch(PADDED)
    masked = random_batch(PADDED, dropout_seed=3)
    candidates = torch.tensor([[[2, 3], [4, 1]]] * 3)
    for do in (
        lambda b: run_hvps(b, stack, masked, torch.ones_like(stack)),
        lambda b: run_gradients(b, stack, masked)[1],
        lambda b: b.rank(stack, batch, candidates),
    ):
        assert torch.equal(do(compiled), do(plain))
    decoding = Decoding(max_new_tokens=4)
    assert compiled.generate(stack, batch, decoding) == plain.generate(stack, batch, decoding)
    assert not graphs


def test_an_exact_meta_gradient_is_that_of_plain_layers(exact_norm, graphs):
    plain, compiled = random_t5(), random_t5()
    compiled.compile()
    theta, rows = prompts(plain)[0], [(4, 2, 0), (9, 1, 0)]
    episodes = Episodes(1, [random_batch(rows, seed=k) for k in range(3)], random_batch(rows, seed=9))
    actual, expected = (
        MAML(inner_lr=0.3, inner_steps=3).meta_gradient(PromptObjective(b, None, 0), theta, episodes)[0]
        for b in (compiled, plain)
    )
    assert relative(actual, expected) < 1e-10
    assert graphs


def test_what_cannot_be_compiled_is_refused(tmp_path):
    random_backbone("bart", torch.float32).model.save_pretrained(tmp_path / "bart")
    random_backbone("bart", torch.float32).tokenizer.save_pretrained(tmp_path / "bart")
    with pytest.raises(SoftstartError, match="has nothing that torch can compile"):
        Backbone.from_pretrained(str(tmp_path / "bart"), device="cpu", compile=True)
    backbone = random_t5(torch.float32)
    backbone.model.save_pretrained(tmp_path / "t5")
    backbone.tokenizer.save_pretrained(tmp_path / "t5")
    path = str(tmp_path / "t5")
    assert Backbone.from_pretrained(path, device="cpu", compile=True).compiled
    with pytest.raises(SoftstartError, match="recomputed cannot be compiled"):
        Backbone.from_pretrained(path, device="cpu", compile=True, gradient_checkpointing=True)
    old = random_t5(torch.float32).model
    old.config.dense_act_fn = "relu"
    with pytest.raises(SoftstartError, match=r"only T5 v1\.1 and mT5"):
        T5Backbone(old, backbone.tokenizer).compile()
    twin = Backbone.from_pretrained(path, device="cpu", compile=True).trainable_copy()
    assert not twin.compiled


def test_a_machine_that_cannot_compile_is_told(fresh, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no C compiler found")

    monkeypatch.setattr(compiling, "BACKEND", broken)
    backbone = random_t5(torch.float32)
    backbone.compile()
    with pytest.raises(SoftstartError, match=r"torch cannot compile layers here.*no C compiler") as caught:
        run_gradients(backbone, prompts(backbone), random_batch(PADDED))
    assert "Leave compile out" in str(caught.value)


@pytest.mark.slow
def test_torch_s_own_compiler_gives_the_same(fresh):
    plain, compiled = random_t5(torch.float32), random_t5(torch.float32)
    compiled.compile()
    for rows in SHAPES:
        stack, batch = prompts(plain), random_batch(rows)
        actual, expected = (run_gradients(b, stack, batch)[1] for b in (compiled, plain))
        assert relative(actual, expected) < 1e-5
