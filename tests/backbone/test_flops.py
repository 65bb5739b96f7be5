"""FLOPs by formula against torch's counter on transformers' own forward pass."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers.families import random_backbone
from helpers.models import prompts, random_batch, random_t5, toy_encoded
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig
from softstart.training.evaluation import Evaluation
from softstart.training.objective import Work, row_work


def counted(work):
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def test_the_formulas_are_what_torch_counts():
    backbone = random_t5()
    backbone.lean = False
    backbone.model.set_attn_implementation("eager")
    batch, stack = random_batch([(40, 6, 0), (40, 6, 0)]), prompts(backbone, runs=1)
    (tokens, row), _ = row_work(backbone, batch, stack.shape[1])
    assert tokens == 40 + 3 + 6

    def gradient(twice):
        leaf = stack.clone().requires_grad_()
        loss = backbone.nll(leaf, batch, twice=twice)[0].sum()
        (first,) = torch.autograd.grad(loss, leaf, create_graph=twice)
        if twice:
            torch.autograd.grad((first * stack).sum(), leaf)

    def full():
        twin = backbone.trainable_copy()
        twin.nll(stack, batch)[0].sum().backward()

    assert counted(lambda: backbone.nll(stack, batch)) == 2 * row.forward
    assert counted(full) == 2 * row.full_gradient
    # The first decoder layer reads no prompt before its cross-attention, so autograd leaves a bit out.
    assert 0.97 < counted(lambda: gradient(False)) / (2 * row.gradient) <= 1
    assert 0.97 < counted(lambda: gradient(True)) / (2 * row.hvp) <= 1


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_causal_model_reads_a_text_once_for_all_its_candidates(name):
    backbone = random_backbone(name, torch.float32)
    stack, batch = prompts(backbone, runs=1), random_batch([(50, 1, 0)])

    def ranked(words):
        return counted(lambda: backbone.rank(stack, batch, torch.full((1, words, 2), 5)))

    assert ranked(9) < 2 * ranked(1)


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
        assert result.tokens == expected.tokens
        assert abs(result.flops / expected.flops - 1) < 1e-12
