"""Episodes: support from train, query from dev, drawn from the number of the step alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from helpers.episodes import SMALL
from helpers.models import prompts
from softstart.algorithms import (
    FoMAML,
    MultiTask,
)
from softstart.training.configs import MetaConfig
from softstart.training.encoding import epoch_slice
from softstart.training.episodes import EpisodeSampler, Item
from softstart.training.methods import learn


@pytest.mark.parametrize("name", SMALL)
def test_the_seed_decides_the_episodes(backbone, tasks, name):
    start = prompts(backbone)[0]
    a, b, c = (
        learn(backbone, SMALL[name], tasks, start, MetaConfig(steps=3, lr=0.1, seed=s)).prompt
        for s in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


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


def test_outputs_are_cut_and_items_keep_their_order_if_asked(backbone, tasks):
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
