"""A mixture of source prompts: its weights against autograd, and how they reach the tasks of a study."""

from __future__ import annotations

import pytest
import torch

from helpers.families import random_backbone
from helpers.models import prompts, relative, toy_encoded
from helpers.toy_study import toy
from softstart.prompt import SoftPrompt
from softstart.study import run_study
from softstart.training.configs import MetaConfig
from softstart.training.encoding import epoch_slice, to_batch
from softstart.training.gradients import run_losses
from softstart.training.methods import learn
from softstart.training.source_mixture import SourceMixture, mixed
from softstart.training.spot import SOURCES, SPoT

CONFIG = MetaConfig(steps=3, lr=0.3)


def key_values():
    """A causal backbone in float64, and three key-value prompts."""
    backbone = random_backbone("llama", torch.float64)
    backbone.prompt_kind = "key_values"
    made = backbone.kind.made_of(torch.randn(3, 4, backbone.vocabulary.shape[1]).double(), backbone)
    return backbone, made.to(backbone.prompt_dtype)


@pytest.mark.parametrize("kind", ["embeddings", "key_values"])
def test_weights_follow_the_gradient_of_the_losses_as_adam_does(t5, kind):
    backbone, sources = (t5, prompts(t5, runs=3, seed=4)) if kind == "embeddings" else key_values()
    targets = [toy_encoded(backbone, f"target{i}", seed=9 + i) for i in range(2)]
    cells = [(targets[0], 13, 5), (targets[1], 21, 6)]
    mixture = SourceMixture(weight_steps=4, weight_lr=0.2, query_size=5)
    chosen = mixture.nearest(backbone, {SOURCES: sources}, cells, CONFIG)
    for (task, sample, seed), near in zip(cells, chosen, strict=True):
        weights = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        adam, rows = torch.optim.Adam([weights], lr=0.2), task.train[sample]
        for step in range(4):
            order = [rows.trainable[i] for i in epoch_slice(len(rows.trainable), 5 * step, 5, seed, sample)]
            batch = to_batch([(rows.inputs[i], rows.outputs[i][0]) for i in order], [0] * 5, 0)
            adam.zero_grad()
            run_losses(backbone, mixed(weights[None], sources), batch)[0].backward()
            adam.step()
        assert relative(near.similarity, weights.detach().softmax(0)) < 1e-8
        assert relative(near.start, mixed(weights.detach()[None], sources)[0]) < 1e-8
        assert near.similarity.sum().item() == pytest.approx(1)
        assert near.similarity.std() > 0
        assert near.work.tokens > 0


def test_its_sources_are_those_of_spot(t5):
    tasks = [toy_encoded(t5, f"toy{i}", seed=i) for i in range(2)]
    learned = learn(t5, SourceMixture(query_size=4), tasks, prompts(t5)[0], CONFIG)
    spot = learn(t5, SPoT(embedding_steps=3, query_size=4), tasks, prompts(t5)[0], CONFIG)
    assert torch.equal(learned.further[SOURCES], spot.further[SOURCES])


@pytest.mark.slow
def test_a_study_compares_both_mixtures(world, tmp_path):
    methods = {
        "pt": {}, "source_mixture": {"weight_steps": 3}, "multitask_prompt": {"further_lr": 0.5},
    }  # fmt: skip
    declared = toy(world, methods=methods, samples=[13], learning_rates=[0.2], meta={"steps": 2, "lr": 0.3})
    outcome = run_study(declared, tmp_path / "out", device="cpu")
    assert (outcome.failures, outcome.missing) == ([], 0)
    files = [SoftPrompt.load(file) for file in (tmp_path / "out" / "prompts").iterdir()]
    tuned = [p for p in files if p.info["method"] == "source_mixture" and "task" in p.info]
    assert [p.further["similarity"].sum().item() for p in tuned] == pytest.approx([1.0] * 2)
    (start,) = [p for p in files if p.info.get("algorithm") == "multitask_prompt"]
    assert set(start.further) == {"shared", "columns", "rows"}
    assert "Multitask prompt" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
