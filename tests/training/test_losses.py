"""Another loss than the mean of tokens: gradients of first and second order against autograd, run by run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from helpers.families import random_backbone
from helpers.margin import Margin
from helpers.models import prompts, random_batch, random_t5, relative, toy_encoded
from softstart.algorithms import MAML, Episodes, MultiTask
from softstart.backbone import collate
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig, FineTuneConfig
from softstart.training.distributed import Processes
from softstart.training.encoding import epoch_slice, rng_for, to_batch
from softstart.training.evaluation import Evaluation
from softstart.training.finetuning import finetune
from softstart.training.gradients import run_gradients, run_losses, weight_loss
from softstart.training.hessian_products import run_hvps
from softstart.training.losses import TokenMean
from softstart.training.objective import PromptObjective
from softstart.training.optimizers import SGD

WORDS = ((3, 1), (4, 5, 1), (6, 1))
MARGIN = Margin(WORDS, margin=2.0)
HOW = Evaluation(scoring="rank")


def labeled(rows, seed=0):
    """Random texts with one of the words as output: (length of the text, word, run) of every row."""
    g = torch.Generator().manual_seed(seed)
    texts = [torch.randint(3, 60, (n,), generator=g).tolist() for n, _, _ in rows]
    return collate(texts, [list(WORDS[word]) for _, word, _ in rows], [run for *_, run in rows], pad=0)


ROWS = [(4, 0, 0), (7, 1, 1), (2, 2, 2), (6, 1, 0), (3, 0, 2), (5, 2, 1)]


def margins(backbone, prompt, batch, run):
    """The mean loss of a run, row by row and label by label, from transformers' own logits."""
    values = []
    for b in (batch.run == run).nonzero().flatten().tolist():
        text = batch.input_ids[b][batch.attention_mask[b].bool()]
        embeds = torch.cat((prompt, backbone.embedding(text)))[None]
        scores = []
        for word in WORDS:
            ids = torch.tensor([word])
            with sdpa_kernel(SDPBackend.MATH):  # fused kernels have no second derivative
                logits = backbone.model(inputs_embeds=embeds, labels=ids).logits
            scores.append(logits.log_softmax(-1).gather(2, ids[..., None]).sum())
        label = tuple(i for i in batch.labels[b].tolist() if i >= 0)
        right = WORDS.index(label)
        wrong = torch.stack([score for i, score in enumerate(scores) if i != right]).max()
        values.append((2.0 + wrong - scores[right]).clamp_min(0))
    return torch.stack(values).mean()


@pytest.mark.parametrize("budget", [None, 30])
def test_losses_and_gradients_of_a_pack_are_those_of_its_runs(t5, budget):
    stack, batch = prompts(t5, runs=3), labeled(ROWS)
    losses, gradients = run_gradients(t5, stack, batch, budget, loss=MARGIN)
    assert relative(losses, run_losses(t5, stack, batch, MARGIN)) < 1e-12
    for run in range(3):
        leaf = stack[run].clone().requires_grad_()
        value = margins(t5, leaf, batch, run)
        assert relative(losses[run], value.detach()) < 1e-10
        assert relative(gradients[run], torch.autograd.grad(value, leaf)[0]) < 1e-9
    plain, _ = run_gradients(t5, stack, batch, budget)
    assert relative(losses, plain) > 0.01


@pytest.mark.parametrize("budget", [None, 30])
def test_its_hessian_vector_products_are_those_of_the_full_hessian(t5, budget):
    stack, vectors, batch = (
        prompts(t5, runs=2, length=2),
        prompts(t5, runs=2, length=2, seed=9),
        labeled(ROWS[:2]),
    )
    product = run_hvps(t5, stack, batch, vectors, budget, loss=MARGIN)
    for run in range(2):
        size = stack[run].numel()
        hessian = torch.autograd.functional.hessian(lambda p, run=run: margins(t5, p, batch, run), stack[run])
        expected = hessian.reshape(size, size) @ vectors[run].flatten()
        assert relative(product[run].flatten(), expected) < 1e-8


@pytest.mark.parametrize("budget", [None, 30])
def test_it_works_on_a_causal_model_that_reads_prompts_once(budget):
    """Rows share what their run's prompt is read to; the reference passes every run and label alone."""
    backbone = random_backbone("gpt2")
    g = torch.Generator().manual_seed(4)
    stack = torch.randn(2, 2, backbone.width, generator=g, dtype=backbone.prompt_dtype)
    vectors, batch = torch.randn(stack.shape, generator=g, dtype=stack.dtype), labeled(ROWS[:2] + ROWS[3:4])
    batch = replace(batch, run=batch.run % 2)
    losses, gradients = run_gradients(backbone, stack, batch, budget, loss=MARGIN)
    products = run_hvps(backbone, stack, batch, vectors, budget, loss=MARGIN)
    for run in range(2):
        rows = batch.select((batch.run == run).nonzero().squeeze(1))

        def loss(prompt, rows=rows):
            likelihoods = []
            for word in WORDS:
                parts = []
                for b in range(len(rows)):
                    text = rows.input_ids[b][rows.attention_mask[b].bool()]
                    ids = torch.cat((text, torch.tensor(word)))
                    embeds = torch.cat((prompt, backbone.embedding(ids)))[None]
                    with sdpa_kernel(SDPBackend.MATH):
                        logits = backbone.model(inputs_embeds=embeds).logits[0]
                    at = slice(len(prompt) + len(text) - 1, -1)
                    parts.append(logits[at].log_softmax(-1).gather(1, torch.tensor(word)[:, None]).sum())
                likelihoods.append(torch.stack(parts))
            values = []
            for b in range(len(rows)):
                right = WORDS.index(tuple(i for i in rows.labels[b].tolist() if i >= 0))
                wrong = torch.stack([of[b] for i, of in enumerate(likelihoods) if i != right]).max()
                values.append((2.0 + wrong - likelihoods[right][b]).clamp_min(0))
            return torch.stack(values).mean()

        leaf = stack[run].clone().requires_grad_()
        value = loss(leaf)
        assert relative(losses[run], value.detach()) < 1e-9
        assert relative(gradients[run], torch.autograd.grad(value, leaf)[0]) < 1e-8
        hessian = torch.autograd.functional.hessian(loss, stack[run]).reshape(leaf.numel(), -1)
        assert relative(products[run].flatten(), hessian @ vectors[run].flatten()) < 1e-7


