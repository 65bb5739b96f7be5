"""Predict your own rows with one tuned prompt, and score predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import torch

from softstart.backbone import IGNORE, Backbone, candidates_tensor
from softstart.errors import SoftstartError
from softstart.gym.lines import answers_of, input_of
from softstart.gym.metrics import METRICS, score
from softstart.gym.rows import PREDICTION, line_of
from softstart.gym.template import Template, with_columns
from softstart.prompt import SoftPrompt
from softstart.training.encoding import TextFormat, check_labels, encode_texts
from softstart.training.evaluation import Evaluation, text_batch
from softstart.yourtasks.lengths import input_limit

T = TypeVar("T")

LABEL_TOKENS = 128
"""Longer labels are cut."""
CHUNK = 256
"""Rows that are read, predicted and written at a time."""


@dataclass
class Predictor:
    """Predicts rows with one prompt; ``truncated`` counts the inputs that were cut so far.

    Args:
        backbone: the frozen model.
        prompt: a tuned prompt; what ``compare_starts`` noted in ``info`` gives the defaults of the rest.
        labels: label words to rank, with a probability each; none: outputs are written freely.
        template: how the row's input becomes model input.
        input: which fields of a row are its input.
        max_input_tokens: longer inputs are cut, or refused with ``strict``.
        strict: refuse what is too long.
        evaluation: decoding and scoring.

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
    max_input_tokens: int = 512
    strict: bool = False
    evaluation: Evaluation = Evaluation(max_tokens=4096)
    truncated: int = 0

    def __post_init__(self) -> None:
        info = self.prompt.info
        self.stack = self.prompt.check_for(self.backbone)[None].to(
            self.backbone.device, self.backbone.prompt_dtype
        )
        if self.labels is None:
            self.labels = info.get("labels") or []
        if self.template is None:
            self.template = info.get("template") or "{input}"
        self.format = TextFormat(self.template)
        self.decoding = replace(self.evaluation.decoding, max_new_tokens=info.get("max_new_tokens") or 32)
        self.fields = with_columns(self.input, "--input")
        limit, chat = LABEL_TOKENS, self.format.chat
        self.label_ids = encode_texts(self.backbone, self.labels, limit, outputs=True, chat=chat)
        check_labels(self.labels, self.label_ids, "--label")
        outputs = self.decoding.max_new_tokens
        self.max_input_tokens = input_limit(
            self.backbone, len(self.prompt.tensor), self.max_input_tokens, outputs
        )
        self.task = str(info.get("task", ""))

    def __call__(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Each row, in order, with ``prediction`` and, of labels, ``p(label)``; read and made in chunks.

        Raises:
            SoftstartError: a row without the input's fields, or one too long when ``strict``.
        """
        rows, number = iter(rows), 0
        while chunk := list(islice(rows, CHUNK)):
            texts = [self._text(row, number + i) for i, row in enumerate(chunk, 1)]
            number += len(chunk)
            for row, answer in zip(chunk, self._predict(texts), strict=True):
                self.check_columns(row)
                yield dict(row) | answer

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are added to a row."""
        return (PREDICTION, *(f"p({label})" for label in self.labels or ()))

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

    def _text(self, row: Mapping[str, Any], number: int) -> str:
        return self.format.fill(self.task, _of_row(row, number, input_of, self.fields))

    def _predict(self, texts: list[str]) -> Iterator[dict[str, Any]]:
        chat = self.format.chat
        whole = encode_texts(self.backbone, texts, None, chat=chat)
        long = [i for i, ids in enumerate(whole) if len(ids) > self.max_input_tokens]
        self.truncated += len(long)
        if long and self.strict:
            raise SoftstartError(
                f"an input of {len(whole[long[0]])} tokens, more than {self.max_input_tokens}",
                fix="Raise --max-input-tokens within the model's window, or leave out --strict.",
            )
        ids = encode_texts(self.backbone, texts, self.max_input_tokens, chat=chat) if long else whole
        batch = text_batch(self.backbone, ids, [0] * len(ids))
        if not self.labels:
            for text in self.backbone.generate(self.stack, batch, self.decoding, self.evaluation.max_tokens):
                yield {"prediction": text.strip()}
            return
        candidates = candidates_tensor([self.label_ids] * len(ids), IGNORE).to(self.backbone.device)
        scores = self.backbone.rank(self.stack, batch, candidates, self.evaluation.max_tokens)
        for row in torch.softmax(scores.double(), 1).tolist():
            chances = dict(zip(self.labels, row, strict=True))
            best = max(chances, key=lambda label: chances[label])
            yield {"prediction": best} | {f"p({label})": round(p, 6) for label, p in chances.items()}


@dataclass(frozen=True)
class Scored:
    """How well rows were predicted: the metric, its value in 0..1, and how many rows there were."""

    metric: str
    score: float
    rows: int


def evaluate_rows(
    predictor: Predictor, rows: Iterable[Mapping[str, Any]], output: str, metric: str | None = None
) -> Scored:
    """Score predictions of labeled rows.

    Args:
        predictor: see ``Predictor``.
        rows: rows with inputs and outputs.
        output: the output, from a row's columns: ``{label}``; a column of lists holds several answers.
        metric: a registered metric, or the import path of one; by default the one the prompt was tuned by,
            or EM.

    Raises:
        SoftstartError: no rows, a row without the fields, or an unknown metric.

    >>> from softstart import Backbone
    >>> from softstart.yourtasks import plain_start
    >>> backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    >>> prompt = SoftPrompt.of(backbone, plain_start(backbone, 5))
    >>> predict = Predictor(backbone, prompt, labels=["good", "bad"])
    >>> rows = [{"input": "the film was dull", "label": "bad"}, {"input": "a fine film", "label": "good"}]
    >>> scored = evaluate_rows(predict, rows, "{label}", "ACC")
    >>> scored.metric, scored.rows
    ('ACC', 2)
    """
    fields = with_columns(output, "--output")
    expected: list[tuple[str, ...]] = []

    def seen() -> Iterator[Mapping[str, Any]]:
        for number, row in enumerate(rows, 1):
            expected.append(_of_row(row, number, answers_of, fields))
            yield row

    predictions = [row["prediction"] for row in predictor(seen())]
    if not predictions:
        raise SoftstartError("no rows to score", fix="Give a table with rows below its head.")
    metric = metric or _noted_metric(predictor.prompt)
    return Scored(
        metric, score(metric, predictions, expected, labels=predictor.labels or ()), len(predictions)
    )


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


def _of_row(
    row: Mapping[str, Any], number: int, read: Callable[[Template, Mapping[str, Any]], T], fields: Template
) -> T:
    """What a row holds; an error names the row."""
    try:
        return read(fields, row)
    except SoftstartError as problem:
        where = problem.where or (f"row {number}" if line_of(row) is None else f"line {line_of(row)}")
        raise SoftstartError(problem.what, where=where, fix=problem.fix) from None
