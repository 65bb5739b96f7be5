"""Ways to learn where a soft prompt should start, one short file each.

Adding an algorithm is one file and its line in ``ALGORITHMS``.
"""

from __future__ import annotations

from softstart.algorithms.anil import ANIL
from softstart.algorithms.base import Algorithm, Episodes, Logs, Loss, Trajectory, inner_loop
from softstart.algorithms.fomaml import FoMAML
from softstart.algorithms.imaml import IMAML
from softstart.algorithms.maml import MAML
from softstart.algorithms.multitask import MultiTask
from softstart.algorithms.reptile import Reptile

ALGORITHMS = {
    "maml": MAML,
    "fomaml": FoMAML,
    "reptile": Reptile,
    "multitask": MultiTask,
    "anil": ANIL,
    "imaml": IMAML,
}

__all__ = [
    "ALGORITHMS",
    "ANIL",
    "IMAML",
    "MAML",
    "Algorithm",
    "Episodes",
    "FoMAML",
    "Logs",
    "Loss",
    "MultiTask",
    "Reptile",
    "Trajectory",
    "inner_loop",
]
