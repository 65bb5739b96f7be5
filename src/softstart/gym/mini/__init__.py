"""The mini gym: few-shot tasks generated over the small world of the embedded model."""

from softstart.gym.mini.gym import MiniGym
from softstart.gym.mini.settings import MINI_SETTINGS

__all__ = ["MINI_SETTINGS", "MiniGym"]
