"""Similarity of tasks against definitions and scipy; the recommendation against a hand-made case."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from helpers.models import random_t5, toy_task
from helpers.shared import SHARED
from softstart.analysis import relative_gains
from softstart.analysis.reference import agreement, published
from softstart.analysis.similarity import (
    affinity,
    category_agreement,
    cluster_order,
    cosine,
    follow,
    follow_p,
    prompt_similarity,
    rank_correlation,
)
from softstart.diagnostics.task_vectors import encoder_vectors, gradient_vectors
from softstart.errors import SoftstartError
from softstart.training.encoding import TextFormat, encode_task
from softstart.training.gradients import run_losses

PAPER = SHARED / "paper" if SHARED else None


@pytest.fixture(scope="module")
def prompts():
    return np.random.default_rng(0).normal(size=(4, 5, 3))


def test_cosines_are_those_of_their_definition(prompts):
    flat, mean = prompt_similarity(prompts), prompt_similarity(prompts, "mean")
    for i, j in itertools.product(range(4), repeat=2):
        a, b = prompts[i].ravel(), prompts[j].ravel()
        assert flat[i, j] == pytest.approx(a @ b / math.sqrt(a @ a * (b @ b)))
        a, b = prompts[i].mean(0), prompts[j].mean(0)
        assert mean[i, j] == pytest.approx(a @ b / math.sqrt(a @ a * (b @ b)))
    assert (cosine(np.array([[0.0, 0.0], [1.0, 0.0]]))[0] == 0).all()
    with pytest.raises(SoftstartError, match="unknown comparison of prompts 'best'"):
        prompt_similarity(prompts, "best")


def test_matched_rows_are_the_best_of_all_orders(prompts):
    cosines = prompt_similarity(prompts, "matched")
    for i, j in itertools.combinations(range(4), 2):
        best = max(np.sum(prompts[i] * prompts[j][list(o)]) for o in itertools.permutations(range(5)))
        assert cosines[i, j] == pytest.approx(best / np.linalg.norm(prompts[i]) / np.linalg.norm(prompts[j]))
    shuffled = np.stack([prompts[0], prompts[0][[3, 1, 4, 0, 2]]])
    assert prompt_similarity(shuffled, "matched")[0, 1] == pytest.approx(1)
    assert prompt_similarity(shuffled)[0, 1] < 0.9


def test_categories_agree_from_the_left():
    shares = category_agreement(["classification/nli", "classification/emotion", "qa", "classification/nli"])
    assert shares[0].tolist() == [1, 0.5, 0, 1]


def test_clusters_lie_side_by_side():
    rng = np.random.default_rng(1)
    group = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    vectors = np.eye(3)[group] * 5 + rng.normal(size=(9, 3))
    order = group[cluster_order(cosine(vectors))]
    assert (np.diff(order) != 0).sum() == 2
    assert cluster_order(np.eye(2)) == [0, 1]


def test_rank_correlation_is_spearman_and_its_p_a_permutation_test():
    rng = np.random.default_rng(2)
    x = rng.normal(size=12)
    y = 0.6 * x + rng.normal(size=12)
    rho, p = rank_correlation([*x, math.nan], [*y, 1.0])
    assert rho == pytest.approx(stats.spearmanr(x, y).statistic)
    reference = stats.permutation_test(
        (x,), lambda v: stats.spearmanr(v, y).statistic, permutation_type="pairings", n_resamples=2000, rng=0
    )
    assert p == pytest.approx(reference.pvalue, abs=0.03)
    assert all(math.isnan(v) for v in rank_correlation([1, 1, 1], [1, 2, 3]))


def test_following_a_true_measure_pays_and_a_false_one_is_not_trusted():
    tasks, starts = [f"t{i}" for i in range(8)], ["near", "far", "all"]
    good = pd.DataFrame([[i % 3 == s for s in range(3)] for i in range(8)], tasks, starts, dtype=float)
    gains = good * 10 + 1
    followed = follow(gains, {"false": -good, "true": good})
    assert set(followed["measure"]) == {"true"}
    assert (followed["gain"] == 11).all()
    assert followed["random"].mean() == pytest.approx(1 + 10 / 3)
    assert (followed["best"] == 11).all()
    # What a left-out task gains does not choose its measure.
    trap = gains.copy()
    trap.loc["t0"] = [-500, 1000, 1000]
    assert follow(trap, {"true": good, "false": -good}).set_index("task").loc["t0", "gain"] == -500
    with pytest.raises(SoftstartError, match="needs two starts"):
        follow(gains[["near"]], {"true": good})


def test_a_target_chooses_among_the_starts_that_were_tried_on_it():
    gains = pd.DataFrame(
        {"near": [5.0, 6.0, math.nan], "far": [1.0, math.nan, 2.0], "all": [4.0, 2.0, 3.0], "one": math.nan},
        ["a", "b", "c"],
    )
    like = pd.DataFrame(
        {"near": [0.9, 0.9, 0.9], "far": [0.1] * 3, "all": [0.5] * 3, "one": [1.0] * 3}, gains.index
    )
    followed = follow(gains, {"m": like}, {"near": 2, "far": 2, "all": 5, "one": 9}).set_index("task")
    assert followed["start"].tolist() == ["near", "near", "all"]
    assert followed["gain"].tolist() == [5, 6, 3]
    assert followed["random"].tolist() == pytest.approx([10 / 3, 4, 2.5])
    assert followed["widest"].tolist() == [4, 2, 3]
    # Others' means for a: near 6, far 2, all 2.5; for b: near 5, all 3.5; for c: far 1, all 3.
    assert followed["fixed"].tolist() == [5, 6, 3]
    with pytest.raises(SoftstartError, match="needs two starts"):
        follow(gains[["one", "all"]], {"m": like})


def world(rng, helps=0.0, targets=12, measures=7):
    """Gains of three starts, of which a third of the targets tried two, and similarities that say nothing but
    ``helps`` times the gains."""
    tasks, starts = [f"t{i}" for i in range(targets)], ["a", "b", "c"]
    gains = rng.normal(8, 5, (targets, 1)) + rng.normal(0, 1, 3) + rng.normal(0, 2, (targets, 3))
    shared = rng.normal(size=(targets, 3))  # measures agree in part
    like = {
        f"m{i}": pd.DataFrame(shared + rng.normal(size=(targets, 3)) + helps * gains, tasks, starts)
        for i in range(measures)
    }
    table = pd.DataFrame(gains, tasks, starts)
    table.iloc[: targets // 3, 2] = math.nan
    return table, like


def test_the_p_value_of_following_holds_its_size():
    rng, rounds = np.random.default_rng(5), 200
    p = np.array([follow_p(*world(rng), permutations=199) for _ in range(rounds)])
    # Three standard errors around .05 and .2; the paired test over the rows of ``follow`` was at .26.
    assert (p <= 0.05).mean() <= 0.097
    assert 0.11 < (p <= 0.2).mean() < 0.29
    assert np.median([follow_p(*world(rng, helps=1.0), permutations=199) for _ in range(20)]) < 0.1


def test_the_p_value_of_following_counts_every_swap():
    """Three targets that tried the same starts, one measure: the six orders, by ``follow`` itself."""
    gains, like = world(np.random.default_rng(1), targets=3, measures=2)
    gains = gains.fillna(5.0)
    means = []
    for order in itertools.permutations(range(3)):
        swapped = {name: table.iloc[list(order)].set_axis(table.index) for name, table in like.items()}
        means.append(follow(gains, swapped)["gain"].mean())
    expected = np.mean(np.array(means) >= means[0] - 1e-9)
    assert follow_p(gains, like, permutations=20_000) == pytest.approx(expected, abs=0.02)


def test_affinity_is_the_mean_over_sources():
    table = pd.DataFrame(np.arange(9.0).reshape(3, 3), list("abc"), list("abc"))
    assert affinity(table, ["a", "b"], ["c"]).to_dict() == {"c": 6.5}


def test_gradients_of_tasks_are_those_of_autograd_and_states_those_of_the_encoder():
    backbone = random_t5()
    names = ("one", "two")
    tasks = [encode_task(toy_task(n, seed=i), backbone, TextFormat()) for i, n in enumerate(names)]
    start = torch.randn(3, backbone.width, dtype=backbone.prompt_dtype)
    ours = gradient_vectors(backbone, start, tasks, [13, 13], max_tokens=60)
    from softstart.training.encoding import rng_for, to_batch

    rows = tasks[1].train[13]
    pairs = rows.pick(rows.trainable, rng_for(13))
    leaf = start[None].clone().requires_grad_()
    loss = run_losses(backbone, leaf, to_batch(pairs, [0] * len(pairs), backbone.tokenizer.pad_token_id))
    loss.sum().backward()
    np.testing.assert_allclose(ours[1], leaf.grad.flatten().numpy(), rtol=1e-4, atol=1e-7)
    for part in ("inputs", "outputs"):
        assert encoder_vectors(backbone, tasks, [13, 13], part).shape == (2, backbone.width)
    texts = tasks[0].train[13].inputs
    states = [backbone.model.encoder(torch.tensor([ids])).last_hidden_state[0].mean(0) for ids in texts]
    vectors = encoder_vectors(backbone, tasks, [13, 13])[0]
    np.testing.assert_allclose(vectors, torch.stack(states).mean(0).detach().numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(PAPER is None or not (PAPER / "results.csv").is_file(), reason="shared/paper is not here")
def test_the_shipped_numbers_are_the_published_ones():
    rows = pd.read_csv(PAPER / "results.csv").rename(columns={"split_seed": "sample"})
    rows = rows[rows["variant"] != "yelp_onlybs8_backup"].replace({"method": {"multi": "multitask"}})
    key = ["setting", "method", "backbone", "prompt_length", "variant", "task", "sample"]
    both = rows.merge(published(), on=key, suffixes=("", "_ours"), validate="one_to_one")
    assert len(both) == len(rows) == len(published())
    np.testing.assert_allclose(both["test_ours"], both["test"], rtol=0, atol=5.1e-5)


def test_published_gains_agree_with_themselves_and_not_with_their_negative():
    theirs = published()
    gains = relative_gains(theirs[(theirs["variant"] == "main") & (theirs["backbone"] == "t5-large")])
    same = agreement(gains)
    assert same["rank"].min() == pytest.approx(1)
    assert (same["same_sign"] == 1).all()
    assert same["arg"].to_numpy() == pytest.approx(same["arg_published"].to_numpy())
    assert len(same) == 11 * 5
    reversed_ = agreement(gains.assign(gain=-gains["gain"]))
    assert reversed_["rank"].max() == pytest.approx(-1)
    assert agreement(gains.assign(setting="mine")).empty
