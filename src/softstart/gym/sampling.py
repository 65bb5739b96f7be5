"""k-shot samples, row for row as CrossFit draws them (Ye et al. 2021).

Every shuffle is numpy's legacy generator under a seed: its stream is frozen, and the permutation depends on
the seed and the number of items alone. A draw always begins with the pool in its original order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from softstart.errors import SoftstartError
from softstart.gym.task import Kind, check_kind
from softstart.gym.tsv import output_of

SEEDS = (13, 21, 42, 87, 100)
"""The seeds of the published samples."""

SHOTS: Mapping[Kind, int] = {"classification": 16, "text2text": 32}
"""The published k: per label for classification, in all for text-to-text."""

R = TypeVar("R")


class KShot(NamedTuple, Generic[R]):
    """The two parts of one k-shot draw, rows as they were given."""

    train: list[R]
    dev: list[R]


def kshot(
    rows: Iterable[R], k: int, seed: int, kind: Kind, *, key: Callable[[R], object] | None = None
) -> KShot[R]:
    """Draw k training and k dev rows from a pool as CrossFit does.

    The pool is shuffled once under ``seed``. Text-to-text takes the first k rows for train and the next k
    for dev. Classification does so within each label, labels in the order in which the shuffled pool first
    shows them; a label with fewer than 2k rows leaves dev short, then train, and nothing is repeated.

    Args:
        rows: the pool in its original order: pairs (input, output), with further answers after the output,
            Examples, or mappings with an "output".
        k: rows per label for classification, rows in all for text-to-text.
        seed: names the draw; CrossFit publishes those of ``SEEDS``.
        kind: "classification" or "text2text".
        key: what classification balances; by default the output as it is written.

    Raises:
        SoftstartError: an empty pool, or a k, seed or kind that does not exist.

    >>> pool = [(f"text {i}", "joy" if i % 3 else "fear") for i in range(9)]
    >>> train, dev = kshot(pool, 1, seed=13, kind="classification")
    >>> train
    [('text 4', 'joy'), ('text 3', 'fear')]
    >>> dev
    [('text 1', 'joy'), ('text 6', 'fear')]
    """
    check_kind(kind)
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise SoftstartError(f"k must be a whole number of at least 1, not {k!r}")
    pool = shuffled(rows, seed)
    if not pool:
        raise SoftstartError("no rows to sample from")
    if kind == "text2text":
        return KShot(pool[:k], pool[k : 2 * k])
    buckets: dict[object, list[R]] = {}
    for row in pool:
        buckets.setdefault(output_of(row) if key is None else key(row), []).append(row)
    return KShot(
        [row for bucket in buckets.values() for row in bucket[:k]],
        [row for bucket in buckets.values() for row in bucket[k : 2 * k]],
    )


def shuffled(rows: Iterable[R], seed: int) -> list[R]:
    """The rows in the order that ``numpy.random.seed`` and ``numpy.random.shuffle`` give them.

    Raises:
        SoftstartError: a seed that is not a whole number from 0 to 2**32 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise SoftstartError(f"a seed is a whole number from 0 to 2**32 - 1, not {seed!r}")
    pool = list(rows)
    order = np.arange(len(pool))
    np.random.RandomState(int(seed)).shuffle(order)
    return [pool[i] for i in order]