@pytest.mark.parametrize("kept", [0, None])
def test_maml_differentiates_it_through_the_inner_loop(t5, kept):
    theta, lr = prompts(t5)[0], 0.3
    support, query = [labeled(ROWS, seed) for seed in (1, 2)], labeled(ROWS, 3)
    loss = PromptObjective(t5, memory_budget=kept, loss=MARGIN)
    got, logs = MAML(inner_lr=lr, inner_steps=2).meta_gradient(loss, theta, Episodes(3, support, query))
    leaf = theta.clone().requires_grad_()
    queries = []
    for task in range(3):
        phi = leaf
        for batch in support:
            value = margins(t5, phi, batch, task)
            phi = phi - lr * torch.autograd.grad(value, phi, create_graph=True)[0]
        queries.append(margins(t5, phi, query, task))
    expected = torch.stack(queries).mean()
    assert logs["query"] == pytest.approx(float(expected.detach()))
    assert relative(got, torch.autograd.grad(expected, leaf)[0]) < 1e-8


def test_prompt_tuning_descends_it(t5):
    task, (start,) = toy_encoded(t5), prompts(t5, runs=1)
    loss = Margin(margin=3.0)
    config = AdaptConfig(
        steps=2, batch_size=3, eval_every=2, select="last", optimizer=SGD(weight_decay=0.0), loss=loss
    )
    (got,) = adapt(t5, [AdaptRun(start, task, 13, 0.5)], config, HOW)
    prompt, rows, values = start[None], task.train[13], []
    for step in range(2):
        picked = rows.pick(epoch_slice(8, 3 * step, 3, 0, 13), rng_for(0))
        value, slope = run_gradients(t5, prompt, to_batch(picked, [0] * 3, 0), loss=loss)
        prompt = prompt - 0.5 * slope
        values.append(float(value))
    assert relative(got.prompt, prompt[0]) < 1e-12
    assert relative(got.prompt, start) > 1e-3
    assert got.curve[-1][2] == pytest.approx(sum(values) / 2)


def test_fine_tuning_descends_it():
    backbone = random_t5(torch.float32)
    task = toy_encoded(backbone)
    config = FineTuneConfig(steps=30, batch_size=8, eval_every=1, loss=Margin(margin=3.0))
    result = finetune(backbone, task, 13, 3e-2, config, HOW)
    assert result.curve[-1][2] < 0.3 * result.curve[0][2]
    model, batch = backbone.trainable_copy(), labeled([(4, 0, 0), (7, 1, 0)])
    value = weight_loss(model, batch, MARGIN)
    nothing = torch.zeros(0, backbone.width)
    assert float(value.detach()) == pytest.approx(float(margins(model, nothing, batch, 0).detach()), rel=1e-5)


@pytest.mark.parametrize("world", [2, 4])
def test_shares_of_a_mixture_weigh_what_its_loss_divides_by(t5, world):
    """Processes average to the gradient of all rows, whatever the loss divides by."""
    theta, batch = prompts(t5, runs=1), labeled([(n, word, 0) for n, word, _ in ROWS])
    for loss in (MARGIN, TokenMean()):
        objective = PromptObjective(t5, loss=loss)
        episodes = Episodes(1, [], batch)
        whole, _ = MultiTask().meta_gradient(objective, theta[0], episodes)
        shares = [
            Processes(rank, world).share(Episodes(1, [], batch), mixture=True, loss=loss)
            for rank in range(world)
        ]
        parts = [weight * MultiTask().meta_gradient(objective, theta[0], mine)[0] for mine, weight in shares]
        assert relative(sum(parts) / sum(weight for _, weight in shares), whole) < 1e-10


def test_dropout_masks_of_a_second_loss_are_replayed(exact_norm):
    backbone = random_t5(dropout=0.2)
    batch, stack = random_batch([(n, 2, 0) for n in range(1, 7)], dropout_seed=3), prompts(backbone, runs=1)
    loss = Margin(((3, 1), tuple(batch.labels[0].tolist())))
    first = run_gradients(backbone, stack, batch, 20, loss=loss)
    assert torch.equal(run_gradients(backbone, stack, batch, 20, loss=loss)[1], first[1])
