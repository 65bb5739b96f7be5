"""The outer loop: resumable bit for bit, reproducible, loud when it diverges."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.episodes import SMALL
from helpers.models import prompts, random_t5, relative, toy_encoded
from helpers.paths import ROOT
from softstart.algorithms import (
    LOG_RATES,
    MAML,
    Episodes,
    FoMAML,
    MultiTask,
)
from softstart.errors import SoftstartError
from softstart.training.configs import MetaConfig
from softstart.training.encoding import epoch_slice
from softstart.training.episodes import EpisodeSampler, Item
from softstart.training.meta_training import meta_train
from softstart.training.methods import LEARNERS, learn
from softstart.training.objective import PromptObjective
from softstart.training.optimizers import SGD


def test_every_registered_algorithm_is_tested():
    assert SMALL.keys() == LEARNERS.keys()


def test_every_registered_algorithm_is_in_the_documented_table_with_the_paper_of_its_file():
    page = (ROOT / "docs" / "ecosystem.md").read_text(encoding="utf-8")
    table = page.split("## Algorithms")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.M))
    assert rows.keys() == LEARNERS.keys()
    for name, paper in rows.items():
        assert paper == "–" or paper in sys.modules[LEARNERS[name].__module__].__doc__, name


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dropout", [False, True])
def test_resumed_equals_uninterrupted_bit_for_bit(backbone, tasks, tmp_path, name, dropout):
    start = prompts(backbone)[0]
    config = MetaConfig(steps=7, lr=0.1, checkpoint_every=3, dropout=dropout)
    whole = learn(backbone, SMALL[name], tasks, start, config)

    class Killed(Exception):
        pass

    def kill(done, note=""):
        nonlocal count
        count += done
        if count >= 5:
            raise Killed

    count, file = 0, tmp_path / "meta.safetensors"
    with pytest.raises(Killed):
        learn(backbone, SMALL[name], tasks, start, config, checkpoint=file, progress=kill)
    resumed = learn(backbone, SMALL[name], tasks, start, config, checkpoint=file)
    assert torch.equal(resumed.prompt, whole.prompt)
    assert resumed.curve == whole.curve
    assert not torch.equal(whole.prompt, start)
    assert resumed.further.keys() == whole.further.keys()
    assert all(torch.equal(resumed.further[key], whole.further[key]) for key in whole.further)
    assert (LOG_RATES in whole.further) == (name == "metasgd")
    if name == "metasgd":
        assert whole.further[LOG_RATES].abs().min() > 0


@pytest.mark.parametrize("name", SMALL)
def test_the_seed_decides_the_episodes(backbone, tasks, name):
    start = prompts(backbone)[0]
    a, b, c = (
        learn(backbone, SMALL[name], tasks, start, MetaConfig(steps=3, lr=0.1, seed=s)).prompt
        for s in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_multitask_learning_lowers_the_loss_on_its_sources(backbone, tasks):
    config = MetaConfig(steps=60, lr=0.3)
    curve = meta_train(backbone, MultiTask(query_size=16), tasks, prompts(backbone)[0], config).curve
    first, last = (sum(p["query"] for p in part) / 10 for part in (curve[:10], curve[-10:]))
    assert last < first - 0.5


def test_a_diverging_run_names_the_step(backbone, tasks):
    config = MetaConfig(steps=50, lr=1e30, optimizer=SGD())
    with pytest.raises(SoftstartError, match=r"not finite at outer step \d+\. Lower the outer lr"):
        meta_train(backbone, SMALL["fomaml"], tasks, prompts(backbone)[0], config)


def test_support_comes_from_train_and_query_from_dev(backbone, tasks):
    items = [Item(t.name, t.train[13], t.dev[13]) for t in tasks]
    algorithm = FoMAML(inner_steps=2, support_size=3, query_size=4)
    sampler = EpisodeSampler(items, algorithm, MetaConfig(meta_batch=3), 0, torch.device("cpu"))
    for step in range(4):
        drawn = sampler.draw(step)
        order = epoch_slice(3, step * 3, 3, 42)
        assert sorted(order) == [0, 1, 2]
        for m, i in enumerate(order):
            support = [_texts(b, m) for b in drawn.support]
            assert [len(s) for s in support] == [3, 3]
            # Two steps of three rows fit in a train file of eight: no row twice.
            assert len(set(support[0]) | set(support[1])) == 6
            assert set(support[0]) | set(support[1]) <= set(map(tuple, items[i].train.inputs))
            assert set(_texts(drawn.query, m)) <= set(map(tuple, items[i].dev.inputs))


def _texts(batch, run):
    rows = (batch.run == run).nonzero().flatten().tolist()
    return [tuple(batch.input_ids[r, : int(batch.attention_mask[r].sum())].tolist()) for r in rows]


def test_a_foreign_checkpoint_is_refused(backbone, tasks, tmp_path):
    file = tmp_path / "meta.safetensors"
    config = MetaConfig(steps=2, lr=0.1)
    meta_train(backbone, SMALL["fomaml"], tasks, prompts(backbone)[0], config, checkpoint=file)
    longer = prompts(backbone, length=5)[0]
    with pytest.raises(SoftstartError, match="it belongs to other work"):
        meta_train(backbone, SMALL["fomaml"], tasks, longer, config, checkpoint=file)
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(SoftstartError, match=r"meta\.safetensors: not a readable safetensors file"):
        meta_train(backbone, SMALL["fomaml"], tasks, prompts(backbone)[0], config, checkpoint=file)


@given(n=st.integers(1, 9), start=st.integers(0, 40), count=st.integers(0, 30), cut=st.integers(0, 30))
def test_epochs_are_permutations_and_can_be_entered_anywhere(n, start, count, cut):
    whole = epoch_slice(n, 0, 100, 7)
    assert epoch_slice(n, start, count, 7) == whole[start : start + count]
    for epoch in range(100 // n):
        assert sorted(whole[epoch * n : (epoch + 1) * n]) == list(range(n))
    cut = min(cut, count)
    parts = epoch_slice(n, start, cut, 7) + epoch_slice(n, start + cut, count - cut, 7)
    assert parts == epoch_slice(n, start, count, 7)


PLAIN = SGD(weight_decay=0.0)


def test_gradients_summed_over_tasks_are_so_many_times_their_mean(backbone, tasks):
    start = prompts(backbone)[0]
    changes = [
        meta_train(backbone, SMALL["fomaml"], tasks, start, config).prompt - start
        for config in (
            MetaConfig(steps=1, meta_batch=3, lr=0.1, optimizer=PLAIN, reduction="sum"),
            MetaConfig(steps=1, meta_batch=3, lr=0.3, optimizer=PLAIN),
        )
    ]
    assert changes[1].abs().max() > 0
    assert relative(*changes) < 1e-5


def test_an_inner_rate_in_units_of_the_start_is_times_its_rms(backbone, tasks):
    start = 7 * prompts(backbone)[0]
    scale = float(start.square().mean().sqrt())
    base = MetaConfig(steps=2, lr=0.1, optimizer=PLAIN)
    unit = meta_train(backbone, FoMAML(inner_lr=0.2), tasks, start, replace(base, inner_lr_unit="start"))
    plain = meta_train(backbone, FoMAML(inner_lr=0.2 * scale), tasks, start, base)
    other = meta_train(backbone, FoMAML(inner_lr=0.2), tasks, start, base)
    assert relative(unit.prompt, plain.prompt) < 1e-6
    assert relative(other.prompt, plain.prompt) > 1e-6


def test_outputs_are_cut_and_items_keep_their_order_when_told(backbone, tasks):
    task = tasks[0]
    long = replace(task.train[13], outputs=[[[5, 6, 7, 8, 1]] for _ in task.train[13].outputs])
    items = [Item(str(i), long, long) for i in range(4)]
    config = MetaConfig(meta_batch=2, max_output_tokens=3, reshuffle=False)
    sampler = EpisodeSampler(items, SMALL["maml"], config, 0, torch.device("cpu"))
    assert sampler.draw(0).query.labels.unique(dim=0).tolist() == [[5, 6, 1]]  # the end token stays
    mixture = EpisodeSampler(items, MultiTask(query_size=64), config, 0, torch.device("cpu"))
    first, again = (mixture.draw(step).query.input_ids for step in (0, 1))
    assert torch.equal(first, again)  # 4 items of 8 train and 8 dev rows are one batch
    anew = EpisodeSampler(items, MultiTask(query_size=64), MetaConfig(), 0, torch.device("cpu"))
    assert not torch.equal(anew.draw(0).query.input_ids, anew.draw(1).query.input_ids)


def test_after_padding_tasks_take_turns(exact_norm):
    t5 = random_t5(placement="after_padding")
    tasks = [toy_encoded(t5, f"toy{i}", seed=i) for i in range(3)]
    start, maml = prompts(t5)[0], MAML(inner_lr=0.1, inner_steps=2)
    config = MetaConfig(steps=1, meta_batch=3, lr=0.5, optimizer=PLAIN)
    learned = meta_train(t5, maml, tasks, start, config).prompt
    items = [Item(task.name, task.train[s], task.dev[s]) for task in tasks for s in sorted(task.train)]
    episodes = EpisodeSampler(items, maml, config, 0, torch.device("cpu")).draw(0)
    found = []
    for m in range(3):

        def of(batch, m=m):
            own = batch.select((batch.run == m).nonzero().squeeze(1))
            return replace(own, run=torch.zeros_like(own.run))

        alone = Episodes(1, [of(batch) for batch in episodes.support], of(episodes.query))
        found.append(maml.meta_gradient(PromptObjective(t5), start, alone)[0])
    assert relative(learned, start - 0.5 * sum(found) / 3) < 1e-10
    together = maml.meta_gradient(PromptObjective(t5), start, episodes)[0]
    assert relative(sum(found) / 3, together) > 1e-6  # padded with each other they would differ
