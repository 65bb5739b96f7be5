"""Ways to learn where a soft prompt should start, one short file each.

Adding an algorithm is one file and one line that registers it: here, or in a package of its own. Studies also
accept the import path of a class that is not registered.
"""

from __future__ import annotations

from typing import Any

from softstart.algorithms.anil import ANIL
from softstart.algorithms.base import (
    COLUMNS,
    LOG_RATES,
    ROWS,
    SHARED,
    THETA,
    Algorithm,
    Episodes,
    Logs,
    Loss,
    StepWork,
    Trajectory,
    further,
    inner_loop,
    is_algorithm,
    meta_gradients,
    work_of,
)
from softstart.algorithms.fomaml import FoMAML
from softstart.algorithms.imaml import IMAML
from softstart.algorithms.maml import MAML
from softstart.algorithms.meta_sgd import MetaSGD
from softstart.algorithms.multitask import MultiTask
from softstart.algorithms.multitask_prompt import MultitaskPrompt
from softstart.algorithms.reptile import Reptile
from softstart.registry import Registry

ALGORITHMS: Registry[type[Any]] = Registry("algorithm", is_algorithm)
"""Everything that learns from source tasks; ``softstart.training.methods`` adds those that
learn from whole tasks."""

ALGORITHMS.add("maml", MAML)
ALGORITHMS.add("fomaml", FoMAML)
ALGORITHMS.add("reptile", Reptile)
ALGORITHMS.add("multitask", MultiTask)
ALGORITHMS.add("anil", ANIL)
ALGORITHMS.add("imaml", IMAML)
ALGORITHMS.add("metasgd", MetaSGD)
ALGORITHMS.add("multitask_prompt", MultitaskPrompt)

__all__ = [
    "ALGORITHMS",
    "ANIL",
    "COLUMNS",
    "IMAML",
    "LOG_RATES",
    "MAML",
    "ROWS",
    "SHARED",
    "THETA",
    "Algorithm",
    "Episodes",
    "FoMAML",
    "Logs",
    "Loss",
    "MetaSGD",
    "MultiTask",
    "MultitaskPrompt",
    "Reptile",
    "StepWork",
    "Trajectory",
    "further",
    "inner_loop",
    "is_algorithm",
    "meta_gradients",
    "work_of",
]
