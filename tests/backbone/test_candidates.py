"""Candidates as trees: the log-likelihood of each is that of the candidate alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.families import CAUSAL, exact_norms, exact_softmax, random_backbone
from helpers.models import prompts, random_batch, random_t5, relative
from softstart.backbone import IGNORE, Backbone, candidates_tensor
from softstart.backbone.candidates import Tree, trees

EXACT = 1e-10
LENGTHS = [(4, 1, 0), (7, 1, 1), (2, 1, 2), (6, 1, 1)]
SHARED = [[5, 6, 7, 1], [5, 6, 1], [5, 6, 7, 8, 9, 1], [5, 1], [11, 6, 7, 1], [11, 1], [5, 6, 7, 1], [12]]
OTHER = [[5, 6], [7, 6], [7, 5, 1], [7], [], [5], [9, 9, 9, 9, 9, 1], [9, 9, 9, 8]]


@pytest.fixture(autouse=True)
def _softmax_of_its_own_precision(monkeypatch):
    exact_softmax(monkeypatch)


def alone(backbone: Backbone, stack: torch.Tensor, batch, sets: list[list[list[int]]], of: list[int]):
    """Every candidate of every row in a pass of its own: the plain sum over its tokens."""
    scores = torch.full((len(batch), max(map(len, sets))), -torch.inf, dtype=torch.float64)
    for b, number in enumerate(of):
        row = batch.select(torch.tensor([b]))
        for c, ids in enumerate(sets[number]):
            if ids:
                single = type(row)(row.input_ids, row.attention_mask, torch.tensor([ids]), row.run)
                scores[b, c] = -backbone.nll(stack, single)[0][0]
    return scores


def check(backbone: Backbone, sets, of, bounds=(None, 40, 1)) -> None:
    stack, batch = prompts(backbone, runs=3), random_batch(LENGTHS)
    expected = alone(backbone, stack, batch, sets, of)
    candidates = candidates_tensor(sets, IGNORE)
    for bound in bounds:
        got = backbone.rank(stack, batch, candidates, bound, torch.tensor(of))
        assert got.isinf().equal(expected.isinf())
        assert relative(got[got.isfinite()], expected[got.isfinite()]) < EXACT


@pytest.mark.parametrize("placement", ["prefix", "suffix"])
@pytest.mark.parametrize("name", CAUSAL)
def test_candidates_of_a_tree_have_the_likelihood_they_have_alone(name, placement):
    backbone = random_backbone(name, placement=placement)
    exact_norms(backbone.model)
    check(backbone, [SHARED, OTHER], [0, 1, 1, 0])


def test_so_they_have_in_the_decoder_of_t5(exact_norm):
    check(random_t5(), [SHARED, OTHER], [0, 1, 1, 0])


def test_and_where_nothing_is_read_once():
    backbone = random_backbone("llama")
    exact_norms(backbone.model)
    backbone.read_once = False
    check(backbone, [SHARED, OTHER], [0, 1, 1, 0])


WORDS = st.lists(st.lists(st.integers(3, 6), max_size=5), min_size=1, max_size=9)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(words=WORDS, most=st.integers(1, 12))
def test_trees_hold_every_beginning_once(words, most):
    found = trees(candidates_tensor([words], IGNORE)[0], most)
    columns = [column for tree in found for column in tree.columns.tolist()]
    assert sorted(columns) == [c for c, word in enumerate(words) if word]
    for tree in found:
        assert len(tree) <= most or len(tree.columns) == 1
        beginnings = [spelled(tree, node) for node in range(len(tree))]
        assert len(set(beginnings)) == len(tree)
        for column, path in zip(tree.columns.tolist(), tree.paths.tolist(), strict=True):
            taken = [edge for edge in path if edge < len(tree.nodes)]
            assert [int(tree.follows[edge]) for edge in taken] == words[column]
            assert [beginnings[int(tree.nodes[edge])] for edge in taken] == [
                tuple(words[column][:n]) for n in range(len(taken))
            ]


def spelled(tree: Tree, node: int) -> tuple[int, ...]:
    """What a node stands for, from the nodes that it sees."""
    seen = [n for n in tree.sees[node].nonzero().squeeze(1).tolist() if n]
    assert [int(tree.depths[n]) for n in seen] == list(range(1, len(seen) + 1))
    return tuple(int(tree.tokens[n]) for n in seen)


def test_a_thousand_labels_of_one_beginning_read_it_once():
    words = [[3, 4, 5, 6 + i // 40, 7 + i % 40, 1] for i in range(1000)]
    found = trees(torch.tensor(words), 256)
    assert sum(map(len, found)) < 1000 + 25 + 5 * len(found)


@pytest.mark.filterwarnings("error::FutureWarning")
def test_without_a_prompt_texts_are_kept_under_either_name_of_transformers():
    backbone = random_backbone("llama", torch.float32)
    batch, none = random_batch([(4, 1, 0), (7, 1, 0)]), torch.zeros(1, 0, backbone.width)
    got = backbone.rank(none, batch, candidates_tensor([SHARED], IGNORE), None, torch.tensor([0, 0]))
    assert relative(got, alone(backbone, none, batch, [SHARED], [0, 0])) < 1e-5
