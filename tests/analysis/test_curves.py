"""Curves, intervals, permutation tests and influence, each against an independent computation."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from helpers.shared import SHARED
from softstart.analysis import (
    CELL,
    arg_table,
    bootstrap_interval,
    compare_methods,
    holm,
    influence,
    largest_budget,
    relative_gains,
    sign_flip_p,
    speed_by_run,
    speed_table,
    with_defaults,
)
from softstart.analysis.resampling import mean, median

PAPER = SHARED / "paper" if SHARED else None
TASKS, SAMPLES, SEEDS = "abcdef", (13, 21, 42), (1, 2, 3)


@pytest.fixture(scope="module")
def study():
    """A made-up study with three methods, three meta seeds and two budgets, and its curves."""
    rng = np.random.default_rng(5)
    rows, curves = [], []
    for task, method, sample, seed in itertools.product(TASKS, ("pt", "maml", "ft"), SAMPLES, SEEDS):
        run = f"{method}-{task}-{sample}-{seed}"
        ceiling, speed = rng.uniform(0.4, 0.9), rng.uniform(3, 40) / (2 if method == "maml" else 1)
        dev = {s: round(ceiling * (1 - math.exp(-s / speed)), 2) for s in range(0, 61, 10)}
        curves += [{"run": run, "step": s, "dev": d} for s, d in dev.items()]
        for budget in (20, 60):
            score = max(d for s, d in dev.items() if s <= budget) + rng.normal(0, 0.02)
            cell = {"method": method, "task": task, "sample": sample, "seed": seed, "budget": budget}
            rows.append({**cell, "test": score, "run": run})
    return pd.DataFrame(rows), pd.DataFrame(curves)


def cell(frame, method, budget=60):
    return frame[(frame["method"] == method) & (frame["budget"] == budget)].iloc[0]


def test_budgets_are_compared_apart_and_the_largest_is_the_last(study):
    rows, _ = study
    table = arg_table(rows)
    for budget in (20, 60):
        part = rows[rows["budget"] == budget]
        alone = cell(arg_table(part.drop(columns="budget")), "maml", 0)
        both = cell(table, "maml", budget)
        assert both["arg"] == alone["arg"]
        assert both["low"] == alone["low"]
    assert set(largest_budget(rows.assign(**with_defaults(rows)))["budget"]) == {60}
    full = with_defaults(pd.concat([rows, rows[rows["budget"] == 60].drop(columns="budget")]))
    assert set(largest_budget(full)["budget"]) == {0}


def test_areas_are_means_over_time(study):
    rows, curves = study
    ours = speed_by_run(rows, curves).set_index(["method", "task", "sample", "seed", "budget"])
    assert len(ours) == len(rows)
    of_run = {key: curve.set_index("step")["dev"] for key, curve in curves.groupby("run")}
    for row in rows.itertuples():
        row_of_run = ours.loc[(row.method, row.task, row.sample, row.seed, row.budget)]
        dev = of_run[row.run][of_run[row.run].index <= row.budget]
        # The mean of a dense linear interpolation, midpoints of 0.01 steps.
        dense = np.interp(np.arange(0.005, row.budget, 0.01), dev.index, dev)
        assert row_of_run["area"] == pytest.approx(dense.mean(), abs=1e-6)
        goal = of_run[row.run.replace(row.method, "pt")]
        goal = goal[goal.index <= row.budget].max()
        reached = [step for step, score in dev.items() if score >= goal]
        assert row_of_run["steps"] == (reached[0] if reached else math.inf)


def test_fine_tuning_without_a_first_evaluation_is_compared_over_the_same_steps():
    rows = pd.DataFrame(
        [{"method": m, "task": "a", "sample": 1, "test": 0.5, "run": m} for m in ("pt", "maml", "ft")]
    )
    ways = {"pt": {0: 0.0, 20: 0.4, 40: 0.6}, "maml": {0: 0.2, 20: 0.4, 40: 0.6}, "ft": {20: 0.5, 40: 0.7}}
    curves = pd.DataFrame([(m, s, d) for m, way in ways.items() for s, d in way.items()])
    speeds = speed_by_run(rows, curves.set_axis(["run", "step", "dev"], axis=1)).set_index("method")
    assert speeds.loc["maml", ["area", "area_baseline"]].tolist() == pytest.approx([0.4, 0.35])
    assert speeds.loc["ft", ["area", "area_baseline"]].tolist() == pytest.approx([0.6, 0.5])


def test_speed_of_a_cell_is_the_median_and_censored_runs_count(study):
    rows, curves = study
    runs, table = speed_by_run(rows, curves), speed_table(rows, curves, resamples=400)
    assert len(table) == 6
    for method in ("pt", "maml", "ft"):
        of_cell = runs[(runs["method"] == method) & (runs["budget"] == 60)]
        row = cell(table, method)
        assert row["reached"] == pytest.approx(np.isfinite(of_cell["steps"]).mean())
        assert row["steps"] == np.median(of_cell["steps"])
        by_task = of_cell.groupby("task")[["area", "area_baseline"]].mean()
        gain = 100 * (by_task["area"] - by_task["area_baseline"]).mean()
        assert row["area_gain_points"] == pytest.approx(gain)
        assert row["steps_low"] <= row["steps"] <= row["steps_high"]
        assert row["area_gain_points_low"] <= row["area_gain_points"] <= row["area_gain_points_high"]
    assert cell(table, "pt")["reached"] == 1
    assert cell(table, "pt")["area_gain_points_high"] == 0
    # A method that is nowhere as good as the baseline never gets there, and nothing invents a number.
    hopeless = curves.assign(dev=curves["dev"].where(~curves["run"].str.startswith("ft"), 0.0))
    row = cell(speed_table(rows, hopeless, resamples=400), "ft")
    assert (row["steps"], row["steps_low"], row["reached"]) == (math.inf, math.inf, 0)


def test_runs_without_a_curve_are_left_out(study):
    rows, curves = study
    fewer = curves[~curves["run"].isin(["pt-a-13-1", "maml-b-13-1"])]
    speeds = speed_table(rows, fewer, resamples=100)
    assert cell(speeds, "maml")["n_runs"] == len(TASKS) * 9 - 2
    assert cell(speeds, "ft")["n_runs"] == len(TASKS) * 9 - 1


def test_intervals_of_every_gain_are_those_of_a_plain_loop(study):
    rows, _ = study
    rows = rows[rows["budget"] == 60]
    ours = cell(bootstrap_interval(rows, interval="percentile"), "maml")
    scores = {
        method: of_method.set_index(["task", "sample", "seed"])["test"].to_dict()
        for method, of_method in rows.groupby("method")
    }
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(3000):
        seeds = rng.choice(SEEDS, len(SEEDS))
        gains, differences = [], []
        for task in rng.choice(list(TASKS), len(TASKS)):
            runs = [(task, sample, seed) for sample in rng.choice(SAMPLES, len(SAMPLES)) for seed in seeds]
            maml, pt = (np.mean([scores[method][run] for run in runs]) for method in ("maml", "pt"))
            gains.append((maml - pt) / pt * 100)
            differences.append((maml - pt) * 100)
        draws.append((np.mean(gains), np.median(gains), np.mean(differences)))
    for values, name in zip(zip(*draws, strict=True), ("", "median_", "abs_"), strict=True):
        low, high = np.percentile(values, [2.5, 97.5])
        assert ours[f"{name}low"] == pytest.approx(low, abs=0.08 * (high - low))
        assert ours[f"{name}high"] == pytest.approx(high, abs=0.08 * (high - low))


def test_a_wider_plan_by_setting_makes_cells_incomplete(study):
    rows = study[0].assign(setting="s")
    assert arg_table(rows, planned={"s": (6, 9)})["complete"].all()
    assert not arg_table(rows, planned={"s": (6, 15)})["complete"].any()
    assert arg_table(rows, planned={"other": (9, 9)})["complete"].all()
    assert not arg_table(rows, planned={("s", "main"): (6, 15)})["complete"].any()
    assert arg_table(rows, planned={("s", "short"): (6, 15)})["complete"].all()


values = st.lists(st.floats(-5, 5) | st.just(math.nan) | st.just(math.inf), min_size=1, max_size=9)


@given(values)
def test_mean_and_median_leave_out_what_is_no_number(numbers):
    row, kept = np.array([numbers]), [v for v in numbers if not math.isnan(v)]
    with np.errstate(invalid="ignore"):
        expected = (np.mean(kept), np.median(kept)) if kept else (math.nan, math.nan)
    for value, reference in zip((mean(row)[0], median(row)[0]), expected, strict=True):
        assert value == pytest.approx(reference, nan_ok=True)


@given(st.lists(st.floats(-20, 20).map(lambda v: round(v, 3)), min_size=2, max_size=9))
def test_permutation_equals_scipy_enumerating_every_pattern(differences):
    result = stats.permutation_test(
        (np.array(differences),), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(differences) == pytest.approx(result.pvalue)


def test_many_tasks_are_sampled_and_agree_with_a_normal_approximation():
    differences = np.random.default_rng(1).normal(0.6, 1, 40)
    z = differences.sum() / np.sqrt((differences**2).sum())
    assert sign_flip_p(differences) == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.01)
    assert sign_flip_p(np.full(40, 3.0)) == 1 / 20_000  # never 0
    assert math.isnan(sign_flip_p([]))


def test_holm_on_a_textbook_family():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    adjusted = holm([0.02, math.nan, 0.01])
    assert adjusted[::2] == pytest.approx([0.02, 0.02])
    assert math.isnan(adjusted[1])


def test_methods_are_compared_pairwise_on_the_runs_they_share(study):
    rows, _ = study
    holes = rows[~((rows["method"] == "ft") & (rows["task"] == "a"))]
    pairs = compare_methods(holes)
    assert len(pairs) == 2 * 3  # budgets x pairs
    pair = pairs[(pairs["method"] == "maml") & (pairs["other"] == "ft") & (pairs["budget"] == 60)].iloc[0]
    means = holes[holes["budget"] == 60].groupby(["method", "task"])["test"].mean().unstack()
    d = 100 * (means.loc["maml"] - means.loc["ft"]).dropna()
    assert pair["n_tasks"] == len(d) == 5
    assert pair["difference_points"] == pytest.approx(d.mean())
    exact = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert pair["p"] == pytest.approx(exact.pvalue)
    against = pairs[(pairs["other"] == "pt") & (pairs["budget"] == 60)]
    assert list(against["p_holm"]) == pytest.approx(holm(list(against["p"])))
    assert pair["p_holm"] == pair["p"]  # the only pair of methods in its family


def test_influence_is_arg_of_the_table_without_the_task(study):
    rows, _ = study
    influences = influence(relative_gains(rows))
    for task in TASKS:
        without = arg_table(rows[rows["task"] != task])
        for row in influences[influences["task"] == task].itertuples():
            assert row.arg_without == pytest.approx(cell(without, row.method, row.budget)["arg"])
    assert len(influences) == len(TASKS) * 6
    assert set(CELL) < set(influences)


@pytest.mark.skipif(PAPER is None or not (PAPER / "arg.csv").is_file(), reason="shared/paper is not here")
def test_one_task_carries_the_published_random_setting():
    gains = relative_gains(pd.read_csv(PAPER / "results.csv"))
    influences = influence(gains[(gains["setting"] == "random") & (gains["backbone"] == "t5-large")])
    largest = influences.loc[influences[influences["method"] == "maml"]["change"].abs().idxmax()]
    assert largest["task"] == "yelp_polarity"
    assert 200 < largest["gain"] < 260
