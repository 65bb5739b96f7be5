"""How far the probabilities of a classifier can be trusted, reported next to its score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

BINS = 15
"""Bins of equal width for the expected calibration error, as Guo et al. (2017) report it."""
HALF = 0.5
"""The share of rows that is answered for ``accuracy at 50 %``."""


def calibration(probabilities: npt.ArrayLike, correct: Sequence[bool]) -> dict[str, float]:
    """Expected calibration error, accuracy, and accuracy on the more confident half.

    * "ECE" (Guo et al., 2017): rows go into bins by their confidence, the probability of the label that was
      chosen; the mean distance between confidence and accuracy of a bin, weighted by its rows.
    * "accuracy at 50 %" (El-Yaniv & Wiener, 2010): of the rows with the highest confidence, half of all
      rounded up; of equals, those that come first.

    Args:
        probabilities: of every label, [N, C].
        correct: whether the chosen label of each row is right.

    Returns:
        ``ECE``, ``accuracy`` and ``accuracy at 50 %`` as fractions; empty without rows, or if a probability
        is not finite, as under a prompt that has diverged.

    >>> calibration([[0.9, 0.1], [0.6, 0.4]], [True, False])
    {'ECE': 0.35, 'accuracy': 0.5, 'accuracy at 50 %': 1.0}
    """
    table, right = np.asarray(probabilities, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if not len(table) or not np.isfinite(table).all():
        return {}
    confidence = table.max(axis=1)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=BINS)
    first = np.argsort(-confidence, kind="stable")[: int(np.ceil(HALF * len(right)))]
    return {
        "ECE": round(float(np.abs(gaps).sum() / len(right)), 12),
        "accuracy": float(right.mean()),
        "accuracy at 50 %": float(right[first].mean()),
    }
