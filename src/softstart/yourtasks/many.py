"""Many tuned prompts on one model: every row under the prompt that it names, in shared forward passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from softstart.errors import SoftstartError, did_you_mean, listed
from softstart.gym.rows import PREDICTION, line_of
from softstart.gym.task import Example
from softstart.yourtasks.predict import CHUNK, Predictor, Scored, answers_together, input_of, score_rows


@dataclass
class ManyPrompts:
    """Predicts rows, each with the prompt that one of its columns names.

    Args:
        predictors: by the names of their prompts, on one backbone.
        by: the column.

    Raises:
        SoftstartError: no predictor, or two backbones.

    >>> from softstart import Backbone, SoftPrompt
    >>> from softstart.yourtasks import plain_start
    >>> backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    >>> prompts = {"a": plain_start(backbone, 5, seed=1), "b": plain_start(backbone, 5, seed=2)}
    >>> predictors = {
    ...     name: Predictor(backbone, SoftPrompt.of(backbone, of), labels=["good", "bad"])
    ...     for name, of in prompts.items()
    ... }
    >>> rows = [{"task": "b", "input": "the film was dull"}, {"task": "a", "input": "a fine film"}]
    >>> [list(row) for row in ManyPrompts(predictors, "task")(rows)][1]
    ['task', 'input', 'prediction', 'p(good)', 'p(bad)']
    """

    predictors: Mapping[str, Predictor]
    by: str

    def __post_init__(self) -> None:
        """Refuse several backbones."""
        if len({id(of.backbone) for of in self.predictors.values()}) != 1:
            raise SoftstartError(
                "the prompts need one backbone", fix="Give predictors of one Backbone object."
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are added to rows; a row has the labels of its own prompt alone."""
        return tuple(dict.fromkeys(column for of in self.predictors.values() for column in of.columns))

    @property
    def truncated(self) -> int:
        """How many inputs were cut so far."""
        return sum(of.truncated for of in self.predictors.values())

    def __call__(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Each row, in order, with what its prompt adds; read and made in chunks.

        Raises:
            SoftstartError: a row that names no prompt, or as ``Predictor``.
        """
        rows, number = iter(rows), 0
        while chunk := list(islice(rows, CHUNK)):
            places: dict[str, list[int]] = {}
            inputs = []
            for i, row in enumerate(chunk):
                name = self._name(row, number + i + 1)
                places.setdefault(name, []).append(i)
                self.predictors[name].check_columns(row)
                inputs.append(input_of(row, number + i + 1, self.predictors[name].fields))
            number += len(chunk)
            asked = [(self.predictors[name], [inputs[i] for i in at]) for name, at in places.items()]
            answers: dict[int, dict[str, Any]] = {}
            for at, found in zip(places.values(), answers_together(asked), strict=True):
                answers |= dict(zip(at, found, strict=True))
            yield from (dict(row) | answers[i] for i, row in enumerate(chunk))

    def _name(self, row: Mapping[str, Any], number: int) -> str:
        """The prompt of a row."""
        name = str(row.get(self.by, ""))
        if name not in self.predictors:
            where = f"row {number}" if line_of(row) is None else f"line {line_of(row)}"
            known = list(self.predictors)
            near = did_you_mean(name, known) or f"They are {listed(known, 8)}."
            raise SoftstartError(f"no prompt '{name}', which column '{self.by}' names", where=where, fix=near)
        return name


def evaluate_many(
    predictors: Mapping[str, Predictor], rows: Mapping[str, Sequence[Example]], metric: str | None = None
) -> dict[str, Scored]:
    """Score several prompts on labeled rows, in shared forward passes.

    Args:
        predictors: by name, on one backbone.
        rows: those of each predictor.
        metric: as for ``evaluate_rows``.

    Raises:
        SoftstartError: as ``evaluate_rows``.
    """
    if len(rows) > 1 and (empty := next((name for name, of in rows.items() if not of), None)):
        raise SoftstartError(
            f"no rows for the prompt '{empty}'", fix="Move it out of the folder, or add rows."
        )
    said: dict[str, list[Any]] = {name: [] for name in predictors}
    step = max(1, CHUNK // len(predictors))
    for begin in range(0, max(map(len, rows.values())), step):
        part = {name: of[begin : begin + step] for name, of in rows.items() if len(of) > begin}
        asked = [(predictors[name], [row.input for row in of]) for name, of in part.items()]
        for name, answers in zip(part, answers_together(asked), strict=True):
            said[name] += [answer[PREDICTION] for answer in answers]
    return {name: score_rows(predictors[name], rows[name], said[name], metric) for name in predictors}
