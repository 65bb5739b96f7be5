"""The mini gym: few-shot tasks generated over the small world of the embedded model."""

from softstart.gym.mini.gym import MiniGym
from softstart.gym.mini.versions import mini_settings

__all__ = ["MiniGym", "mini_settings"]
