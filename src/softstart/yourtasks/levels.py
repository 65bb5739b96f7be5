"""What a score is compared with: the model without a prompt, the most frequent answer, and guessing."""

from __future__ import annotations

from dataclasses import dataclass

from softstart.backbone import Backbone
from softstart.gym.blind import Blind, blind
from softstart.gym.metrics import score
from softstart.gym.task import Task
from softstart.training.encoding import TextFormat, encode_task
from softstart.training.evaluation import Evaluation, Job, no_prompt, predict


@dataclass(frozen=True)
class Levels:
    """Test scores (fractions) that need no tuning: of the model without a prompt, and without reading."""

    zero_shot: float
    blind: Blind


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
    >>> 0 <= found.zero_shot <= 1, round(found.blind.majority, 2)
    (True, 0.33)
    """
    encoded = encode_task(task, backbone, text)
    (unprompted,) = predict(backbone, no_prompt(backbone), [Job(0, encoded, encoded.test)], evaluation)
    by = evaluation.f1_labels
    references = encoded.test.references
    zero_shot = score(task.metric, unprompted, references, f1_labels=by, labels=task.labels)
    return Levels(zero_shot, blind(task, by))
