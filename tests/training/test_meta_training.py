"""The outer loop: resumable bit for bit, reproducible, loud when it diverges."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from helpers.episodes import SMALL
from helpers.models import prompts, random_t5, relative, toy_encoded
from softstart.algorithms import (
    LOG_RATES,
    MAML,
    Episodes,
    FoMAML,
    MultiTask,
)
from softstart.errors import SoftstartError
from softstart.training.configs import MetaConfig
from softstart.training.episodes import EpisodeSampler, Item
from softstart.training.meta_training import meta_train
from softstart.training.methods import learn
from softstart.training.objective import PromptObjective
from softstart.training.optimizers import SGD


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


def test_multitask_learning_lowers_the_loss_on_its_sources(backbone, tasks):
    config = MetaConfig(steps=60, lr=0.3)
    curve = meta_train(backbone, MultiTask(query_size=16), tasks, prompts(backbone)[0], config).curve
    first, last = (sum(p["query"] for p in part) / 10 for part in (curve[:10], curve[-10:]))
    assert last < first - 0.5


def test_a_diverging_run_names_the_step(backbone, tasks):
    config = MetaConfig(steps=50, lr=1e30, optimizer=SGD())
    with pytest.raises(SoftstartError, match=r"not finite at outer step \d+\. Lower the outer lr"):
        meta_train(backbone, SMALL["fomaml"], tasks, prompts(backbone)[0], config)


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


PLAIN = SGD(weight_decay=0.0)


def test_the_sum_of_gradients_over_tasks_is_their_number_times_the_mean(backbone, tasks):
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


def test_after_padding_tasks_take_turns(exact_norm):
    t5 = random_t5(placement="after_padding")
    tasks = [toy_encoded(t5, f"toy{i}", seed=i) for i in range(3)]
    start, maml = prompts(t5)[0], MAML(inner_lr=0.1, inner_steps=2)
    config = MetaConfig(steps=1, meta_batch=3, lr=0.5, optimizer=PLAIN)
    learned = meta_train(t5, maml, tasks, start, config).prompt
    items = [Item(task.name, task.train[s], task.dev[s]) for task in tasks for s in sorted(task.train)]
    episodes = EpisodeSampler(items, maml, config, 0, torch.device("cpu")).draw(0)
    gradients = []
    for m in range(3):

        def of(batch, m=m):
            rows = batch.select((batch.run == m).nonzero().squeeze(1))
            return replace(rows, run=torch.zeros_like(rows.run))

        alone = Episodes(1, [of(batch) for batch in episodes.support], of(episodes.query))
        gradients.append(maml.meta_gradient(PromptObjective(t5), start, alone)[0])
    assert relative(learned, start - 0.5 * sum(gradients) / 3) < 1e-10
    together = maml.meta_gradient(PromptObjective(t5), start, episodes)[0]
    assert relative(sum(gradients) / 3, together) > 1e-6  # padded with each other they would differ
