"""What result tables say: gains over a baseline with their uncertainty, and speed of adaptation."""

from softstart.analysis.arg import (
    CELL,
    arg_table,
    average_relative_gain,
    bootstrap_interval,
    relative_gains,
    with_defaults,
)
from softstart.analysis.curves import adaptation_area

__all__ = [
    "CELL",
    "adaptation_area",
    "arg_table",
    "average_relative_gain",
    "bootstrap_interval",
    "relative_gains",
    "with_defaults",
]
