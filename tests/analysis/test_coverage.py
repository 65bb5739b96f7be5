"""How often intervals hold the truth, in short simulations; docs/concepts/intervals.md has the long one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from softstart.analysis.coverage import WORLDS, coverage
from softstart.analysis.resampling import intervals, task_means
from softstart.analysis.student import expanded_level, t_quantile

STUDIES = 150


@pytest.mark.parametrize(
    ("world", "tasks", "least_arg", "least_points"),
    [("light", 4, 0.93, 0.93), ("light", 10, 0.93, 0.93), ("heavy", 10, 0.90, 0.93)],
)
def test_the_default_interval_holds_the_truth_as_often_as_the_page_says(
    world, tasks, least_arg, least_points
):
    held, _ = coverage(WORLDS[world], tasks, 5, 1, studies=STUDIES, resamples=200, seed=11)
    # Two standard errors of a share of this many studies.
    for share, least in ((held[0], least_arg), (held[2], least_points)):
        assert share >= least - 2 * np.sqrt(least * (1 - least) / STUDIES)


def test_plain_percentiles_hold_it_less_often():
    for world in ("light", "heavy"):
        held, _ = coverage(
            WORLDS[world], 4, 5, 1, interval="percentile", studies=STUDIES, resamples=200, seed=11
        )
        assert held[0] < 0.9


def test_the_interval_of_a_mean_is_at_least_the_t_interval_over_tasks():
    values = np.random.default_rng(0).normal(0.5, 0.1, (1, 6, 3, 1))
    ((low, high),) = intervals(values, lambda drawn: task_means(drawn)[0].mean(axis=-1)[None])
    means = values.mean(axis=(2, 3))[0]
    expected = stats.t.interval(0.95, 5, means.mean(), means.std(ddof=1) / np.sqrt(6))
    assert low <= expected[0] + 1e-6
    assert high >= expected[1] - 1e-6
    assert high - low < 1.25 * (expected[1] - expected[0])


@pytest.mark.parametrize("freedom", [1, 1.5, 3, 7.3, 40])
def test_quantiles_are_those_of_scipy(freedom):
    for probability in (0.8, 0.975, 0.995):
        expected = stats.t.ppf(probability, freedom)
        assert t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-4)


def test_the_expanded_level_makes_percentiles_as_wide_as_a_t_interval():
    tail = stats.norm.ppf((1 + expanded_level(0.95, 5)) / 2)
    assert tail * np.sqrt(4 / 5) == pytest.approx(stats.t.ppf(0.975, 4), rel=1e-4)
