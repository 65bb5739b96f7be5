"""What a score is compared with: the model without a prompt, the most frequent answer, and guessing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from softstart.backbone import Backbone
from softstart.gym.metrics import score
from softstart.gym.task import Task
from softstart.training.encoding import TextFormat, encode_task
from softstart.training.evaluation import Evaluation, Job, no_prompt, predict

GUESSES = 100
"""How often every test row is guessed for ``Levels.chance``."""


@dataclass(frozen=True)
class Levels:
    """Test scores (fractions) that need no tuning.

    ``zero_shot`` is the model without a prompt, ``majority`` the most frequent answer of the rows to learn
    from, ``chance`` a blind guess among the labels, on average; None for a task without labels.
    """

    zero_shot: float
    majority: float
    chance: float | None = None

    @property
    def blind(self) -> float:
        """The better of the two that do not read the input."""
        return max(self.majority, self.chance or 0.0)


def levels(backbone: Backbone, task: Task, text: TextFormat, evaluation: Evaluation) -> Levels:
    """The levels of a task's test set.

    Args:
        backbone: the frozen model.
        task: the task.
        text: how an example becomes model input.
        evaluation: decoding and scoring of the model without a prompt.

    Raises:
        SoftstartError: an example that cannot be used.

    >>> from softstart import Backbone
    >>> from softstart.gym import load_task
    >>> backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    >>> found = levels(backbone, load_task("film_review"), TextFormat("{input}"), Evaluation(scoring="rank"))
    >>> 0 <= found.zero_shot <= 1, round(found.majority, 2), 0.4 < found.chance < 0.6
    (True, 0.33, True)
    """
    encoded = encode_task(task, backbone, text)
    references = encoded.test.references

    def scored(predictions: list[str]) -> float:
        return score(task.metric, predictions, references, f1_labels=evaluation.f1_labels, labels=task.labels)

    (unprompted,) = predict(backbone, no_prompt(backbone), [Job(0, encoded, encoded.test)], evaluation)
    sample = next(iter(task.samples.values()))
    answers = Counter(row.outputs[0] for row in (*sample.train, *sample.dev) if row.outputs)
    majority = scored([answers.most_common(1)[0][0]] * len(references))
    chance = None
    if task.labels:
        drawn = np.random.default_rng(0).integers(len(task.labels), size=(GUESSES, len(references)))
        chance = float(np.mean([scored([task.labels[i] for i in row]) for row in drawn.tolist()]))
    return Levels(scored(unprompted), majority, chance)
