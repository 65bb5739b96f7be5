"""The few-shot gym: tasks, samples, metrics. Nothing here imports torch."""

from softstart.gym.task import Example, Gym, Sample, Task

__all__ = ["Example", "Gym", "Sample", "Task"]
