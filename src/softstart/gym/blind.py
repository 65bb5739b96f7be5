"""What a task's test set scores without reading its inputs: the most frequent answer, and guessing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from softstart.gym.metrics import F1Labels, score
from softstart.gym.task import Task

GUESSED = 20_000
"""About how many answers are guessed for ``Blind.chance``, in whole test sets."""


@dataclass(frozen=True)
class Blind:
    """Test scores (fractions) of answers that do not read the input.

    ``majority`` is the most frequent answer of the rows to learn from, ``chance`` a guess among the labels,
    on average; None for a task without labels.
    """

    majority: float
    chance: float | None

    @property
    def best(self) -> float:
        """The better of the two."""
        return max(self.majority, self.chance or 0.0)


def blind(task: Task, f1_labels: F1Labels = "union") -> Blind:
    """The levels of a task's test set that no model is needed for.

    Raises:
        SoftstartError: test rows that the metric cannot use.

    >>> from softstart.gym import load_task
    >>> found = blind(load_task("film_review"))
    >>> round(found.majority, 2), 0.4 < found.chance < 0.6
    (0.33, True)
    """
    references = [row.outputs for row in task.test]

    def scored(predictions: list[str]) -> float:
        return score(task.metric, predictions, references, f1_labels=f1_labels, labels=task.labels)

    sample = next(iter(task.samples.values()))
    answers = Counter(row.outputs[0] for row in (*sample.train, *sample.dev) if row.outputs)
    majority = scored([answers.most_common(1)[0][0] if answers else ""] * len(references))
    if not task.labels:
        return Blind(majority, None)
    times = min(100, max(5, GUESSED // max(1, len(references))))
    drawn = np.random.default_rng(0).integers(len(task.labels), size=(times, len(references)))
    guesses = [scored([task.labels[i] for i in row]) for row in drawn.tolist()]
    return Blind(majority, float(np.mean(guesses)))
