"""Rows do not interact: neighbors, padding and stacking change nothing."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.models import prompts, random_batch, random_t5, relative
from softstart.backbone import IGNORE, Decoding, candidates_tensor
from softstart.backbone.base import summed_nll
from softstart.errors import SoftstartError
from softstart.prompt import PLACEMENTS

EXACT = [name for name, place in PLACEMENTS.items() if not place.rows_interact]
"""Placements under which a row does not see its padding."""

rows = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=7)


@pytest.mark.parametrize("placement", EXACT)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=rows)
def test_ragged_batch_equals_one_row_at_a_time(exact_norm, placement, lengths):
    backbone = random_t5(placement=placement)
    stack, batch = prompts(backbone), random_batch(lengths)
    sums, counts = backbone.nll(stack, batch)
    for b in range(len(batch)):
        alone = batch.select(torch.tensor([b]))
        one, n = backbone.nll(stack[alone.run], _run_zero(alone))
        assert n[0] == counts[b] == lengths[b][1]
        assert relative(sums[b], one[0]) < 1e-12


@pytest.mark.parametrize("placement", EXACT)
def test_nll_equals_transformers_own_loss(exact_norm, placement):
    backbone = random_t5(placement=placement)
    stack, batch = prompts(backbone), random_batch([(7, 4, 2)])
    text = backbone.embedding(batch.input_ids)
    parts = (stack[2:3], text) if placement == "prefix" else (text, stack[2:3])
    expected = backbone.model(inputs_embeds=torch.cat(parts, 1), labels=batch.labels).loss
    sums, counts = backbone.nll(stack, batch)
    assert relative(sums[0] / counts[0], expected) < 1e-12


def test_suffix_puts_the_prompt_between_text_and_padding():
    text = torch.arange(1.0, 7.0).view(2, 3, 1)
    prompt = torch.tensor([[[-1.0], [-2.0]], [[-3.0], [-4.0]]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    joined, joined_mask = PLACEMENTS["suffix"].join(prompt, text, mask)
    assert joined[0, :, 0].tolist() == [1, 2, 3, -1, -2]
    assert joined[1, :3, 0].tolist() == [4, -3, -4]
    assert joined_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]


def test_twice_differentiable_path_gives_the_same_loss(t5):
    stack, batch = prompts(t5), random_batch([(5, 2, 0), (9, 3, 1)])
    assert relative(t5.nll(stack, batch, twice=True)[0], t5.nll(stack, batch)[0]) < 1e-12


def test_dropout_masks_are_replayed_by_their_seed(exact_norm):
    backbone = random_t5(dropout=0.3)
    stack, batch = prompts(backbone), random_batch([(5, 2, 0), (9, 3, 1)])
    before = torch.random.get_rng_state()
    first = backbone.nll(stack, batch, seed=7)[0]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(backbone.nll(stack, batch, seed=7)[0], first)
    assert not torch.equal(backbone.nll(stack, batch, seed=8)[0], first)
    assert not torch.equal(backbone.nll(stack, batch)[0], first)
    assert not backbone.model.training


@pytest.mark.parametrize(("beams", "penalty"), [(1, 1.0), (3, 1.0), (4, 2.5)])  # the last as published
@pytest.mark.parametrize("placement", EXACT)
def test_generation_of_a_pack_equals_one_prompt_at_a_time(exact_norm, placement, beams, penalty):
    backbone = random_t5(placement=placement)
    stack = prompts(backbone, scale=3.0)
    batch = random_batch([(n % 11 + 1, 2, n % 4) for n in range(13)])
    decoding = Decoding(num_beams=beams, max_new_tokens=6, repetition_penalty=penalty)
    packed = backbone.generate(stack, batch, decoding, max_tokens=40)
    alone = []
    for b in range(len(batch)):
        row = batch.select(torch.tensor([b]))
        text = backbone.embedding(row.input_ids)
        own = stack[row.run]
        parts = (own, text) if placement == "prefix" else (text, own)
        ids = backbone.model.generate(
            inputs_embeds=torch.cat(parts, 1), num_beams=beams, max_new_tokens=6, do_sample=False,
            early_stopping=beams > 1, repetition_penalty=penalty,
        )  # fmt: skip
        alone.append(backbone.tokenizer.decode(ids[0], skip_special_tokens=True))
    assert packed == alone
    assert len(set(packed)) > 3


def test_rank_equals_the_loss_of_each_candidate(t5):
    stack = prompts(t5)
    batch = random_batch([(4, 1, 0), (9, 1, 1), (2, 1, 3)])
    choices = [[[5, 6], [7], [8, 9, 10]], [[11], [12]], [[13, 14], [15], []]]
    scores = t5.rank(stack, batch, candidates_tensor(choices, IGNORE), max_tokens=20)
    for b, row in enumerate(choices):
        for c in range(3):
            if c >= len(row) or not row[c]:
                assert scores[b, c] == -torch.inf
                continue
            single = batch.select(torch.tensor([b]))
            single = type(single)(single.input_ids, single.attention_mask, torch.tensor([row[c]]), single.run)
            assert relative(scores[b, c], -t5.nll(stack, single)[0][0]) < 1e-12


@given(lengths=rows, budget=st.integers(1, 60), cost=st.sampled_from([None, 0, 4, 1000]))
def test_micro_batches_hold_every_row_once_within_the_budget(lengths, budget, cost):
    batch = random_batch(lengths)
    seen = []
    for index, part in batch.micro_batches(budget, 3, cost):
        seen += index.tolist()
        longest = int(part.attention_mask.sum(1).max())
        assert part.input_ids.shape[1] == longest
        assert len(part) == 1 or len(part) * (longest + 3) <= budget
    assert sorted(seen) == list(range(len(lengths)))


@given(lengths=rows, cost=st.integers(0, 30))
def test_micro_batches_are_cut_where_that_costs_least(lengths, cost):
    def price(groups):
        return sum(len(group) * (max(group) + 3) + cost for group in groups)

    groups_of_rows = [
        part.attention_mask.sum(1).tolist() for _, part in random_batch(lengths).micro_batches(999, 3, cost)
    ]
    ordered = sorted(length for length, _, _ in lengths)
    cuts = [c for n in range(len(ordered)) for c in combinations(range(1, len(ordered)), n)]
    every = [[ordered[i:j] for i, j in pairwise((0, *c, len(ordered)))] for c in cuts]
    assert price(groups_of_rows) == min(map(price, every))


def test_no_weight_can_be_trained_and_a_wrong_width_is_refused(t5):
    assert not any(p.requires_grad for p in t5.model.parameters())
    with pytest.raises(SoftstartError, match="width 5 but backbone 'random-t5' takes width 16"):
        t5.nll(torch.zeros(1, 3, 5, dtype=torch.float64), random_batch([(3, 2, 0)]))


def test_digest_depends_on_every_weight():
    a, b = random_t5(seed=1), random_t5(seed=1)
    assert a.digest == b.digest
    with torch.no_grad():
        b.model.decoder.final_layer_norm.weight[3] += 1e-6
    del b.__dict__["digest"]
    assert a.digest != b.digest


def _run_zero(batch):
    return type(batch)(batch.input_ids, batch.attention_mask, batch.labels, torch.zeros_like(batch.run))


@pytest.mark.parametrize("vocabulary", [2048, 32128])
def test_the_sum_over_the_vocabulary_is_as_exact_as_along_the_last_dimension(vocabulary):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, vocabulary, generator=generator) * 4
    labels = torch.randint(vocabulary, (6, 4), generator=generator)
    labels[0, 2:] = IGNORE
    sums, counts = summed_nll(logits, labels)
    assert counts.tolist() == [2, 4, 4, 4, 4, 4]
    exact = -logits.double().log_softmax(-1).gather(-1, labels.clamp_min(0)[..., None])[..., 0]
    exact = (exact * (labels >= 0)).sum(1)
    last = -logits.log_softmax(-1).gather(-1, labels.clamp_min(0)[..., None])[..., 0]
    last = (last * (labels >= 0)).sum(1)
    assert torch.equal(sums, last)
    elsewhere = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(1)
    assert (sums - exact).abs().max() < 0.5 * (elsewhere - exact).abs().max()
