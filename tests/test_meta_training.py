"""The outer loop: resumable bit for bit, reproducible, loud when it diverges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import prompts, random_t5, toy_encoded
from softstart.algorithms import ALGORITHMS, ANIL, IMAML, MAML, FoMAML, MultiTask, Reptile
from softstart.encoding import epoch_slice
from softstart.errors import SoftstartError
from softstart.meta_training import EpisodeSampler, Item, MetaConfig, meta_train
from softstart.optim import OptimizerConfig

SMALL = {
    "maml": MAML(inner_lr=0.1, inner_steps=2),
    "fomaml": FoMAML(inner_lr=0.1, inner_steps=2),
    "reptile": Reptile(inner_lr=0.1, inner_steps=3),
    "multitask": MultiTask(query_size=6),
    "anil": ANIL(inner_lr=0.1, inner_steps=2),
    "imaml": IMAML(inner_lr=0.1, inner_steps=2, iterations=2),
}


@pytest.fixture(scope="module")
def backbone():
    return random_t5(torch.float32, dropout=0.1)


@pytest.fixture(scope="module")
def tasks(backbone):
    return [toy_encoded(backbone, f"toy{i}", seed=i) for i in range(3)]


def test_every_registered_algorithm_is_tested():
    assert SMALL.keys() == ALGORITHMS.keys()


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dropout", [False, True])
def test_resumed_equals_uninterrupted_bit_for_bit(backbone, tasks, tmp_path, name, dropout):
    start = prompts(backbone)[0]
    config = MetaConfig(steps=7, lr=0.1, checkpoint_every=3, dropout=dropout)
    whole = meta_train(backbone, SMALL[name], tasks, start, config)

    class Killed(Exception):
        pass

    def kill(done, note=""):
        nonlocal count
        count += done
        if count >= 5:
            raise Killed

    count, file = 0, tmp_path / "meta.safetensors"
    with pytest.raises(Killed):
        meta_train(backbone, SMALL[name], tasks, start, config, checkpoint=file, progress=kill)
    resumed = meta_train(backbone, SMALL[name], tasks, start, config, checkpoint=file)
    assert torch.equal(resumed.prompt, whole.prompt)
    assert resumed.curve == whole.curve
    assert not torch.equal(whole.prompt, start)


@pytest.mark.parametrize("name", SMALL)
def test_the_seed_decides_the_episodes(backbone, tasks, name):
    start = prompts(backbone)[0]
    a, b, c = (
        meta_train(backbone, SMALL[name], tasks, start, MetaConfig(steps=3, lr=0.1, seed=s)).prompt
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
    config = MetaConfig(steps=50, lr=1e30, optimizer=OptimizerConfig("sgd"))
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
    with pytest.raises(SoftstartError, match="not a checkpoint of this meta-training"):
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
