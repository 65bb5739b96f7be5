"""What a score is compared with: the model without a prompt, the most frequent answer, and guessing."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from softstart.backbone import Backbone
from softstart.gym.blind import Blind, blind
from softstart.gym.metrics import score
from softstart.gym.task import Task
from softstart.training.baselines.base import Given
from softstart.training.baselines.in_context import InContext
from softstart.training.encoding import EncodedTask, TextFormat, encode_task
from softstart.training.evaluation import Evaluation, Job, assess, no_prompt, predict


@dataclass(frozen=True)
class Levels:
    """Test scores (fractions) that need no tuning: of the model without a prompt, and without reading."""

    zero_shot: float
    blind: Blind
    in_context: float | None = None
    """With train rows and their answers before every text; None: not asked for."""


def levels(
    backbone: Backbone, task: Task, text: TextFormat, evaluation: Evaluation, shown: int | None = None
) -> Levels:
    """The levels of a task's test set.

    Args:
        backbone: the frozen model.
        task: the task.
        text: how an example becomes model input.
        evaluation: decoding and scoring of the model without a prompt.
        shown: how many train rows in-context learning reads before every text, or as many as the window
            holds; None: it is left out, for it takes long.

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
    return Levels(
        zero_shot,
        blind(task, by),
        None if shown is None else _in_context(backbone, encoded, evaluation, shown),
    )


def _in_context(backbone: Backbone, task: EncodedTask, evaluation: Evaluation, shown: int) -> float:
    """The mean over samples, each with its own train rows in one random order."""
    baseline, scores = InContext(demonstrations=shown), []
    for i, sample in enumerate(task.train):
        read = baseline.demonstrated(Given(backbone, task, sample, 0.0, i, evaluation), 0)
        (found,) = assess(backbone, no_prompt(backbone), [Job(0, read, read.test)], evaluation)
        scores.append(found.score)
    return fmean(scores)
