"""The few-shot gym: tasks, samples, settings, metrics. Nothing here imports torch."""

from softstart.gym.folder import CrossFitFolder
from softstart.gym.sampling import SEEDS, KShot, kshot
from softstart.gym.setting import Setting
from softstart.gym.settings import load_setting
from softstart.gym.sources import load_task, open_gym
from softstart.gym.task import Example, Gym, Sample, Task
from softstart.gym.tsv import write_tsv

__all__ = [
    "SEEDS",
    "CrossFitFolder",
    "Example",
    "Gym",
    "KShot",
    "Sample",
    "Setting",
    "Task",
    "kshot",
    "load_setting",
    "load_task",
    "open_gym",
    "write_tsv",
]
