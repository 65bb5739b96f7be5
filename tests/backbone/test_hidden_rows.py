"""A row that is read without some rows of its prompt has the numbers of the shorter prompt."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.families import FAMILY, exact_norms, exact_softmax, random_backbone
from helpers.models import prompts, random_batch, random_t5, relative
from softstart.backbone import Decoding
from softstart.errors import SoftstartError
from softstart.training.gradients import run_gradients
from softstart.training.hessian_products import run_hvps

ROWS = [(4, 2, 0), (7, 1, 1), (2, 3, 2), (6, 2, 1), (3, 1, 0), (9, 3, 2)]
LENGTH = 5


@pytest.fixture(autouse=True)
def _softmax_of_its_own_precision(monkeypatch):
    exact_softmax(monkeypatch)


def masked(batch, seed=0, all_of_first=False):
    hidden = torch.rand(len(batch), LENGTH, generator=torch.Generator().manual_seed(seed)) < 0.4
    hidden[:, 1], hidden[1] = False, False  # each row sees one at least, one row sees all
    if all_of_first:
        hidden[0] = True
    return replace(batch, hidden=hidden)


def one_by_one(backbone, stack, batch, vectors):
    """Losses, gradient and Hessian-vector product by rows alone, each under its shorter prompt."""
    leaf = stack.clone().requires_grad_()
    sums = []
    for b in range(len(batch)):
        row = replace(batch.select(torch.tensor([b])), run=torch.tensor([0]), hidden=None)
        shorter = leaf[batch.run[b]][~batch.hidden[b]][None]
        sums.append(backbone.nll(shorter, row, twice=True)[0])
    total = torch.cat(sums)
    (gradient,) = torch.autograd.grad(total.sum(), leaf, create_graph=True)
    (product,) = torch.autograd.grad((gradient * vectors).sum(), leaf)
    return total.detach(), gradient.detach(), product


def together(backbone, stack, batch, vectors, twice=True):
    leaf = stack.clone().requires_grad_()
    sums, _ = backbone.nll(leaf, batch, twice=twice)
    (gradient,) = torch.autograd.grad(sums.sum(), leaf, create_graph=twice)
    if not twice:
        return sums.detach(), gradient
    (product,) = torch.autograd.grad((gradient * vectors).sum(), leaf)
    return sums.detach(), gradient.detach(), product


def vectors_for(stack):
    return torch.randn(stack.shape, generator=torch.Generator().manual_seed(5), dtype=stack.dtype)


@pytest.mark.parametrize("placement", ["prefix", "suffix"])
@pytest.mark.parametrize("name", ["t5", *FAMILY])
def test_losses_gradients_and_products_are_those_of_the_shorter_prompts(name, placement, exact_norm):
    backbone = random_t5(placement=placement) if name == "t5" else random_backbone(name, placement=placement)
    if name != "t5":
        exact_norms(backbone.model)
    stack = prompts(backbone, runs=3, length=LENGTH)
    for all_of_first in (False, True):
        batch, vectors = masked(random_batch(ROWS), all_of_first=all_of_first), vectors_for(stack)
        expected = one_by_one(backbone, stack, batch, vectors)
        got = together(backbone, stack, batch, vectors)
        for mine, theirs in zip(got, expected, strict=True):
            assert relative(mine, theirs) < 1e-9
        for mine, theirs in zip(
            together(backbone, stack, batch, vectors, twice=False), expected[:2], strict=True
        ):
            assert relative(mine, theirs) < 1e-9


@pytest.mark.parametrize("placement", ["prefix", "suffix"])
def test_a_row_that_hides_nothing_is_as_it_was_and_hidden_rows_get_no_gradient(placement):
    backbone = random_t5(placement=placement)
    stack, plain = prompts(backbone, runs=3, length=LENGTH), random_batch(ROWS)
    nothing = replace(plain, hidden=torch.zeros(len(plain), LENGTH, dtype=torch.bool))
    assert relative(backbone.nll(stack, nothing)[0], backbone.nll(stack, plain)[0]) < 1e-12
    hidden = torch.zeros(len(plain), LENGTH, dtype=torch.bool)
    hidden[:, 2] = True
    _, gradient = run_gradients(backbone, stack, replace(plain, hidden=hidden))
    assert gradient[:, 2].abs().max() == 0
    assert gradient[:, 1].abs().max() > 0


@given(seed=st.integers(0, 50), bound=st.sampled_from([None, 20, 40]))
@settings(max_examples=8, deadline=None)
def test_rows_keep_what_they_hide_in_any_micro_batches(seed, bound):
    backbone = random_backbone("llama", placement="suffix")
    stack, batch = prompts(backbone, runs=3, length=LENGTH), masked(random_batch(ROWS), seed)
    whole, parts = (run_gradients(backbone, stack, batch, tokens) for tokens in (None, bound))
    for mine, theirs in zip(parts, whole, strict=True):
        assert relative(mine, theirs) < 1e-9
    vectors = vectors_for(stack)
    products = [run_hvps(backbone, stack, batch, vectors, tokens) for tokens in (None, bound)]
    assert relative(products[1], products[0]) < 1e-9


@pytest.mark.parametrize("placement", ["prefix", "suffix"])
def test_predictions_and_counted_work_leave_hidden_rows_out(placement):
    backbone = random_backbone("llama", placement=placement)
    stack, batch = prompts(backbone, runs=3, length=LENGTH), masked(random_batch(ROWS))
    candidates = torch.randint(3, 60, (len(batch), 2, 2), generator=torch.Generator().manual_seed(0))
    scores = backbone.rank(stack, batch, candidates)
    texts = backbone.generate(stack, batch, Decoding(max_new_tokens=3))
    counted = [backbone.whole_rows(batch, LENGTH), backbone.computed_rows(batch, LENGTH)]
    for b in range(len(batch)):
        row = replace(batch.select(torch.tensor([b])), run=torch.tensor([0]), hidden=None)
        shorter = stack[batch.run[b]][~batch.hidden[b]][None]
        assert relative(backbone.rank(shorter, row, candidates[[b]])[0], scores[b]) < 1e-5
        assert backbone.generate(shorter, row, Decoding(max_new_tokens=3)) == [texts[b]]
        (alone,) = backbone.whole_rows(row, shorter.shape[1])
        assert counted[0][b] == alone
        if placement == "suffix":
            assert counted[1][b] == backbone.computed_rows(row, shorter.shape[1])[0]
    assert placement == "suffix" or counted[0] == counted[1]


def test_a_placement_under_which_rows_interact_hides_nothing():
    backbone = random_t5(placement="after_padding")
    batch = masked(random_batch(ROWS))
    with pytest.raises(SoftstartError, match=r"no prompt row can be hidden where the prompt goes after"):
        backbone.nll(prompts(backbone, runs=3, length=LENGTH), batch)


def test_key_value_prompts_hide_rows_from_attention_where_they_stand(exact_norm):
    backbone = random_backbone("llama")
    exact_norms(backbone.model)
    words = prompts(backbone, runs=3, length=LENGTH)
    batch, vectors = masked(random_batch(ROWS)), None
    backbone.prompt_kind = "key_values"
    stack = backbone.kind.made_of(words, backbone).double()
    got, gradient = together(backbone, stack, batch, vectors, twice=False)
    # A key that scores minus infinity is not there: positions of the others stay.
    assert gradient.view(3, LENGTH, -1).abs().max() > 0
    nothing = replace(batch, hidden=torch.zeros_like(batch.hidden))
    whole = backbone.nll(stack, replace(batch, hidden=None))[0]
    assert relative(backbone.nll(stack, nothing)[0], whole) < 1e-9
    assert relative(got, whole) > 1e-3
    last = torch.zeros_like(batch.hidden)
    last[:, -1] = True
    hidden = replace(batch, hidden=last)
    changed = stack.clone()
    changed[:, -1] += 1.0  # what is hidden does not matter
    assert torch.equal(backbone.nll(stack, hidden)[0], backbone.nll(changed, hidden)[0])
    _, gradient = together(backbone, stack, hidden, vectors, twice=False)
    assert gradient[:, -1].abs().max() == 0
