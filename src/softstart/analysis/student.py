"""Student's t distribution, without scipy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import fsum
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

_GRID = 20_001


@cache
def t_quantile(probability: float, freedom: float) -> float:
    """The quantile of Student's t distribution, exact to about 1e-5 for probabilities up to .999.

    With t = sqrt(freedom) tan(angle), the density is proportional to cos(angle)^(freedom - 1), which is
    integrated numerically.

    Args:
        probability: at least 0.5 and less than 1.
        freedom: degrees of freedom, at least 1.
    """
    angle = np.linspace(0, np.pi / 2, _GRID)
    density = np.cos(angle).clip(0) ** (freedom - 1)
    below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(np.sqrt(freedom) * np.tan(np.interp(probability, 0.5 + below / below[-1] / 2, angle)))


def t_p(t: float, freedom: float) -> float:
    """The two-sided p-value of a t statistic, to about 1e-5; NaN for NaN.

    Args:
        t: the statistic.
        freedom: degrees of freedom, at least 1.
    """
    if np.isnan(t):
        return float("nan")
    angle = np.linspace(0, np.pi / 2, _GRID)
    density = np.cos(angle).clip(0) ** (freedom - 1)
    below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(1 - np.interp(np.arctan(abs(t) / np.sqrt(freedom)), angle, below / below[-1]))


def t_test(
    values: Sequence[float] | npt.NDArray[np.float64], level: float = 0.95
) -> tuple[float, float, float]:
    """A mean, half the width of its t interval, and the two-sided p of a t test against zero.

    Args:
        values: at least two, none NaN; differences, in a paired test.
        level: of the interval.

    Returns:
        (mean, half the width, p); p is NaN where all values are the same.
    """
    numbers = np.asarray(values, dtype=np.float64)
    mean, freedom = fsum(numbers) / len(numbers), len(numbers) - 1
    error = float(numbers.std(ddof=1)) / np.sqrt(len(numbers))
    p = t_p(mean / error, freedom) if error else float("nan")
    return mean, float(t_quantile((1 + level) / 2, freedom) * error), p


def expanded_level(level: float, units: int) -> float:
    """The level of a percentile interval that is as wide as a t interval for a mean of ``units`` values.

    Percentiles of a bootstrap are too narrow by sqrt((units - 1) / units) and by the normal quantile in place
    of the t quantile (Hesterberg, 2015, *What teachers should know about the bootstrap*, section 5.3).

    Args:
        level: the share of cases in which an interval should hold the truth, such as 0.95.
        units: how many values were drawn from, at least 2.
    """
    tail = t_quantile((1 + level) / 2, units - 1) * np.sqrt(units / (units - 1))
    return 2 * NormalDist().cdf(float(tail)) - 1
