"""Predict and score with many prompts at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from pydantic import AfterValidator
from torch import Tensor

from softstart.backbone import IGNORE, Backbone, Batch, Decoding, candidates_tensor, collate
from softstart.gym.calibration import calibration
from softstart.gym.metrics import METRICS, F1Labels, companions, score
from softstart.registry import Registry
from softstart.training.encoding import EncodedTask, Rows
from softstart.training.identity import Added, Unkeyed


@dataclass(frozen=True)
class Scoring:
    """A way to make predictions.

    Args:
        function: backbone, prompts [R, P, d], jobs and evaluation to the predictions of every job, in order
            of its rows. Jobs should share forward passes.
        label: what it does, in a word or two, for reports.
        ranks: whether it ranks label words, which takes memory that plans count.
        values: of a scoring that ranks, what it ranks by (see ``by_value``); without it, predictions come
            without probabilities.
    """

    function: Predicts
    label: str
    ranks: bool = False
    values: LabelValues | None = None


Predicts = Callable[["Backbone", Tensor, Sequence["Job"], "Evaluation"], list[list[str]]]
LabelValues = Callable[["Backbone", Tensor, Sequence["Job"], "Evaluation"], list[Tensor]]

SCORINGS: Registry[Scoring] = Registry("scoring", accepts=lambda thing: isinstance(thing, Scoring))
"""Ways to make predictions, by the name in ``Evaluation.scoring``."""


@dataclass(frozen=True)
class Evaluation:
    """How predictions are made.

    ``scoring="generate"`` decodes freely and compares strings, as the published protocol does. ``"rank"``
    picks the most likely label word of a classification task: another, easier metric; other tasks are
    generated in either case. ``"rank_per_token"`` and ``"rank_calibrated"`` rank by other values.
    """

    decoding: Decoding = Decoding()
    """How outputs are generated."""
    scoring: Annotated[str, AfterValidator(SCORINGS.check)] = "generate"
    """A name in ``SCORINGS``, or the import path of a ``Scoring``."""
    f1_labels: Annotated[F1Labels, Added("union")] = "union"
    """Over which labels Classification-F1 is a mean, on dev and on test (see ``gym.metrics.F1Labels``)."""
    bounded: Annotated[bool, Added(True)] = True
    """Generate at most two tokens more than the longest train or dev output of a task; False: as many as the
    decoding allows, as the published protocol does."""
    max_tokens: Annotated[int | None, Unkeyed()] = 32768
    """Upper bound on the tokens of one forward pass."""


@dataclass(frozen=True)
class Job:
    """Rows of a task to predict with prompt ``prompt`` of a stack."""

    prompt: int
    task: EncodedTask
    rows: Rows


@dataclass(frozen=True)
class Assessment:
    """The metric of a job's task on its rows, and what is reported with it: ``metrics.companions`` and, of
    ranked labels, ``gym.calibration``.
    """

    score: float
    companions: dict[str, float]


def predict(
    backbone: Backbone, prompts: Tensor, jobs: Sequence[Job], evaluation: Evaluation
) -> list[list[str]]:
    """Predictions of every job, stripped of surrounding white space, in row order.

    Jobs share forward passes; each is decoded exactly as it would be alone.

    Args:
        backbone: the frozen model.
        prompts: [R, P, d].
        jobs: what to predict with which prompt.
        evaluation: decoding and scoring.

    Raises:
        SoftstartError: an unknown scoring, or a prompt that does not fit.

    >>> from softstart import Backbone, Evaluation, Job, TextFormat, encode_task, predict
    >>> from softstart.gym import load_task
    >>> backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    >>> task = encode_task(load_task("film_review"), backbone, TextFormat("{input}"))
    >>> prompts = backbone.vocabulary[300:305].clone()[None]  # [R, P, d]
    >>> (texts,) = predict(backbone, prompts, [Job(0, task, task.dev[13])], Evaluation(scoring="rank"))
    >>> len(texts) == len(task.dev[13]), set(texts) <= set(task.labels)
    (True, True)
    """
    if backbone.rows_interact and len(jobs) > 1:
        return [predict(backbone, prompts, [job], evaluation)[0] for job in jobs]
    texts = SCORINGS.find(evaluation.scoring).function(backbone, prompts, jobs, evaluation)
    return [[text.strip() for text in of_job] for of_job in texts]


def assess(
    backbone: Backbone, prompts: Tensor, jobs: Sequence[Job], evaluation: Evaluation
) -> list[Assessment]:
    """Predict with prompts [R, P, d] and score every job; see ``predict``.

    Raises:
        SoftstartError: as ``predict``.
    """
    if backbone.rows_interact and len(jobs) > 1:
        return [assess(backbone, prompts, [job], evaluation)[0] for job in jobs]
    values = SCORINGS.find(evaluation.scoring).values
    ranked = [i for i, job in enumerate(jobs) if job.task.labels]
    if values is None or not ranked:
        texts = predict(backbone, prompts, jobs, evaluation)
        return [assess_texts(job.task, of, job.rows, evaluation) for job, of in zip(jobs, texts, strict=True)]
    found = dict(zip(ranked, values(backbone, prompts, [jobs[i] for i in ranked], evaluation), strict=True))
    others = [job for i, job in enumerate(jobs) if i not in found]
    rest = iter(assess(backbone, prompts, others, evaluation) if others else ())
    return [
        assess_values(job.task, job.task.labels, found[i], job.rows, evaluation) if i in found else next(rest)
        for i, job in enumerate(jobs)
    ]


def assess_values(
    task: EncodedTask, classes: Sequence[str], values: Tensor, rows: Rows, evaluation: Evaluation
) -> Assessment:
    """Score the classes with the largest values [rows, classes], and how far their probabilities hold.

    Raises:
        SoftstartError: as ``metrics.score``.
    """
    texts = [classes[best].strip() for best in values.argmax(1).tolist()]
    scored = assess_texts(task, texts, rows, evaluation)
    if not task.labels:
        return scored
    form = METRICS.find(task.metric).form
    right = [
        form(text) in {form(answer) for answer in answers}
        for text, answers in zip(texts, rows.references, strict=True)
    ]
    known = calibration(values.double().softmax(1).numpy(), right)
    return Assessment(scored.score, scored.companions | known)


def assess_texts(task: EncodedTask, texts: Sequence[str], rows: Rows, evaluation: Evaluation) -> Assessment:
    """Score predictions of rows of a task, whatever made them.

    Raises:
        SoftstartError: as ``metrics.score``.
    """
    by: dict[str, Any] = {"f1_labels": evaluation.f1_labels, "labels": task.labels}
    return Assessment(
        score(task.metric, texts, rows.references, **by),
        companions(task.labels, task.metric, texts, rows.references),
    )


def evaluate(backbone: Backbone, prompts: Tensor, jobs: Sequence[Job], evaluation: Evaluation) -> list[float]:
    """The scores of ``assess`` under prompts [R, P, d]: a fraction for each job.

    Raises:
        SoftstartError: as ``predict``.

    >>> from softstart import Backbone, Evaluation, Job, TextFormat, encode_task, evaluate
    >>> from softstart.gym import load_task
    >>> backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    >>> task = encode_task(load_task("film_review"), backbone, TextFormat("{input}"))
    >>> prompts = backbone.vocabulary[300:310].reshape(2, 5, -1)  # [R, P, d]
    >>> jobs = [Job(run, task, task.dev[13]) for run in range(2)]
    >>> scores = evaluate(backbone, prompts, jobs, Evaluation(scoring="rank"))
    >>> len(scores), all(0 <= score <= 1 for score in scores)
    (2, True)
    """
    return [assessed.score for assessed in assess(backbone, prompts, jobs, evaluation)]


def generate_outputs(
    backbone: Backbone, prompts: Tensor, jobs: Sequence[Job], evaluation: Evaluation
) -> list[list[str]]:
    """Free decoding with prompts [R, P, d], as many new tokens as ``evaluation`` allows."""
    outputs: list[list[str]] = [[] for _ in jobs]
    most = evaluation.decoding.max_new_tokens
    bounds = [min(job.task.max_new_tokens, most) if evaluation.bounded else most for job in jobs]
    # One search runs to the same number of new tokens for all its rows, so jobs with one bound are a group.
    for bound in sorted(set(bounds)):
        group = [i for i in range(len(jobs)) if bounds[i] == bound]
        decoding = replace(evaluation.decoding, max_new_tokens=bound)
        batch = _batch(backbone, [jobs[i] for i in group])
        texts = iter(backbone.generate(prompts, batch, decoding, evaluation.max_tokens))
        for i in group:
            outputs[i] = [next(texts) for _ in range(len(jobs[i].rows))]
    return outputs


def by_value(values: LabelValues) -> Predicts:
    """What predicts the label word with the largest value; tasks without label words are generated.

    Args:
        values: backbone, prompts [R, P, d], jobs of tasks with label words and evaluation to the values of
            every job, [rows, labels], on the CPU. A softmax over them gives probabilities.
    """

    def predictions(
        backbone: Backbone, prompts: Tensor, jobs: Sequence[Job], evaluation: Evaluation
    ) -> list[list[str]]:
        ranked = [job for job in jobs if job.task.labels]
        free = [job for job in jobs if not job.task.labels]
        generated = iter(generate_outputs(backbone, prompts, free, evaluation))
        found = iter(values(backbone, prompts, ranked, evaluation) if ranked else ())
        return [
            [job.task.labels[best] for best in next(found).argmax(1).tolist()]
            if job.task.labels
            else next(generated)
            for job in jobs
        ]

    return predictions


def label_likelihoods(
    backbone: Backbone, prompts: Tensor, jobs: Sequence[Job], evaluation: Evaluation
) -> list[Tensor]:
    """Log-likelihoods of the label words: sums over the tokens of a label and the end token.

    Args:
        backbone: the frozen model.
        prompts: [R, P, d].
        jobs: rows of tasks with label words.
        evaluation: its bound on the tokens of a forward pass.

    Returns:
        [rows, labels] for every job.
    """
    if not any(len(job.rows) for job in jobs):
        return [torch.zeros(0, len(job.task.labels)) for job in jobs]
    words = [tuple(map(tuple, job.task.label_ids)) for job in jobs]
    place = {labels: number for number, labels in enumerate(dict.fromkeys(words))}
    of = [place[labels] for labels, job in zip(words, jobs, strict=True) for _ in range(len(job.rows))]
    candidates = candidates_tensor(list(place), IGNORE).to(backbone.device)
    sets = torch.tensor(of, device=backbone.device)
    batch = _batch(backbone, jobs)
    sums = backbone.rank(prompts, batch, candidates, evaluation.max_tokens, sets).cpu()
    parts = sums.split([len(job.rows) for job in jobs])
    return [part[:, : len(job.task.labels)] for part, job in zip(parts, jobs, strict=True)]


def likelihoods_per_token(
    backbone: Backbone, prompts: Tensor, jobs: Sequence[Job], evaluation: Evaluation
) -> list[Tensor]:
    """``label_likelihoods`` divided by the tokens of each label, the end token included: [rows, labels].

    A label of many tokens is not less likely for that (length normalization; Brown et al., 2020).
    """
    sums = label_likelihoods(backbone, prompts, jobs, evaluation)
    return [
        part / torch.tensor([len(ids) for ids in job.task.label_ids], dtype=part.dtype)
        for part, job in zip(sums, jobs, strict=True)
    ]


def calibrated_likelihoods(
    backbone: Backbone, prompts: Tensor, jobs: Sequence[Job], evaluation: Evaluation
) -> list[Tensor]:
    """Contextual calibration (Zhao et al., 2021): log p(label | input) - log p(label | no content).

    Probabilities are shares among the labels. Those without content are means over the inputs of
    ``encoding.CONTENT_FREE``, under the same prompt and template: what the model prefers whatever it reads.

    Returns:
        [rows, labels] for every job.
    """
    empty = [replace(job, rows=job.task.content_free) for job in jobs]
    given = label_likelihoods(backbone, prompts, [*jobs, *empty], evaluation)
    return [
        part.log_softmax(1) - without.softmax(1).mean(0).log()
        for part, without in zip(given[: len(jobs)], given[len(jobs) :], strict=True)
    ]


rank_labels = by_value(label_likelihoods)
"""The most likely label word."""

SCORINGS.add("generate", Scoring(generate_outputs, "generated"))
for _name, _label, _values in (
    ("rank", "likeliest label", label_likelihoods),
    ("rank_per_token", "likeliest label per token", likelihoods_per_token),
    ("rank_calibrated", "likeliest label, calibrated", calibrated_likelihoods),
):
    SCORINGS.add(_name, Scoring(by_value(_values), _label, ranks=True, values=_values))


def _batch(backbone: Backbone, jobs: Sequence[Job]) -> Batch:
    inputs = [ids for job in jobs for ids in job.rows.inputs]
    return text_batch(backbone, inputs, [job.prompt for job in jobs for _ in range(len(job.rows))])


def text_batch(backbone: Backbone, inputs: Sequence[Sequence[int]], runs: Sequence[int]) -> Batch:
    """Inputs without outputs, row i using prompt ``runs[i]``, on the backbone's device."""
    batch = collate(inputs, [[]] * len(inputs), runs, pad=backbone.tokenizer.pad_token_id)
    return batch.to(backbone.device)


def no_prompt(backbone: Backbone) -> Tensor:
    """A stack with one prompt of length zero: the backbone as it is (full fine-tuning)."""
    return torch.zeros(1, 0, backbone.width, dtype=backbone.prompt_dtype, device=backbone.device)
