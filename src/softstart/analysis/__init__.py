"""Gains over a baseline with their uncertainty, and speed of adaptation, from tables of results."""

from softstart.analysis.arg import (
    CELL,
    arg_table,
    average_relative_gain,
    bootstrap_interval,
    influence,
    largest_budget,
    relative_gains,
    with_defaults,
)
from softstart.analysis.calibration import calibration_table
from softstart.analysis.curves import adaptation_area, speed_by_run, speed_table
from softstart.analysis.permutation import best_of_tasks, compare_methods, holm, sign_flip_p, with_tests
from softstart.analysis.protocol import check_scores, refuse_mixed
from softstart.analysis.resampling import DEFAULT_INTERVAL, INTERVALS

__all__ = [
    "CELL",
    "DEFAULT_INTERVAL",
    "INTERVALS",
    "adaptation_area",
    "arg_table",
    "average_relative_gain",
    "best_of_tasks",
    "bootstrap_interval",
    "calibration_table",
    "check_scores",
    "compare_methods",
    "holm",
    "influence",
    "largest_budget",
    "refuse_mixed",
    "relative_gains",
    "sign_flip_p",
    "speed_by_run",
    "speed_table",
    "with_defaults",
    "with_tests",
]
