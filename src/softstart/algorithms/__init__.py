"""Ways to learn where a soft prompt should start, one short file each.

Adding an algorithm is one file and its line in ``ALGORITHMS``.
"""

from __future__ import annotations

from softstart.algorithms.anil import ANIL
from softstart.algorithms.base import (
    LOG_RATES,
    THETA,
    Algorithm,
    Episodes,
    Logs,
    Loss,
    Trajectory,
    further,
    inner_loop,
    meta_gradients,
)
from softstart.algorithms.fomaml import FoMAML
from softstart.algorithms.imaml import IMAML
from softstart.algorithms.maml import MAML
from softstart.algorithms.meta_sgd import MetaSGD
from softstart.algorithms.multitask import MultiTask
from softstart.algorithms.reptile import Reptile

ALGORITHMS = {
    "maml": MAML,
    "fomaml": FoMAML,
    "reptile": Reptile,
    "multitask": MultiTask,
    "anil": ANIL,
    "imaml": IMAML,
    "metasgd": MetaSGD,
}

__all__ = [
    "ALGORITHMS",
    "ANIL",
    "IMAML",
    "LOG_RATES",
    "MAML",
    "THETA",
    "Algorithm",
    "Episodes",
    "FoMAML",
    "Logs",
    "Loss",
    "MetaSGD",
    "MultiTask",
    "Reptile",
    "Trajectory",
    "further",
    "inner_loop",
    "meta_gradients",
]
