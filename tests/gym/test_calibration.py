"""Calibration against scikit-learn's reliability curve and a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from softstart.gym.calibration import BINS, calibration


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 5))
def test_the_error_is_that_of_the_reliability_curve(seed, rows, classes):
    rng = np.random.default_rng(seed)
    table = rng.dirichlet(np.ones(classes), size=rows)
    right = rng.random(rows) < table.max(axis=1)
    found = calibration(table, list(right))
    confidence = table.max(axis=1)
    accuracy, mean = calibration_curve(right, confidence, n_bins=BINS, strategy="uniform")
    counts = np.histogram(confidence, np.linspace(0, 1, BINS + 1))[0]
    expected = (np.abs(accuracy - mean) * counts[counts > 0]).sum() / rows
    assert found["ECE"] == pytest.approx(expected, abs=1e-9)
    assert found["accuracy"] == pytest.approx(right.mean())
    kept = sorted(range(rows), key=lambda i: (-confidence[i], i))[: (rows + 1) // 2]
    assert found["accuracy at 50 %"] == pytest.approx(np.mean([right[i] for i in kept]))


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_not():
    sure = [[1.0, 0.0], [0.0, 1.0]]
    assert calibration(sure, [True, True])["ECE"] == 0.0
    assert calibration(sure, [False, False])["ECE"] == 1.0
    assert calibration(np.zeros((0, 2)), []) == {}


def test_a_prompt_that_diverged_has_no_calibration():
    assert calibration([[0.5, 0.5], [float("nan"), float("nan")]], [True, False]) == {}
