"""What is said about a prompt, against what is known of it."""

import math

import pytest
import torch

from helpers.models import random_t5, toy_task
from softstart.algorithms import MAML
from softstart.diagnostics.inspection import prompt_facts
from softstart.diagnostics.second_order import second_order
from softstart.errors import SoftstartError
from softstart.training.configs import MetaConfig
from softstart.training.encoding import TextFormat, encode_task
from softstart.training.episodes import EpisodeSampler, Item


def test_rows_of_the_vocabulary_are_found_and_movement_is_measured():
    backbone = random_t5()
    ids = [7, 11, 5]
    start = backbone.embedding.weight[ids].detach().clone()
    moved = start * 3 + torch.tensor([0.0, 0.0, 1.0])[:, None]
    facts = prompt_facts(backbone, moved, start, nearest=2)
    for row, i, before, after in zip(facts.rows, ids, start, moved, strict=True):
        (word, score), *_ = row.before
        assert score == pytest.approx(1, abs=1e-5)
        assert word in (backbone.tokenizer.decode([i]).strip(), repr(backbone.tokenizer.decode([i])))
        assert row.norm == pytest.approx(float(after.norm()))
        assert row.moved == pytest.approx(float((after - before).norm()), rel=1e-5)
        assert len(row.nearest) == 2
    norms = backbone.embedding.weight[: len(backbone.tokenizer)].float().norm(dim=1)
    assert facts.vocabulary[1] == pytest.approx(float(norms.quantile(0.5)), rel=1e-5)
    assert math.isnan(prompt_facts(backbone, start).rows[0].moved)
    with pytest.raises(SoftstartError, match="different shapes"):
        prompt_facts(backbone, start, start[:2])


def test_second_order_matters_with_the_inner_step_and_not_without():
    backbone = random_t5()
    task = encode_task(toy_task("one", seed=0), backbone, TextFormat())
    items = [Item("one", task.train[13], task.dev[13])]
    theta = torch.randn(3, backbone.width, generator=torch.Generator().manual_seed(0)).to(
        backbone.prompt_dtype
    )

    def measured(lr):
        algorithm = MAML(inner_lr=lr, inner_steps=2)
        sampler = EpisodeSampler(
            items, algorithm, MetaConfig(), backbone.tokenizer.pad_token_id, backbone.device
        )
        return second_order(backbone, algorithm, theta, [sampler.draw(step) for step in range(2)])

    none, some, much = measured(1e-9), measured(0.5), measured(5.0)
    assert none.displacement == pytest.approx(0, abs=1e-6)
    assert none.cosine == pytest.approx(1, abs=1e-6)
    assert none.ratio == pytest.approx(1, abs=1e-6)
    assert 0 < some.displacement < much.displacement
    assert much.cosine < some.cosine < 1
