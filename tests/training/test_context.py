"""Prompt rows that begin as demonstrations: their start, their masks, and meta-learning with them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from helpers.episodes import TASKS, episodes, task_losses
from helpers.families import random_backbone
from helpers.models import prompts, random_t5, relative, toy_encoded
from helpers.toy_study import toy
from softstart.algorithms import LOG_RATES, MAML, THETA, FoMAML, MetaSGD, Reptile, meta_gradients
from softstart.errors import SoftstartError
from softstart.prompt import SoftPrompt
from softstart.study import run_study
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig, MetaConfig, PromptSpec
from softstart.training.encoding import Rows, epoch_slice, to_batch
from softstart.training.episodes import Context, EpisodeSampler, Item
from softstart.training.meta_training import meta_train
from softstart.training.methods import resolve_method
from softstart.training.objective import PromptObjective
from softstart.training.optimizers import SGD
from softstart.training.starts import Demonstrator, draw_start, prompt_rows, run_start

WHOLE = PromptSpec(length=4, demonstrations="all", leave_one_out=True)


@pytest.fixture(scope="module")
def backbone():
    return random_t5()


@pytest.fixture(scope="module")
def task(backbone):
    return toy_encoded(backbone)


def tokens(backbone, start):
    return [(backbone.vocabulary - row).abs().sum(1).argmin().item() for row in start.double()]


def test_a_start_is_its_own_rows_and_then_all_demonstrations_each_with_the_row_it_comes_from(backbone, task):
    learned = prompts(backbone, runs=1, length=3)[0]
    start = run_start(backbone, WHOLE.model_copy(update={"length": 3}), task, 5, 13, learned=learned)
    assert torch.equal(start.prompt[:3], learned.float())
    assert start.origins[:3].tolist() == [-1, -1, -1]
    ids, origins = tokens(backbone, start.prompt[3:]), start.origins[3:].tolist()
    rows = task.train[13]
    for i, (text, answers) in enumerate(zip(rows.inputs, rows.outputs, strict=True)):
        assert [token for token, of in zip(ids, origins, strict=True) if of == i] == [*text, *answers[0], 1]
    assert origins == sorted(origins, key=origins.index)  # the tokens of a row stay together
    # Other seeds give other orders, and the sample decides whose rows they are.
    assert len({tuple(run_start(backbone, WHOLE, task, seed, 13).origins.tolist()) for seed in range(4)}) > 1
    spec = PromptSpec(length=4, demonstrations=7)
    short = run_start(backbone, spec, task, 5, 13).prompt
    assert len(short) == 11
    assert torch.equal(short[:4], draw_start(backbone, spec, [task], 5, 13))


def test_demonstrations_by_themselves_are_those_of_the_initializer_and_rows_left_over_come_from_none(
    backbone, task
):
    known = prompt_rows(backbone, WHOLE, task, 13) - 4
    spec = PromptSpec(length=known + 9, init="demonstrations")
    start = run_start(backbone, spec, task, 5, 13)
    assert torch.equal(start.prompt, draw_start(backbone, spec, [task], 5, 13))
    assert (start.origins[:known] >= 0).all()
    assert (start.origins[known:] == -1).all()
    assert run_start(backbone, PromptSpec(length=4), task, 5, 13).origins is None


def test_all_demonstrations_end_where_the_window_does():
    backbone = random_backbone("llama")  # reads 64 tokens
    task = toy_encoded(backbone)
    rows = prompt_rows(backbone, WHOLE, task, 13)
    longest = max(len(ids) for ids in (*task.train[13].inputs, *task.dev[13].inputs, *task.test.inputs))
    assert rows == 64 - longest - task.max_new_tokens
    assert len(run_start(backbone, WHOLE, task, 5, 13).prompt) == rows
    long = replace(task, test=Rows([[3] * 60], [[]], [()]))
    with pytest.raises(SoftstartError, match="leaves no room for demonstrations within 64"):
        prompt_rows(backbone, WHOLE, long, 13)


def stepwise(backbone, run, config, steps):
    """Prompt tuning by plain SGD, row by row, each under a prompt from which its own rows were cut."""
    rows, prompt = run.task.train[run.sample], run.start.to(backbone.prompt_dtype)
    for step in range(steps):
        leaf, total, count = prompt.clone().requires_grad_(), 0.0, 0
        order = epoch_slice(
            len(rows.trainable), step * config.batch_size, config.batch_size, run.seed, run.sample
        )
        for place in order:
            kept = leaf[run.origins != place][None]
            i = rows.trainable[place]
            row = to_batch([(rows.inputs[i], rows.outputs[i][0])], [0], 0)
            sums, counts = backbone.nll(kept, row)
            total, count = total + sums.sum(), count + int(counts.sum())
        (gradient,) = torch.autograd.grad(total / count, leaf)
        prompt = prompt - run.lr * gradient
    return prompt


@pytest.mark.parametrize("where", ["t5 prefix", "llama prefix", "llama suffix"])
def test_a_train_row_does_not_see_the_rows_that_began_as_itself(where):
    family, placement = where.split()
    backbone = random_t5() if family == "t5" else random_backbone(family, placement=placement)
    task = toy_encoded(backbone)
    spec = PromptSpec(length=2, demonstrations=25)
    start = run_start(backbone, spec, task, 5, 13)
    config = AdaptConfig(steps=3, batch_size=6, eval_every=3, select="last", optimizer=SGD(weight_decay=0.0))
    masked = AdaptRun(start.prompt.double(), task, 13, 0.3, 1, origins=start.origins)
    plain = replace(masked, origins=None)
    got, alone, other = adapt(backbone, [masked, masked, plain], config)
    assert relative(got.prompt, stepwise(backbone, masked, config, 3)) < 1e-6
    assert torch.equal(got.prompt, alone.prompt)
    (unmasked,) = adapt(backbone, [plain], config)
    assert relative(other.prompt, unmasked.prompt) < 1e-6  # transformers' norms are in float32
    assert relative(got.prompt, other.prompt) > 1e-4
    # The work of a row does not count what it did not read.
    assert got.tokens < other.tokens


def test_token_dropout_hides_a_share_of_all_rows_anew_in_every_step_and_in_any_pack(backbone, task):
    run = AdaptRun(prompts(backbone, length=50)[0], task, 13, 0.3, 1, token_dropout=0.3)
    masks = [run.hidden([0, 1, 2], step, 0) for step in range(20)]
    share = torch.stack(masks).double().mean().item()
    assert share == pytest.approx(0.3, abs=0.03)
    assert not torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], run.hidden([0, 1, 2], 0, 0))
    config = AdaptConfig(steps=2, batch_size=4, eval_every=2, select="last")
    together = adapt(backbone, [replace(run, token_dropout=0.0), run], config)
    (alone,) = adapt(backbone, [run], config)
    assert relative(together[1].prompt, alone.prompt) < 1e-9
    assert relative(together[0].prompt, alone.prompt) > 1e-4
    with pytest.raises(SoftstartError, match="differ in length"):
        adapt(backbone, [run, replace(run, start=run.start[:4])], config)


def test_a_masked_pack_resumes_where_it_was(backbone, task, tmp_path):
    start = run_start(backbone, WHOLE, task, 5, 13)
    run = AdaptRun(start.prompt, task, 13, 0.3, 1, origins=start.origins, token_dropout=0.2)
    config = AdaptConfig(steps=4, batch_size=4, eval_every=2, select="last")
    file = tmp_path / "pack.safetensors"
    adapt(backbone, [run], replace(config, steps=2), checkpoint=file)
    (whole,) = adapt(backbone, [run], config)
    with pytest.raises(SoftstartError):
        adapt(backbone, [replace(run, token_dropout=0.1)], replace(config, steps=2), checkpoint=file)
    file.unlink()
    adapt(backbone, [run], config, checkpoint=file)
    (resumed,) = adapt(backbone, [run], config, checkpoint=file)
    assert torch.equal(whole.prompt, resumed.prompt)


def shown(backbone, steps):
    """Episodes with demonstrations of their own, some of whose rows the support rows do not see."""
    generator = torch.Generator().manual_seed(3)
    context = torch.randn(TASKS, 4, backbone.width, generator=generator, dtype=torch.float64)
    plain = episodes(steps)

    def hide(batch):
        hidden = torch.rand(len(batch), 7, generator=generator) < 0.4
        hidden[:, :3] = False
        return replace(batch, hidden=hidden)

    return replace(plain, support=[hide(batch) for batch in plain.support], context=context)


def unrolled(backbone, leaf, meta_batch, lr):
    """Adapted prompts and their query losses, by autograd through the inner loop from [θ | context]."""
    phi = torch.cat((leaf.expand(TASKS, -1, -1), meta_batch.context), 1)
    for batch in meta_batch.support:
        (gradient,) = torch.autograd.grad(task_losses(backbone, phi, batch).sum(), phi, create_graph=True)
        phi = phi - lr * gradient
    return phi, task_losses(backbone, phi, meta_batch.query)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("budget", [None, 0, 2**24])
def test_maml_with_demonstrations_equals_autograd_through_the_unrolled_loop(
    backbone, steps, budget, exact_norm
):
    theta, meta_batch = prompts(backbone)[0], shown(backbone, steps)
    loss = PromptObjective(backbone, memory_budget=budget)
    algorithm = MAML(inner_lr=0.3, inner_steps=steps)
    got, _ = meta_gradients(algorithm, loss, {THETA: theta}, meta_batch)
    leaf = theta.clone().requires_grad_()
    (expected,) = torch.autograd.grad(unrolled(backbone, leaf, meta_batch, 0.3)[1].mean(), leaf)
    assert relative(got[THETA], expected) < 1e-10
    assert loss.graphs.reused == (0 if budget == 0 else 1 if budget is None else steps)


def test_kin_of_maml_with_demonstrations_are_their_definitions(backbone, exact_norm):
    theta, meta_batch = prompts(backbone)[0], shown(backbone, 2)
    phi = unrolled(backbone, theta.clone().requires_grad_(), meta_batch, 0.3)[0].detach()
    phi.requires_grad_()
    (query,) = torch.autograd.grad(task_losses(backbone, phi, meta_batch.query).sum(), phi)
    phi, loss = phi.detach(), PromptObjective(backbone)
    got, _ = meta_gradients(FoMAML(inner_lr=0.3, inner_steps=2), loss, {THETA: theta}, meta_batch)
    assert relative(got[THETA], query[:, :3].mean(0)) < 1e-10
    for difference in (False, True):
        reptile = Reptile(inner_lr=0.3, inner_steps=2, difference=difference)
        got, _ = meta_gradients(reptile, loss, {THETA: theta}, meta_batch)
        assert relative(got[THETA], ((theta - phi[:, :3]) / 0.3).mean(0)) < 1e-10
    log_rates = torch.tensor([[0.5], [-1.0], [0.1]], dtype=torch.float64)
    values, metasgd = {THETA: theta, LOG_RATES: log_rates}, MetaSGD(inner_lr=0.3, inner_steps=2)
    got, _ = meta_gradients(metasgd, loss, values, meta_batch)
    leaf, rates = theta.clone().requires_grad_(), log_rates.clone().requires_grad_()
    lr = 0.3 * torch.cat((rates, torch.zeros(4, 1, dtype=torch.float64))).exp()
    expected = torch.autograd.grad(unrolled(backbone, leaf, meta_batch, lr)[1].mean(), (leaf, rates))
    for name, of in zip(values, expected, strict=True):
        assert relative(got[name], of) < 1e-10


def test_episodes_show_their_own_train_rows_and_hide_from_a_support_row_what_it_is(backbone):
    tasks = [toy_encoded(backbone, f"toy{i}", seed=i) for i in range(3)]
    items = [Item(task.name, task.train[13], task.dev[13]) for task in tasks]
    context = Context(Demonstrator(backbone, PromptSpec()), 30, leave_one_out=True)
    algorithm, config = MAML(inner_steps=2, support_size=3, query_size=2), MetaConfig(meta_batch=3)
    sampler = EpisodeSampler(items, algorithm, config, 0, backbone.device, context, 4)
    plain = EpisodeSampler(items, algorithm, config, 0, backbone.device)
    drawn, before = sampler.draw(0), plain.draw(0)
    assert drawn.context.shape == (3, 30, backbone.width)
    assert before.context is None
    order = epoch_slice(3, 0, 3, config.seed)
    for m, i in enumerate(order):
        ids, rows = tokens(backbone, drawn.context[m]), items[i].train
        known = [[*text, *answers[0], 1] for text, answers in zip(rows.inputs, rows.outputs, strict=True)]
        assert any(row == ids[: len(row)] for row in known)
    for batch, same in zip(drawn.support, before.support, strict=True):
        assert torch.equal(batch.input_ids, same.input_ids)  # the rows are drawn as without demonstrations
        assert batch.hidden.shape == (len(batch), 34)
        assert not batch.hidden[:, :4].any()
        for b in range(len(batch)):
            text = batch.input_ids[b, : int(batch.attention_mask[b].sum())].tolist()
            label = batch.labels[b][batch.labels[b] >= 0].tolist()
            ids = tokens(backbone, drawn.context[batch.run[b]])
            gone = [ids[j] for j in batch.hidden[b, 4:].nonzero().flatten().tolist()]
            mine = [*text, *label, 1] if label[-1:] != [1] else [*text, *label]
            assert gone == mine[: len(gone)]
    assert any(batch.hidden.any() for batch in drawn.support)
    assert not drawn.query.hidden.any()  # dev rows
    assert torch.equal(sampler.draw(0).context, drawn.context)
    assert not torch.equal(sampler.draw(1).context, drawn.context)
    start = prompts(backbone, length=4)[0]
    learned = meta_train(
        backbone, MAML(inner_lr=0.3), tasks, start, MetaConfig(steps=2, lr=0.3), context=context
    )
    assert learned.prompt.shape == start.shape


METHODS = {
    "pt": {},
    "whole": {
        "algorithm": "pt", "init": "demonstrations", "length": "rows", "leave_one_out": True,
        "token_dropout": 0.05,
    },
    "behind": {"algorithm": "pt", "demonstrations": 6},
    "maml": {"inner_lr": 0.1},
    "maml_then": {"algorithm": "maml", "inner_lr": 0.1, "demonstrations": 6},
    "maml_shown": {"algorithm": "maml", "inner_lr": 0.1, "demonstrations": 6, "demonstrated": "episodes"},
    "metasgd": {"inner_lr": 0.1, "demonstrations": 5},
}  # fmt: skip


@pytest.mark.slow
def test_a_study_compares_them(world, tmp_path):
    declared = toy(world, methods=METHODS, samples=[13], learning_rates=[0.2], meta={"steps": 2, "lr": 0.3})
    outcome = run_study(declared, tmp_path / "out", device="cpu")
    assert (outcome.failures, outcome.missing) == ([], 0)
    files = [SoftPrompt.load(file) for file in (tmp_path / "out" / "prompts").iterdir()]
    runs = {(p.info["method"], p.info["task"], p.info["sample"]): p for p in files if "task" in p.info}
    starts = [p for p in files if "task" not in p.info]
    assert len(starts) == 3  # maml and maml_then have one
    length = {name: {len(p.tensor) for (m, _, _), p in runs.items() if m == name} for name in METHODS}
    assert length["pt"] == length["maml"] == {4}
    assert length["behind"] == length["maml_then"] == length["maml_shown"] == {10}
    assert length["metasgd"] == {9}
    assert min(length["whole"]) > 10
    table = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert set(table.loc[table["method"] == "behind", "trained"]) == {160}
    again = run_study(declared, tmp_path / "out", device="cpu")
    assert len(again.rows) == len(outcome.rows)


def test_mistakes_are_named():
    def declare(values, kind="maml", **prompt):
        study = SimpleNamespace(prompt=PromptSpec(**prompt))
        return resolve_method("m", {"algorithm": kind, **values}, MetaConfig(), "study", study)

    with pytest.raises(SoftstartError, match="needs a number of rows"):
        declare({"demonstrated": "episodes"})
    with pytest.raises(SoftstartError, match="needs a number of rows"):
        declare({"demonstrated": "episodes", "demonstrations": "all"})
    with pytest.raises(SoftstartError, match="'multitask' does not learn from episodes"):
        declare({"demonstrated": "episodes", "demonstrations": 5}, "multitask")
    with pytest.raises(SoftstartError, match="length: rows needs an init"):
        declare({"length": "rows"}, "pt")
    with pytest.raises(SoftstartError, match="token_dropout"):
        declare({"token_dropout": 1.0}, "pt")
    spec = PromptSpec(demonstrations=3)
    assert declare({"demonstrated": "episodes"}, demonstrations=3).context(spec) == 3
