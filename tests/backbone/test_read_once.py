"""What is read once gives the numbers of what is read every time: prompts of a run, texts for good."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.families import CAUSAL, exact_norms, exact_softmax, random_backbone
from helpers.models import prompts, random_batch, relative
from softstart.backbone import IGNORE, Batch, CausalBackbone, Decoding
from softstart.backbone.text_cache import VARIABLE, TextCache, default_budget
from softstart.errors import SoftstartError
from softstart.training.gradients import run_gradients
from softstart.training.hessian_products import run_hvps
from softstart.training.kept_graphs import Graph

EXACT = 1e-10
PLACEMENTS = ("prefix", "suffix")
LENGTHS = [(4, 2, 0), (7, 1, 1), (2, 3, 2), (6, 2, 1), (3, 1, 0), (9, 3, 2)]


@pytest.fixture(autouse=True)
def _softmax_of_its_own_precision(monkeypatch):
    exact_softmax(monkeypatch)


def pair(name: str, placement: str, **texts: object) -> tuple[CausalBackbone, CausalBackbone]:
    """The same weights, read once and read as a whole every time."""
    once, whole = (random_backbone(name, placement=placement) for _ in range(2))
    assert isinstance(once, CausalBackbone)
    assert isinstance(whole, CausalBackbone)
    for backbone in (once, whole):
        exact_norms(backbone.model)
    for key, value in texts.items():
        setattr(once, key, value)
    whole.read_once = False
    return once, whole


def twice_over(batch: Batch) -> Batch:
    """Every text twice, under other prompts."""
    names = ("input_ids", "attention_mask", "labels")
    doubled = {name: getattr(batch, name).repeat(2, 1) for name in names}
    return dataclasses.replace(batch, **doubled, run=torch.cat((batch.run, batch.run.flip(0))))


def random_like(stack: torch.Tensor) -> torch.Tensor:
    """The same random vectors every time."""
    return torch.randn(stack.shape, generator=torch.Generator().manual_seed(5), dtype=stack.dtype)


def derivatives(backbone, stack, batch, vectors):
    leaf = stack.clone().requires_grad_()
    sums, counts = backbone.nll(leaf, batch, twice=True)
    (gradient,) = torch.autograd.grad(sums.sum(), leaf, create_graph=True)
    (product,) = torch.autograd.grad((gradient * vectors).sum(), leaf)
    return sums.detach(), counts, gradient.detach(), product


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", CAUSAL)
def test_losses_gradients_and_products_are_those_of_whole_rows(name, placement):
    once, whole = pair(name, placement)
    stack, batch = prompts(once, runs=3), twice_over(random_batch(LENGTHS))
    vectors = random_like(stack)
    got, expected = (derivatives(b, stack, batch, vectors) for b in (once, whole))
    assert got[1].equal(expected[1])
    for mine, theirs in zip(got, expected, strict=True):
        assert relative(mine.double(), theirs.double()) < EXACT
    assert relative(once.nll(stack, batch)[0], expected[0]) < EXACT  # fused kernels


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", CAUSAL)
def test_candidates_rank_as_with_whole_rows(name, placement):
    once, whole = pair(name, placement)
    stack, batch = prompts(once, runs=3), twice_over(random_batch(LENGTHS))
    generator = torch.Generator().manual_seed(0)
    candidates = torch.randint(3, 60, (len(batch), 4, 3), generator=generator)
    candidates[:, 1, 2] = IGNORE
    candidates[:, 2, 1:] = IGNORE
    candidates[3, 3] = IGNORE  # a candidate without tokens ranks last
    expected = whole.rank(stack, batch, candidates)
    for bound in (None, 40, 1):
        got = once.rank(stack, batch, candidates, bound)
        assert got.isinf().equal(expected.isinf())
        assert relative(got[expected.isfinite()], expected[expected.isfinite()]) < EXACT


DECODINGS = (
    Decoding(max_new_tokens=5),
    Decoding(max_new_tokens=5, repetition_penalty=1.7),
    Decoding(num_beams=3, max_new_tokens=5),
    Decoding(num_beams=4, max_new_tokens=6, repetition_penalty=2.5, length_penalty=0.5),
)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", CAUSAL)
def test_greedy_and_beam_search_write_as_with_whole_rows(name, placement):
    once, whole = pair(name, placement)
    stack, batch = prompts(once, runs=3), random_batch(LENGTHS)
    for backbone in (once, whole):
        backbone.model.generation_config.eos_token_id = [1, 9, 20, 21, 33, 47]
    for decoding in DECODINGS:
        together = once.part_ids(stack, batch, decoding).tolist()
        for row, ids in enumerate(together):
            alone = whole.part_ids(stack, batch.select(torch.tensor([row])), decoding)[0].tolist()
            assert ids[: len(alone)] == alone
            assert set(ids[len(alone) :]) <= {0}


@pytest.mark.parametrize("name", ["gpt2", "gemma3_text"])
@pytest.mark.parametrize("decoding", DECODINGS)
def test_whole_rows_of_other_lengths_do_not_change_what_is_penalized(name, decoding):
    whole = random_backbone(name, torch.float32)
    whole.read_once = False
    stack, batch = prompts(whole, runs=3), random_batch(LENGTHS)
    together = whole.generate(stack, batch, decoding)
    assert together == [
        whole.generate(stack, batch.select(torch.tensor([row])), decoding)[0] for row in range(len(batch))
    ]


@pytest.mark.parametrize("placement", PLACEMENTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(
        st.tuples(st.integers(0, 9), st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=7
    ),
    seed=st.integers(0, 3),
)
def test_any_ragged_rows(placement, lengths, seed):
    once, whole = pair("llama", placement)
    stack, batch = prompts(once, runs=3), random_batch(lengths, seed=seed)
    assert relative(once.nll(stack, batch)[0], whole.nll(stack, batch)[0]) < EXACT


@pytest.mark.parametrize("budget", [0, 2000, 6000, None])
def test_kept_texts_and_texts_read_again_give_the_same(budget):
    once, whole = pair("llama", "suffix", text_cache=budget)
    stack = prompts(once, runs=3)
    for seed in (0, 1, 2, 0, 1):
        batch = random_batch(LENGTHS, seed=seed)
        assert relative(once.nll(stack, batch)[0], whole.nll(stack, batch)[0]) < EXACT
    texts = once.once.texts
    if budget is None:
        assert (texts.texts_read, texts.texts_kept) == (18, 12)
    elif budget == 0:
        assert (texts.texts_read, texts.texts_kept) == (30, 0)
    else:
        assert texts.texts_read > 18  # some made room and were read again


def test_the_budget_can_be_given_in_mib(monkeypatch):
    cpu = torch.device("cpu")
    assert default_budget(cpu) > 2**20
    monkeypatch.setenv(VARIABLE, "3")
    assert default_budget(cpu) == 3 * 2**20
    monkeypatch.setenv(VARIABLE, "much")
    with pytest.raises(SoftstartError, match="SOFTSTART_TEXT_CACHE: 'much' is not a number of MiB"):
        default_budget(cpu)


def test_processes_share_the_default_budget():
    cpu, mib = torch.device("cpu"), 2**20
    whole, fourth = default_budget(cpu), default_budget(cpu, 4)
    assert abs(4 * fourth / whole - 1) < 0.2  # the free memory changes in between
    once, _ = pair("llama", "suffix")
    once.keep_texts(3, processes=4)
    assert once.once.texts.budget == 3 * mib
    once.keep_texts(None, processes=4)
    assert (once.once.texts.budget, once.once.texts.processes) == (None, 4)


def test_a_budget_below_one_batch_is_told_once(caplog):
    once, _ = pair("llama", "suffix", text_cache=2000)
    stack = prompts(once, runs=3)
    with caplog.at_level("INFO", "softstart"):
        for seed in range(3):
            once.nll(stack, random_batch(LENGTHS, seed=seed))
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "texts are read once: up to 0 MiB of keys and values are kept (0 KiB a token)",
        "a batch needs more texts than can be kept: they are read again (slower)",
    ]


WIDE = 2**17
"""Entries of a head, so many that a long text fits into no machine."""


def wide_pairs(ids: torch.Tensor, mask: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys that say what was read, in the memory of the ids."""
    keys, values = (
        pair[None, :, :, None].expand(1, *ids.shape, WIDE) for pair in (ids.double(), -ids.double())
    )
    return [(keys, values)]


