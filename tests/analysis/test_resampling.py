"""Bootstrap intervals against known distributions."""

import numpy as np
import pytest
from scipy import stats

from softstart.analysis.resampling import difference_interval, score_interval


def test_the_interval_of_an_accuracy_is_the_binomial_one():
    right = 140
    predictions = ["yes"] * right + ["no"] * (200 - right)
    low, high = score_interval("ACC", predictions, [["yes"]] * 200)
    assert (200 * low, 200 * high) == pytest.approx(stats.binom.interval(0.95, 200, 0.7), abs=3)
    assert score_interval("ACC", predictions[:right], [["yes"]] * right) == (1, 1)


def test_a_difference_over_test_rows_is_that_of_paired_means():
    """Accuracy: the interval of a mean of paired differences, row by row."""
    rng = np.random.default_rng(3)
    right = [["a"] * 200, [*["a"] * 150, *["b"] * 50]]
    references = [("a",) if i % 4 else ("b",) for i in range(200)]
    ours = [["a" if rng.random() < 0.8 else "b" for _ in references], ["a"] * 200]
    low, high = difference_interval("ACC", ours, right, references, resamples=2000)
    rows = np.array(
        [
            np.mean([(a[i] == truth) - (b[i] == truth) for a, b in zip(ours, right, strict=True)])
            for i, (truth,) in enumerate(references)
        ],
        dtype=float,
    )
    reach = 1.97 * rows.std(ddof=1) / np.sqrt(len(rows))
    assert (low, high) == pytest.approx((rows.mean() - reach, rows.mean() + reach), abs=0.01)
    assert difference_interval("ACC", right, right, references) == (0, 0)
