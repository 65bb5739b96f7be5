"""SPoT and Meta-SGD beyond the outer loop: what they learn reaches the tasks they are meant for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.models import prompts, random_t5, toy_encoded, toy_task
from helpers.toy_study import make_world, toy
from softstart.algorithms import LOG_RATES
from softstart.prompt import SoftPrompt
from softstart.study import run_study
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig, MetaConfig, PromptSpec
from softstart.training.encoding import Rows
from softstart.training.methods import learn
from softstart.training.optimizers import SGD
from softstart.training.spot import EMBEDDINGS, SOURCES, START, SPoT
from softstart.training.starts import draw_start

SPOT = SPoT(embedding_steps=3, query_size=4)
CONFIG = MetaConfig(steps=7, lr=0.3)


@pytest.fixture(scope="module")
def backbone():
    return random_t5()


@pytest.fixture(scope="module")
def tasks(backbone):
    return [toy_encoded(backbone, f"toy{i}", seed=i) for i in range(3)]


def test_source_prompts_are_those_of_each_task_tuned_alone_on_all_its_rows(backbone, tasks):
    start = prompts(backbone)[0]
    learned = learn(backbone, SPOT, tasks, start, CONFIG)
    for i, task in enumerate(tasks):
        both = [task.train[13], task.train[21]]
        rows = Rows(
            both[0].inputs + both[1].inputs,
            both[0].outputs + both[1].outputs,
            both[0].references + both[1].references,
        )
        joined = replace(task, train={0: rows}, dev={0: task.dev[13]})
        for name, steps in ((EMBEDDINGS, 3), (SOURCES, 7)):
            config = AdaptConfig(steps=steps, batch_size=4, eval_every=100, select="last", eval_start=False)
            (alone,) = adapt(backbone, [AdaptRun(start, joined, 0, 0.3, CONFIG.seed)], config)
            assert torch.allclose(learned.further[name][i], alone.prompt, rtol=1e-9)
    assert torch.equal(learned.prompt, learned.further[SOURCES].mean(0))
    assert torch.equal(learned.further[START], start)
    assert [point["step"] for point in learned.curve] == [3, 7]
    assert learned.work.tokens > 0


def test_the_nearest_source_is_that_of_a_prompt_tuned_on_the_target(backbone, tasks):
    start, target = prompts(backbone)[0], toy_encoded(backbone, "target", seed=9)
    library = learn(backbone, SPOT, tasks, start, CONFIG).further
    # Sources that point anywhere, or all would be as near as the start they share.
    library[EMBEDDINGS] = library[EMBEDDINGS] + torch.randn(
        (3, 3, backbone.width), generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    chosen = SPOT.nearest(backbone, library, [(target, 13, 5), (target, 21, 6)], CONFIG)
    for near, sample, seed in zip(chosen, (13, 21), (5, 6), strict=True):
        config = AdaptConfig(steps=3, batch_size=4, eval_every=100, select="last")
        (alone,) = adapt(backbone, [AdaptRun(start, target, sample, 0.3, seed)], config)
        cosines = [
            np.mean([float(torch.cosine_similarity(a, b, dim=0)) for a in alone.prompt for b in source])
            for source in library[EMBEDDINGS]
        ]
        assert near.similarity.tolist() == pytest.approx(cosines, rel=1e-6)
        assert near.source == int(np.argmax(cosines))
        assert torch.equal(near.start, library[SOURCES][near.source])


def test_rows_with_rates_learn_at_their_own(backbone, tasks):
    start, rates = prompts(backbone)[0], torch.tensor([[3.0], [1.0], [0.0]], dtype=torch.float64)
    plain = SGD(weight_decay=0.0)
    config = AdaptConfig(steps=1, eval_every=1, select="last", optimizer=plain)
    run = AdaptRun(start, tasks[0], 13, 0.3)
    results = adapt(backbone, [run, replace(run, rates=rates), replace(run, rates=7 * rates)], config)
    moved, scaled, same = (result.prompt - start for result in results)
    assert torch.allclose(scaled, moved * torch.tensor([[2.25], [0.75], [0.0]], dtype=torch.float64))
    assert torch.allclose(same, scaled)  # only their ratios count
    (alone,) = adapt(backbone, [run], config)
    assert torch.equal(alone.prompt, results[0].prompt)


METHODS = {
    "pt": {},
    "metasgd": {"inner_lr": 0.1, "further_lr": 0.5},
    "spot": {"steps": 4, "embedding_steps": 2},
}


def test_a_study_carries_rates_and_source_prompts_to_its_targets(tmp_path):
    world = make_world(tmp_path)
    study = toy(world, methods=METHODS, samples=[13])
    outcome = run_study(study, tmp_path / "out", device="cpu")
    assert not outcome.failures
    assert set(outcome.rows["method"]) == set(METHODS)
    assert outcome.missing == 0
    files = {file.stem: SoftPrompt.load(file) for file in (tmp_path / "out" / "prompts").iterdir()}
    starts = {p.info["algorithm"]: p for p in files.values() if "algorithm" in p.info}
    rates, library = starts["metasgd"].further[LOG_RATES], starts["spot"].further
    assert rates.shape == (4, 1)
    assert rates.abs().min() > 0
    assert starts["spot"].info["source"] == ["toy-a", "toy-b"]
    assert library[SOURCES].shape == library[EMBEDDINGS].shape == (2, 4, 16)
    backbone = random_t5(torch.float32)
    common = draw_start(backbone, PromptSpec(length=4), [toy_task(name) for name in ("toy-a", "toy-b")], 42)
    assert torch.equal(library[START], common)
    tuned = [p for p in files.values() if p.info["method"] == "spot" and "task" in p.info]
    assert len(tuned) == 4
    for prompt in tuned:
        assert prompt.further["similarity"].shape == (2,)
    # The first step of a Meta-SGD run: the rows move in proportion to their rates (here by hand, with SGD).
    changes = {
        "optimizer": {"name": "sgd", "weight_decay": 0.0},
        "steps": 1,
        "eval_every": 1,
        "select": "last",
    }
    one = toy(world, methods=METHODS, samples=[13], learning_rates=[0.2], adaptation=changes)
    assert not run_study(one, tmp_path / "one", device="cpu").failures
    tasks = {f"toy-{c}": toy_encoded(backbone, f"toy-{c}", seed=i) for i, c in enumerate("abcd")}
    for file in (tmp_path / "one" / "prompts").iterdir():
        prompt = SoftPrompt.load(file)
        if "task" not in prompt.info or prompt.info["method"] == "pt":
            continue
        start = starts[prompt.info["method"]]
        begun, share = start.tensor, torch.ones(4, 1)
        if prompt.info["method"] == "metasgd":
            share = start.further[LOG_RATES].exp() / start.further[LOG_RATES].exp().mean()
        else:
            begun = start.further[SOURCES][int(prompt.further["similarity"].argmax())]
        run = AdaptRun(begun, tasks[prompt.info["task"]], 13, 0.2, 42)
        (plain,) = adapt(backbone, [run], one.adaptation)
        assert torch.allclose(prompt.tensor - begun, share * (plain.prompt - begun), rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_a_study_with_transfer_is_the_same_on_workers(tmp_path):
    from helpers.toy_study import contents

    world = make_world(tmp_path)
    study = toy(world, methods={"pt": {}, "spot": METHODS["spot"]}, samples=[13], pack_size=2)
    torch.set_num_threads(1)
    for name, workers in (("one", 1), ("two", 2)):
        assert not run_study(study, tmp_path / name, device="cpu", workers=workers).failures
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
