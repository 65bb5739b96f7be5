"""Every task of the mini gym: importing this module declares them."""

from softstart.gym.mini import (  # noqa: F401
    classes,
    held_classes,
    held_pairs,
    held_questions,
    held_words,
    pairs,
    questions,
    words,
)
from softstart.gym.mini.spec import TASKS

__all__ = ["TASKS"]
