"""Our T5 passes against transformers' own modules on the same weights; the kernels against plain formulas."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration

from helpers.models import VOCAB, prompts, random_batch, random_t5, relative, word_tokenizer
from softstart.backbone import Decoding, T5Backbone, kernels
from softstart.backbone.loading import recompute_layers
from softstart.backbone.unpadded import Unpadded

ROWS = [(4, 2, 0), (9, 1, 1), (2, 6, 2), (9, 3, 0), (11, 4, 3)]
KINDS = {
    "v1.1": {"feed_forward_proj": "gated-gelu"},
    "v1.0": {"feed_forward_proj": "relu", "tie_word_embeddings": True, "scale_decoder_outputs": True},
    "silu": {"feed_forward_proj": "gated-silu"},
    "wide": {"feed_forward_proj": "gated-gelu", "d_kv": 2},  # outputs longer than a head is wide
}


def both(kind="v1.1", dropout=0.0, family=T5ForConditionalGeneration, config=T5Config):
    """One network twice: run by us, and run by transformers."""
    torch.manual_seed(3)
    shape = {"vocab_size": VOCAB, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 3}
    made = config(
        **{**shape, "tie_word_embeddings": False, **KINDS[kind]}, dropout_rate=dropout,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = family(made).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.4)
    ours = T5Backbone(copy.deepcopy(model), word_tokenizer())
    theirs = T5Backbone(model, word_tokenizer())
    theirs.lean = False
    model.set_attn_implementation("eager")  # the one whose dropout has a defined order
    assert ours.lean
    return ours, theirs


def losses_and_gradients(backbone, twice=False, seed=None):
    leaf = prompts(backbone).requires_grad_()
    sums, counts = backbone.nll(leaf, random_batch(ROWS), twice=twice, seed=seed)
    (gradient,) = torch.autograd.grad(sums.sum(), leaf, create_graph=twice)
    second = torch.autograd.grad(gradient.square().sum(), leaf)[0] if twice else gradient
    return sums.detach(), counts, gradient.detach(), second


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_losses_and_both_derivatives_are_those_of_transformers(exact_norm, monkeypatch, kind, twice, padded):
    ours, theirs = both(kind)
    if padded:  # as on a GPU
        monkeypatch.setattr(Unpadded, "of", lambda mask: None)
    for a, b in zip(losses_and_gradients(ours, twice), losses_and_gradients(theirs, twice), strict=True):
        assert relative(a.double(), b.double()) < 1e-12


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_tokens_without_their_padding_come_back_to_their_places(lengths):
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    layout = Unpadded.of(mask)
    if len(set(lengths)) == 1:
        assert layout is None
        return
    x = torch.randn(*mask.shape, 3)
    packed = layout.pack(x)
    assert packed.shape == (1, sum(lengths), 3)
    assert [n for rows, n in layout.groups for _ in range(rows)] == sorted(lengths)
    assert torch.equal(layout.unpack(packed), x * mask[..., None])


def test_padding_that_is_not_on_the_right_stays():
    for rows in ([[1, 0, 1], [1, 1, 1]], [[0, 1, 1], [1, 1, 1]]):
        assert Unpadded.of(torch.tensor(rows)) is None


def test_rows_are_cut_by_length_only_where_their_padding_would_be_computed():
    backbone = random_t5(dropout=0.1)
    counts = {
        seed: len(list(backbone.parts(random_batch(ROWS, dropout_seed=seed), 999, 3, cost=0)))
        for seed in (None, 1)
    }
    assert counts == {None: 1, 1: len({length for length, _, _ in ROWS})}


def test_mt5_too(exact_norm, monkeypatch):
    from transformers.models.mt5 import modeling_mt5
    from transformers.models.t5 import modeling_t5

    monkeypatch.setattr(modeling_mt5.MT5LayerNorm, "forward", modeling_t5.T5LayerNorm.forward)
    ours, theirs = both(family=MT5ForConditionalGeneration, config=MT5Config)
    for a, b in zip(losses_and_gradients(ours), losses_and_gradients(theirs), strict=True):
        assert relative(a.double(), b.double()) < 1e-12


@pytest.mark.parametrize("kind", ["v1.1", "wide"])
def test_dropout_falls_on_the_same_entries_as_in_transformers(exact_norm, kind):
    ours, theirs = both(kind, dropout=0.3)
    for a, b in zip(losses_and_gradients(ours, seed=5), losses_and_gradients(theirs, seed=5), strict=True):
        assert relative(a.double(), b.double()) < 1e-12
    assert relative(losses_and_gradients(ours, seed=5)[0], losses_and_gradients(ours)[0]) > 0.01


def test_gradients_of_every_weight_are_those_of_transformers(exact_norm):
    gradients = []
    for backbone in both():
        twin = backbone.trainable_copy()
        sums, _ = twin.nll(prompts(twin), random_batch(ROWS))
        sums.sum().backward()
        gradients.append({name: p.grad for name, p in twin.model.named_parameters()})
    ours, theirs = gradients
    for name, expected in theirs.items():
        assert relative(ours[name], expected) < 1e-11, name


def test_a_trained_position_bias_is_seen_at_once(exact_norm):
    backbone = random_t5()
    before = backbone.nll(prompts(backbone), random_batch(ROWS))[0]
    table = backbone.model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    with torch.no_grad():
        table += torch.randn(table.shape, dtype=table.dtype)
    ours = backbone.nll(prompts(backbone), random_batch(ROWS))[0]
    backbone.lean = False
    assert relative(ours, backbone.nll(prompts(backbone), random_batch(ROWS))[0]) < 1e-12
    assert relative(ours, before) > 1e-3


@pytest.mark.parametrize("penalty", [1.0, 2.5])
@pytest.mark.parametrize("beams", [1, 4])
def test_outputs_are_those_of_transformers_token_by_token(exact_norm, penalty, beams):
    ours, theirs = both()
    # An end token that is often chosen: rows leave the batch one by one.
    for backbone in (ours, theirs):
        with torch.no_grad():
            backbone.model.lm_head.weight[1] *= 4.0
    stack, batch = prompts(ours, scale=2.0), random_batch([(n % 9 + 1, 1, n % 4) for n in range(24)])
    decoding = Decoding(num_beams=beams, max_new_tokens=9, repetition_penalty=penalty)
    got, expected = (b.generate_ids(*b.place(stack, batch), decoding) for b in (ours, theirs))
    assert torch.equal(got, expected)
    assert beams > 1 or len({int((row == 0).sum()) for row in got}) > 2


def test_a_model_with_recomputed_layers_is_left_to_transformers():
    backbone = random_t5()
    recompute_layers(backbone.model)
    assert not T5Backbone(backbone.model, backbone.tokenizer).lean


def test_joined_weights_are_views_and_keep_the_checkpoint():
    backbone = random_t5(torch.float32)
    attention = backbone.model.encoder.block[1].layer[0].SelfAttention
    weight = kernels.joined(attention.q, attention.k, attention.v)
    assert weight.data_ptr() == attention.q.weight.data_ptr()
    assert torch.equal(weight, torch.cat([m.weight for m in (attention.q, attention.k, attention.v)]))
    twin = backbone.trainable_copy()
    assert twin.model.state_dict().keys() == backbone.model.state_dict().keys()


@pytest.mark.parametrize("rows", [3, 200])
@pytest.mark.parametrize("mkl", [False, True])
def test_linear_is_a_product_with_both_gradients_and_a_second_derivative(monkeypatch, rows, mkl):
    monkeypatch.setattr(kernels, "_mkl_leads", lambda: mkl)
    torch.manual_seed(0)
    x, w, v = torch.randn(2, rows, 24), torch.randn(40, 24), torch.randn(2, rows, 24)

    def derivatives(product, x, w, v):
        x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
        out = product(x, w)
        gx, gw = torch.autograd.grad(out.tanh().sum(), (x, w), create_graph=True)
        (second,) = torch.autograd.grad((gx * v).sum(), x)
        return out.detach(), gx.detach(), gw.detach(), second

    exact = derivatives(torch.nn.functional.linear, x.double(), w.double(), v.double())
    for got, expected in zip(derivatives(kernels.linear, x, w, v), exact, strict=True):
        assert got.dtype == torch.float32
        assert relative(got.double(), expected) < 1e-5


@pytest.mark.parametrize("missing", [AttributeError("no such operator"), RuntimeError("another schema")])
def test_linear_is_torchs_own_where_the_private_operator_is_missing_or_changed(monkeypatch, missing):
    class Operators:
        def __getattr__(self, name):
            raise missing

    monkeypatch.setattr(kernels, "_mkl_leads", lambda: False)
    torch.manual_seed(0)
    x, w = torch.randn(200, 24), torch.randn(40, 24)
    usual = kernels.linear(x, w)
    with monkeypatch.context() as patch:
        patch.setattr(torch.ops, "mkldnn", Operators())
        kernels._pointwise.cache_clear()
        try:
            assert torch.equal(kernels.linear(x, w), torch.nn.functional.linear(x, w))
        finally:
            kernels._pointwise.cache_clear()
    assert relative(usual, torch.nn.functional.linear(x, w)) < 1e-5
    assert torch.equal(kernels.linear(x, w), usual)


@pytest.mark.parametrize(
    ("name", "mkl", "leads"),
    [
        ("Intel(R) Xeon(R) Processor", True, True),
        ("Intel(R) Xeon(R)", False, False),
        ("AMD EPYC", True, False),
    ],
)
def test_torchs_product_is_taken_where_it_is_mkl_on_an_intel_processor(monkeypatch, name, mkl, leads):
    monkeypatch.setattr(kernels, "processor", lambda: name)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    assert kernels._mkl_leads.__wrapped__() is leads


def test_in_bfloat16_we_are_as_near_to_the_exact_numbers_as_transformers_is(exact_norm):
    """Both round to 8 bits after every operation; the reference is the same network in float64."""
    ours, theirs, exact = (random_t5(torch.bfloat16) for _ in range(3))
    theirs.lean, exact.lean = False, False
    exact.model.double()
    assert ours.lean
    assert ours.prompt_dtype == torch.float32
    stack = prompts(ours)

    def answers(backbone, seed):
        leaf = stack.to(backbone.prompt_dtype).requires_grad_()
        sums, _ = backbone.nll(leaf, random_batch(ROWS, seed))
        return sums.detach().double(), torch.autograd.grad(sums.sum(), leaf)[0].double()

    errors = torch.tensor(
        [
            [[(x - y).norm() / y.norm() for x, y in zip(answers(b, seed), truth, strict=True)] for b in pair]
            for seed in range(6)
            for truth, pair in [(answers(exact, seed), (ours, theirs))]
        ]
    ).mean(0)  # [ours or theirs, losses or gradients]
    assert errors[0, 0] < 0.01
    assert errors[0, 1] < 0.04
    assert (errors[0] < 1.25 * errors[1]).all()
    assert (errors[0] > 1e-5).all()  # it did run in bfloat16


def test_norm_and_gate_have_their_numerical_derivatives():
    torch.manual_seed(1)
    x, w, gates = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((5, 6), (6,), (5, 8)))
    assert torch.autograd.gradcheck(lambda x, w: kernels.rms_norm(x, w, 1e-6), (x, w))
    assert torch.autograd.gradcheck(kernels.gated_gelu, (gates,))
    assert relative(*(kernels.gated_gelu(gates.detach(), twice=t) for t in (False, True))) < 1e-14
