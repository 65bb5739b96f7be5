"""What the numbers of a configuration can be, by the names of its fields: in studies and commands alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from softstart.errors import SoftstartError

MOST = 10**9
"""The largest count: steps, rows, tokens."""
MOST_RATE = 1e6
"""The largest learning rate."""
MOST_WORK = 10**15
"""The largest amount of work: epochs, rows read, gradients."""
END = 2**63
"""Whole numbers are smaller: the database and the generators hold 64 bits."""

COUNTS = frozenset({
    "steps", "batch_size", "batch_parts", "eval_every", "eval_backoff", "patience", "meta_batch",
    "checkpoint_every", "inner_steps", "support_size", "query_size", "embedding_steps", "max_tokens",
    "max_input_tokens", "max_output_tokens", "max_new_tokens", "num_beams", "length", "top", "pack_size",
    "pack_refill", "shots", "source_shots", "source_tasks", "test_rows", "budgets", "rungs", "splits",
    "demonstrations", "draws", "most_tokens", "rank",
})  # fmt: skip
"""Fields from 1 to ``MOST``."""
RATES = frozenset({"lr", "inner_lr", "learning_rates", "finetuning_learning_rates", "inverse_strengths"})
"""Fields greater than 0, and at most ``MOST_RATE``."""
AMOUNTS = frozenset({"epochs", "max_epochs", "examples", "gradients"})
"""Fields greater than 0, and at most ``MOST_WORK``."""
SEEDS = frozenset({"seed", "samples", "source_samples", "meta_seeds", "baseline_seeds"})
"""Fields from 0 to below ``END``."""


def check_ranges(values: Any, where: str | None = None, of: str = "") -> None:
    """Refuse numbers outside their range: whatever their field, they are finite and within 64 bits.

    Args:
        values: a configuration as plain data.
        where: the file or command, for messages.
        of: names the configuration, before the names of its fields.

    Raises:
        SoftstartError: with the first field that is wrong, and its range.

    >>> check_ranges({"adaptation": {"steps": 100}, "learning_rates": [0.5, 0.3]})
    >>> check_ranges({"learning_rates": [0.5, -1]})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    softstart.errors.SoftstartError: learning_rates.1: -1 is out of range. ...
    """
    for path, field, number in _numbers(values, of, ""):
        if fix := _range_missed(field, number):
            raise SoftstartError(f"{path}: {_shown(number)} is out of range", where=where, fix=f"Give {fix}.")


def check_options(values: Mapping[str, Any]) -> None:
    """Refuse options of a command outside the range of the field of their name.

    Raises:
        SoftstartError: naming the option.
    """
    for path, field, number in _numbers(values, "", ""):
        if fix := _range_missed(field, number):
            name = path.partition(".")[0].replace("_", "-")
            raise SoftstartError(f"{_shown(number)} is out of range", where=f"--{name}", fix=f"Give {fix}.")


def _shown(number: float) -> str:
    return f"a number of {len(str(number))} digits" if abs(number) >= 10**30 else f"{number}"


def _numbers(value: Any, path: str, field: str) -> Iterator[tuple[str, str, float]]:
    """Every number in plain data: its path, the field that decides its range, and itself."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, field, value
        return
    if isinstance(value, Mapping):
        parts = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, (list, tuple)):
        parts = [(str(i), inner) for i, inner in enumerate(value)]
    else:
        return
    for key, inner in parts:
        last = key.rpartition(".")[2]
        known = last in COUNTS | RATES | AMOUNTS | SEEDS
        yield from _numbers(inner, f"{path}.{key}" if path else key, last if known else field)


def _range_missed(field: str, number: float) -> str:
    """The range that a number is not in, in words; empty if it fits."""
    if field in COUNTS and not 1 <= number <= MOST:
        return f"a whole number from 1 to {MOST:,}"
    if field in RATES and not 0 < number <= MOST_RATE:
        return f"a number above 0, at most {MOST_RATE:g}"
    if field in AMOUNTS and not 0 < number <= MOST_WORK:
        return f"a number above 0, at most {MOST_WORK:,}"
    if field in SEEDS and not 0 <= number < END:
        return "a whole number from 0 to 2^63 - 1"
    if isinstance(number, int) and not -END <= number < END:
        return "a number within 64 bits"
    return "" if math.isfinite(number) else "a finite number"