def texts_of(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = (torch.zeros(len(lengths), max(lengths), dtype=torch.long) for _ in range(2))
    for row, length in enumerate(lengths):
        ids[row, :length], mask[row, :length] = torch.arange(1, length + 1) + row, 1
    return ids, mask


def test_where_no_memory_is_left_older_texts_make_room(monkeypatch, caplog):
    monkeypatch.setattr("softstart.backbone.text_cache.FIRST", 4)
    texts = TextCache(wide_pairs, budget=2**60)
    for lengths in ((3,), (2**21,), (3,), (2, 2)):
        ids, mask = texts_of(*lengths)
        with caplog.at_level("INFO", "softstart"):
            (keys, values), *_ = texts.contexts(ids, mask).pairs
        assert keys[0, :, :, 0].equal(ids.double())
        assert values[0, :, :, -1].equal(-ids.double())
    assert "no memory for more texts" in caplog.text
    assert texts.texts_kept == 1


def test_where_no_memory_is_left_to_read_all_texts_make_room(caplog):
    room = [3, 0]  # calls that succeed before one fails

    def read(ids, mask):
        if not room[0]:
            room[:] = [100, room[1] + 1]
            raise MemoryError
        room[0] -= 1
        return [(ids.double()[None, ..., None], ids.double()[None, ..., None])]

    texts = TextCache(read, budget=2**20)
    rows = [texts_of(3), texts_of(2, 4), texts_of(5), texts_of(3, 6), texts_of(3, 6)]
    for ids, mask in rows:
        with caplog.at_level("INFO", "softstart"):
            ((keys, _),) = texts.contexts(ids, mask).pairs
        assert keys[0, :, :, 0].equal(ids.double())
    assert room[1] == 1
    assert "no memory to read texts (MemoryError)" in caplog.text
    assert texts.texts_kept > 0


def test_an_attention_that_is_not_known_reads_whole_rows(caplog):
    backbone = random_backbone("bloom", torch.float32)
    own = random_backbone("llama")
    for layer in own.model.model.layers:  # a model with attention of its own

        def forward(hidden_states, *, of=layer.self_attn, **_):
            return of.o_proj(of.q_proj(hidden_states)), None

        layer.self_attn.forward = forward
    for whole in (backbone, own):
        stack, batch = prompts(whole, runs=3), random_batch(LENGTHS)
        with caplog.at_level("INFO", "softstart"):
            for _ in range(2):
                whole.nll(stack.to(whole.prompt_dtype), batch)
        assert whole.once is None
    reason = "rows are read as a whole, for its attention is not a known one"
    assert [r.getMessage() for r in caplog.records] == [f"{name}: {reason}" for name in ("bloom", "llama")]


def test_texts_in_bfloat16_are_close_and_half_as_large():
    once, whole = pair("llama", "suffix", text_cache_dtype=torch.bfloat16)
    stack, batch = prompts(once, runs=3), random_batch(LENGTHS)
    assert 1e-6 < relative(once.nll(stack, batch)[0], whole.nll(stack, batch)[0]) < 0.02


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_dropout_trained_weights_and_no_prompt_read_whole_rows(placement):
    once, whole = pair("gpt2", placement)
    stack, batch = prompts(once, runs=3), random_batch(LENGTHS, dropout_seed=3)
    for module in (*once.model.modules(), *whole.model.modules()):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    assert once.nll(stack, batch, seed=3)[0].equal(whole.nll(stack, batch, seed=3)[0])
    twin = once.trainable_copy()
    twin.nll(stack, batch)[0].sum().backward()
    assert all(p.grad is not None for p in twin.model.transformer.h.parameters())
    assert once.once.texts.texts_read == 0


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3_text"])
@pytest.mark.parametrize("max_tokens", [None, 24])
def test_training_reads_prompts_once_for_all_micro_batches(name, placement, max_tokens):
    once, whole = pair(name, placement)
    stack, batch = prompts(once, runs=3), twice_over(random_batch(LENGTHS))
    vectors = random_like(stack)
    losses, gradient = run_gradients(once, stack, batch, max_tokens)
    expected_losses, expected = run_gradients(whole, stack, batch)
    assert relative(losses, expected_losses) < EXACT
    assert relative(gradient, expected) < EXACT
    product = run_hvps(whole, stack, batch, vectors)
    assert relative(run_hvps(once, stack, batch, vectors, max_tokens), product) < EXACT
    graph = Graph(stack, batch)
    assert relative(run_gradients(once, stack, batch, max_tokens, graph=graph)[1], expected) < EXACT
    assert relative(graph.hvp(vectors), product) < EXACT
