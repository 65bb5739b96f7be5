"""Predict your own rows with one tuned prompt, and score predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from softstart.backbone import Backbone
from softstart.errors import SoftstartError
from softstart.gym.label_sets import compare_labels
from softstart.gym.lines import kept_text
from softstart.gym.metrics import METRICS, YES, companions, score
from softstart.gym.multi_label import METRIC, NOTHING, f1, question
from softstart.gym.rows import PREDICTION, line_of
from softstart.gym.task import Example
from softstart.gym.template import Template, with_columns
from softstart.prompt import SoftPrompt
from softstart.training.encoding import (
    CONTENT_FREE,
    EncodedTask,
    Rows,
    TextFormat,
    check_labels,
    encode_texts,
    unanswered,
)
from softstart.training.evaluation import SCORINGS, Evaluation, Job, Scoring
from softstart.yourtasks.lengths import input_limit

LABEL_TOKENS = 128
"""Longer labels are cut."""
CHUNK = 256
"""Rows that are read, predicted and written at a time."""
LIMIT = 512
"""Tokens of an input that a prompt says nothing of."""


@dataclass
class Predictor:
    """Predicts rows with one prompt; ``truncated`` counts the inputs that were cut so far.

    Args:
        backbone: the frozen model.
        prompt: a tuned prompt; what ``compare_starts`` noted in ``info`` gives the defaults of the rest.
        labels: label words to choose from, with a probability each; none: outputs are written freely. Of a
            prompt that was tuned on several labels a row, which labels to ask about.
        template: how the row's input becomes model input.
        input: which fields of a row are its input.
        max_input_tokens: longer inputs are cut, or refused with ``strict``.
        strict: refuse what is too long.
        scoring: a name of ``softstart.training.evaluation.SCORINGS``, or an import path; without labels,
            outputs are written freely.
        evaluation: decoding, and the bound on the tokens of a forward pass.

    Raises:
        SoftstartError: the prompt and the backbone do not go together or leave no room for text, ``input``
            names no column, or the model cannot tell two labels apart.

    >>> from softstart import Backbone
    >>> from softstart.yourtasks import plain_start
    >>> backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    >>> prompt = SoftPrompt.of(backbone, plain_start(backbone, 5))
    >>> predict = Predictor(backbone, prompt, labels=["good", "bad"])
    >>> (row,) = predict([{"input": "the film was dull"}])
    >>> list(row)
    ['input', 'prediction', 'p(good)', 'p(bad)']
    """

    backbone: Backbone
    prompt: SoftPrompt
    labels: Sequence[str] | None = None
    template: str | None = None
    input: str = "{input}"
    max_input_tokens: int | None = None
    strict: bool = False
    scoring: str | None = None
    evaluation: Evaluation = Evaluation(max_tokens=4096)
    truncated: int = 0

    def __post_init__(self) -> None:
        info = self.prompt.info
        self.stack = self.prompt.check_for(self.backbone)[None].to(
            self.backbone.device, self.backbone.prompt_dtype
        )
        self.asked = tuple(self.labels or info.get("asked") or ()) if info.get("asked") else ()
        if self.labels is None or self.asked:
            self.labels = info.get("labels") or []
        if self.template is None:
            self.template = info.get("template") or "{input}"
        self.format = TextFormat(self.template)
        self.fields = with_columns(self.input, "--input")
        self.way = self._way()
        outputs = min(info.get("max_new_tokens") or 32, self.evaluation.decoding.max_new_tokens)
        wanted = self.max_input_tokens or info.get("max_input_tokens") or LIMIT
        self.limit = input_limit(self.backbone, len(self.prompt.tensor), wanted, outputs)
        chat = self.format.chat
        label_ids = encode_texts(self.backbone, self.labels, LABEL_TOKENS, outputs=True, chat=chat)
        check_labels(self.labels, label_ids, "--labels")
        self.task = EncodedTask(
            str(info.get("task", "")), str(info.get("metric", "")), {}, {}, Rows([], [], []),
            tuple(self.labels), label_ids, outputs, self.encoded(CONTENT_FREE)[0],
        )  # fmt: skip

    def _way(self) -> Scoring:
        """How predictions are made: as asked, else as the prompt was tuned, else the likeliest label."""
        if self.scoring is None:
            # The name comes from a file that others may have made: no module is imported for it.
            noted = str(self.prompt.info.get("scoring") or "rank")
            if noted not in SCORINGS:
                raise SoftstartError(
                    f"the prompt was tuned by a scoring that is not registered, '{noted}'",
                    fix="Name one with --scoring, if need be by its import path.",
                )
            self.scoring = noted
        way = SCORINGS.find(self.scoring, "--scoring")
        if not self.labels and way.ranks:
            self.scoring = "generate"
        return SCORINGS.find(self.scoring)

    def __call__(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Each row, in order, with ``prediction`` and, of labels, ``p(label)``; read and made in chunks.

        The prediction of a prompt that was tuned on several labels a row is a list: those that fit.

        Raises:
            SoftstartError: a row without the input's fields, or one too long when ``strict``.
        """
        rows, number = iter(rows), 0
        while chunk := list(islice(rows, CHUNK)):
            inputs = [input_of(row, number + i, self.fields) for i, row in enumerate(chunk, 1)]
            number += len(chunk)
            for row, answer in zip(chunk, self.answers(inputs), strict=True):
                self.check_columns(row)
                yield dict(row) | answer

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are added to a row."""
        return (PREDICTION, *(f"p({label})" for label in self.asked or self.labels or ()))

    def check_columns(self, columns: Iterable[str], where: str | None = None) -> None:
        """Refuse a table with a column that predictions would overwrite.

        Raises:
            SoftstartError: naming the column.
        """
        if taken := next((name for name in columns if name in self.columns), None):
            raise SoftstartError(
                f"a column is named '{taken}', as one that is added here",
                where=where,
                fix="Rename the column.",
            )

    def texts(self, inputs: Sequence[str]) -> list[Any]:
        """The predictions for inputs, without a row around them: texts, or lists of several labels.

        Raises:
            SoftstartError: an input that is too long when ``strict``.
        """
        parts = (inputs[begin : begin + CHUNK] for begin in range(0, len(inputs), CHUNK))
        return [answer[PREDICTION] for part in parts for answer in self.answers(part)]

    def encoded(self, inputs: Sequence[str]) -> tuple[Rows, list[int]]:
        """Inputs as token rows, those too long cut, and the lengths of those before they were."""
        task, chat = str(self.prompt.info.get("task", "")), self.format.chat
        texts = [self.format.fill(task, text) for text in inputs]
        ids = encode_texts(self.backbone, texts, None, chat=chat)
        long = [len(row) for row in ids if len(row) > self.limit]
        if long:
            ids = encode_texts(self.backbone, texts, self.limit, chat=chat)
        return unanswered(ids), long

    def answers(self, inputs: Sequence[str]) -> list[dict[str, Any]]:
        """What is added to the row of each input, see ``columns``; SoftstartError as ``texts``."""
        return answers_together([(self, inputs)])[0]

    def job(self, inputs: Sequence[str], number: int) -> Job:
        """What is asked of the model, as prompt ``number`` of a stack; SoftstartError as ``texts``."""
        if self.asked:
            inputs = [question(text, label) for text in inputs for label in self.asked]
        rows, long = self.encoded(inputs)
        self.truncated += len(long)
        if long and self.strict:
            raise SoftstartError(
                f"an input of {long[0]} tokens, more than {self.limit}",
                fix="Raise --max-input-tokens within the model's window, or leave out --strict.",
            )
        return Job(number, self.task, rows)

    def said(self, found: Tensor | Sequence[str]) -> list[dict[str, Any]]:
        """The answers to a job, from the values of its labels [B, C] or its texts."""
        answers = list(self._each(found))
        if not self.asked:
            return answers
        several = []
        for begin in range(0, len(answers), len(self.asked)):
            said = dict(zip(self.asked, answers[begin : begin + len(self.asked)], strict=True))
            likely = {f"p({label})": answer[f"p({YES})"] for label, answer in said.items() if len(answer) > 1}
            chosen = [label for label, answer in said.items() if answer[PREDICTION] == YES]
            several.append({PREDICTION: chosen} | likely)
        return several

    def _each(self, found: Tensor | Sequence[str]) -> Iterator[dict[str, Any]]:
        if not isinstance(found, Tensor):
            yield from ({PREDICTION: text.strip()} for text in found)
            return
        labels = self.labels or ()
        chances = torch.softmax(found.double(), 1).tolist()
        for best, row in zip(found.argmax(1).tolist(), chances, strict=True):
            shares = {f"p({label})": round(p, 6) for label, p in zip(labels, row, strict=True)}
            yield {PREDICTION: labels[best].strip()} | shares


def answers_together(asked: Sequence[tuple[Predictor, Sequence[str]]]) -> list[list[dict[str, Any]]]:
    """The answers of several predictors on one backbone, each to its inputs (``Predictor.answers``).

    Prompts of one length that are scored alike share forward passes.

    Raises:
        SoftstartError: an input that is too long for a strict predictor.
    """
    groups: dict[Any, list[int]] = {}
    for i, (predictor, _) in enumerate(asked):
        alone = i if predictor.backbone.rows_interact else -1
        key = (len(predictor.prompt.tensor), predictor.scoring, bool(predictor.labels), predictor.evaluation)
        groups.setdefault((alone, *key), []).append(i)
    found: dict[int, list[dict[str, Any]]] = {}
    for members in groups.values():
        first = asked[members[0]][0]
        jobs = [asked[i][0].job(asked[i][1], number) for number, i in enumerate(members)]
        do: Callable[..., Sequence[Any]] = (first.way.values if first.labels else None) or first.way.function
        stack = torch.cat([asked[i][0].stack for i in members])
        results = do(first.backbone, stack, jobs, first.evaluation)
        found |= {i: asked[i][0].said(of) for i, of in zip(members, results, strict=True)}
    return [found[i] for i in range(len(asked))]


@dataclass(frozen=True)
class Scored:
    """How well rows were predicted: the metric, its value in 0..1, and how many rows there were.

    ``outside`` is the share of predictions that are no label; None without labels. ``scoring`` is how they
    were made, ``notes`` what is odd about the labels. Of several labels a row, ``score`` is micro-F1 and
    ``macro`` macro-F1.
    """

    metric: str
    score: float
    rows: int
    scoring: str = "generate"
    outside: float | None = None
    notes: tuple[str, ...] = ()
    macro: float | None = None


def evaluate_rows(predictor: Predictor, rows: Sequence[Example], metric: str | None = None) -> Scored:
    """Score predictions of labeled rows.

    Args:
        predictor: see ``Predictor``.
        rows: inputs and their accepted answers; see ``softstart.gym.tables.labeled_rows``.
        metric: a registered metric, or the import path of one; by default the one the prompt was tuned by,
            or EM.

    Raises:
        SoftstartError: no rows, labels that differ from the prompt's only in how they are written, or an
            unknown metric.

    >>> from softstart import Backbone
    >>> from softstart.yourtasks import plain_start
    >>> backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    >>> prompt = SoftPrompt.of(backbone, plain_start(backbone, 5))
    >>> predict = Predictor(backbone, prompt, labels=["good", "bad"])
    >>> rows = [Example("the film was dull", ("bad",)), Example("a fine film", ("good",))]
    >>> scored = evaluate_rows(predict, rows, "ACC")
    >>> scored.metric, scored.rows, scored.scoring
    ('ACC', 2, 'rank')
    """
    return score_rows(predictor, rows, predictor.texts([row.input for row in rows]), metric)


def score_rows(
    predictor: Predictor, rows: Sequence[Example], predictions: Sequence[Any], metric: str | None = None
) -> Scored:
    """Score what a predictor said of labeled rows; arguments and errors as ``evaluate_rows``."""
    if not rows:
        raise SoftstartError("no rows to score", fix="Give a table with rows below its head.")
    if predictor.asked:
        gold = [set(row.outputs) - {NOTHING} for row in rows]
        odd = compare_labels(predictor.asked, sorted(set().union(*gold)), "--rows")
        micro, macro = f1([set(said) for said in predictions], gold, predictor.asked)
        return Scored(METRIC, micro, len(rows), str(predictor.scoring), None, tuple(odd), macro)
    labels, references = list(predictor.labels or ()), [row.outputs for row in rows]
    notes = compare_labels(labels, [answers[0] for answers in references], "--rows") if labels else []
    metric = metric or _noted_metric(predictor.prompt)
    value = score(metric, predictions, references, f1_labels=predictor.evaluation.f1_labels, labels=labels)
    outside = companions(labels, metric, predictions, references).get("outside")
    return Scored(metric, value, len(rows), str(predictor.scoring), outside, tuple(notes))


def _noted_metric(prompt: SoftPrompt) -> str:
    """The metric that a prompt was tuned by, or EM.

    The name comes from a file that others may have made: no module is imported for it.

    Raises:
        SoftstartError: it is not registered.
    """
    metric = str(prompt.info.get("metric") or "EM")
    if metric not in METRICS:
        raise SoftstartError(
            f"the prompt was tuned by a metric that is not registered, '{metric}'",
            fix="Name a metric with --metric, if need be by its import path.",
        )
    return metric


def input_of(row: Mapping[str, Any], number: int, fields: Template) -> str:
    """The input of a row; an error names the row."""
    try:
        return kept_text(fields(row))
    except SoftstartError as problem:
        where = problem.where or (f"row {number}" if line_of(row) is None else f"line {line_of(row)}")
        raise SoftstartError(problem.what, where=where, fix=problem.fix) from None
