"""FLOPs by formula against torch's counter on transformers' own forward pass."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers.families import FAMILY, UNLISTED, random_backbone
from helpers.models import prompts, random_batch, random_t5, toy_encoded
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig
from softstart.training.evaluation import Evaluation
from softstart.training.objective import PromptObjective, Work


def counted(work):
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def plain(name):
    """A random model of a family that is read as transformers reads it."""
    backbone = random_t5() if name == "t5" else random_backbone(name)  # oneDNN's products are not counted
    backbone.lean = backbone.read_once = False
    backbone.model.set_attn_implementation("eager")
    return backbone


@pytest.mark.parametrize("name", ["t5", *FAMILY, *UNLISTED])
def test_the_formulas_are_what_torch_counts(name):
    backbone = plain(name)
    batch, stack = random_batch([(40, 6, 0), (40, 6, 0)]), prompts(backbone, runs=1)
    (tokens, row), _ = backbone.whole_rows(batch, stack.shape[1])
    assert tokens == 40 + 3 + 6

    def gradient(twice):
        leaf = stack.clone().requires_grad_()
        loss = backbone.nll(leaf, batch, twice=twice)[0].sum()
        (first,) = torch.autograd.grad(loss, leaf, create_graph=twice)
        if twice:
            torch.autograd.grad((first * stack).sum(), leaf)

    def full():
        twin = backbone.trainable_copy()
        twin.lean = False
        twin.nll(stack, batch)[0].sum().backward()

    close = pytest.approx
    assert counted(lambda: backbone.nll(stack, batch)) / 2 == close(row.forward, rel=1e-3)
    # The first decoder layer reads no prompt before its cross-attention, so autograd leaves a bit out.
    assert counted(lambda: gradient(False)) / 2 == close(row.gradient, rel=0.03)
    assert counted(lambda: gradient(True)) / 2 == close(row.hvp, rel=0.03)
    assert counted(full) / 2 == close(row.full_gradient, rel=0.03)


@pytest.mark.parametrize(("text", "output"), [(100, 1), (20, 20), (7, 30)])
@pytest.mark.parametrize("name", ["t5", "bart", "llama", "gpt2", "bloom"])
def test_the_formulas_hold_at_other_lengths(name, text, output):
    backbone = plain(name)
    if (window := backbone.window) and text + output + 3 > window:
        text = window - output - 3
    batch, stack = random_batch([(text, output, 0)]), prompts(backbone, runs=1)
    ((_, row),) = backbone.whole_rows(batch, stack.shape[1])
    assert counted(lambda: backbone.nll(stack, batch)) == pytest.approx(row.forward, rel=1e-3)


def test_weights_that_are_not_loaded_are_counted_alike():
    """Plans know shapes only."""
    from softstart.backbone.flops import multiplications_of

    loaded = random_backbone("llama").model
    with torch.device("meta"):
        shape = type(loaded)(loaded.config)
    assert multiplications_of(shape) == multiplications_of(loaded)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_causal_model_reads_a_text_once_for_all_its_candidates(name):
    backbone = random_backbone(name, torch.float32)
    stack, batch = prompts(backbone, runs=1), random_batch([(50, 1, 0)])

    def ranked(words):
        return counted(lambda: backbone.rank(stack, batch, torch.full((1, words, 2), 5)))

    assert ranked(9) < 2 * ranked(1)


@pytest.mark.parametrize("placement", ["prefix", "suffix"])
def test_what_is_read_once_is_what_torch_counts(placement):
    backbone = random_backbone("llama", placement=placement)
    batch, stack = random_batch([(20, 6, 0), (20, 6, 0)] * 3), prompts(backbone, runs=1, length=8)
    backbone.nll(stack, batch)  # reads the texts that are kept
    rows = sum(flops.forward for _, flops in backbone.computed_rows(batch, stack.shape[1]))
    # What follows the last token of an output is not asked for, so one token of 26 (or 14) is not read.
    assert counted(lambda: backbone.nll(stack, batch)) == pytest.approx(rows, rel=0.08)


def test_every_run_of_a_pack_counts_its_own_rows():
    backbone = random_t5(torch.float32)
    task = toy_encoded(backbone)
    runs = [AdaptRun(prompts(backbone)[0], task, sample, 0.1) for sample in (13, 21)]
    settings, evaluation = AdaptConfig(steps=4, batch_size=8, eval_every=4), Evaluation(scoring="rank")
    results = adapt(backbone, runs, settings, evaluation)
    for run, result in zip(runs, results, strict=True):
        rows = task.train[run.sample]  # eight rows, so four steps of eight are four epochs
        lengths = [(len(i) + 3, len(o[0])) for i, o in zip(rows.inputs, rows.outputs, strict=True)]
        expected = Work()
        for text, output in lengths * 4:
            expected.add(text + output, backbone.row_flops(text, output).gradient)
        assert result.tokens == result.computed_tokens == expected.tokens
        assert abs(result.flops / expected.flops - 1) < 1e-12
        assert result.flops == result.computed_flops


class Vectors:
    """Counts the vectors that go through the first layer of a Llama."""

    def __init__(self, backbone):
        self.seen = 0
        backbone.model.model.layers[0].register_forward_pre_hook(self.count, with_kwargs=True)

    def count(self, module, given, named):
        states = given[0] if given else named["hidden_states"]
        self.seen += states.shape[0] * states.shape[1]


@pytest.mark.parametrize(
    ("placement", "once", "expected"),
    [
        ("prefix", False, 6 * (3 + 5 + 2)),
        ("prefix", True, 2 * 3 + 6 * (5 + 2)),
        ("suffix", True, 6 * (3 + 2)),
    ],
)
def test_computed_tokens_are_the_vectors_that_pass(placement, once, expected):
    backbone = random_backbone("llama", torch.float32, placement)
    backbone.read_once = once
    stack, batch = prompts(backbone, runs=2), random_batch([(5, 2, 0), (5, 2, 1)] * 3)
    texts = 6 * 5 if placement == "suffix" else 0
    assert (backbone.once is not None) is once  # the first look tries one token
    passed, objective = Vectors(backbone), PromptObjective(backbone)
    for step in range(2):
        objective.gradient(stack, batch)
        computed = (step + 1) * expected + texts
        # What follows the last token of an output is not asked for, so that token is not read.
        assert passed.seen == computed - once * 6 * (step + 1)
        assert objective.work.computed_tokens == computed
    assert objective.work.tokens == 2 * 6 * (3 + 5 + 2)
    of_rows = {
        (False, "prefix"): [backbone.row_flops(3 + 5, 2)] * 6,
        (True, "prefix"): [backbone.row_flops(5, 2, before=3)] * 6 + [backbone.row_flops(3, 0)] * 2,
        (True, "suffix"): [backbone.row_flops(3, 2, before=5)] * 6,
    }[once, placement]
    gradients, products = sum(row.gradient for row in of_rows), sum(row.hvp for row in of_rows)
    kept = 6 * backbone.row_flops(5, 0).forward if texts else 0
    assert objective.work.computed_flops == pytest.approx(2 * gradients + kept)
    objective.hvp(stack, batch, stack)
    assert objective.work.computed_flops == pytest.approx(2 * gradients + products + kept)


def test_runs_of_a_pack_share_the_texts_that_were_read():
    backbone = random_backbone("llama", torch.float32, "suffix")
    task = toy_encoded(backbone)
    runs = [AdaptRun(prompts(backbone)[0], task, sample, 0.1) for sample in (13, 21)]
    config = AdaptConfig(steps=4, batch_size=8, eval_every=4)
    results = adapt(backbone, runs, config, Evaluation(scoring="rank"))
    texts = {tuple(ids) for run in runs for ids in task.train[run.sample].inputs}
    whole = sum(result.tokens for result in results)
    rows = sum(3 + len(o[0]) for run in runs for o in task.train[run.sample].outputs)
    assert sum(result.computed_tokens for result in results) == 4 * rows + sum(map(len, texts))
    assert whole == 4 * (rows + sum(len(i) for run in runs for i in task.train[run.sample].inputs))
