"""Bootstrap intervals against known distributions."""

import pytest
from scipy import stats

from softstart.analysis.resampling import score_interval


def test_the_interval_of_an_accuracy_is_the_binomial_one():
    right = 140
    predictions = ["yes"] * right + ["no"] * (200 - right)
    low, high = score_interval("ACC", predictions, [["yes"]] * 200)
    assert (200 * low, 200 * high) == pytest.approx(stats.binom.interval(0.95, 200, 0.7), abs=3)
    assert score_interval("ACC", predictions[:right], [["yes"]] * right) == (1, 1)
