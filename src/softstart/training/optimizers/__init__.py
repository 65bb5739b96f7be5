"""Optimizers over stacked runs, one short file each.

Adding one is one file and one line that registers it: here, or in a package of its own. Studies also accept
the import path of a class that is not registered.
"""

from __future__ import annotations

from softstart.training.optimizers.adafactor import Adafactor
from softstart.training.optimizers.adamw import AdamW
from softstart.training.optimizers.base import OPTIMIZERS, Optimizer, StackedOptimizer
from softstart.training.optimizers.sgd import SGD

OPTIMIZERS.add("adafactor", Adafactor)
OPTIMIZERS.add("adamw", AdamW)
OPTIMIZERS.add("sgd", SGD)

__all__ = ["OPTIMIZERS", "SGD", "Adafactor", "AdamW", "Optimizer", "StackedOptimizer"]
