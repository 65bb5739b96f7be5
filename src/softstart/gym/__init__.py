"""The few-shot gym: tasks, samples, settings, metrics. Nothing here imports torch."""

from softstart.gym.settings import Setting, load_setting
from softstart.gym.sources import CrossFitFolder, open_gym
from softstart.gym.task import Example, Gym, Sample, Task

__all__ = [
    "CrossFitFolder",
    "Example",
    "Gym",
    "Sample",
    "Setting",
    "Task",
    "load_setting",
    "open_gym",
]
