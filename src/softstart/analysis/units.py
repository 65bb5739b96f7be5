"""Units of scores. Inside, a score is a fraction; points and percent are for people, and names say so.

A score, or a difference of two scores, of .5 is 50 points. A share or a ratio of .5 is 50 percent: a relative
gain is a ratio, so it is given in percent.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

Number = TypeVar("Number", float, npt.NDArray[np.float64], pd.Series, pd.DataFrame)


def points(fraction: Number) -> Number:
    """Scores, or differences of scores, in points.

    >>> points(0.5)
    50.0
    """
    return fraction * 100


def fraction(points: Number) -> Number:
    """Scores, or differences of scores, given in points, as fractions.

    >>> fraction(50.0)
    0.5
    """
    return points / 100


def percent(ratio: Number) -> Number:
    """Shares, or ratios such as a relative gain, in percent.

    >>> percent(0.25)
    25.0
    """
    return ratio * 100
