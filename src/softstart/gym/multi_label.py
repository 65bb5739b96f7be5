"""Tables with several labels a row, as one question for every label: does it fit, yes or no?

A question has its label before the text, so that a text that is cut does not lose it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from softstart.errors import SoftstartError
from softstart.gym.catalog.schema import Several
from softstart.gym.metrics import YES
from softstart.gym.task import Example, Sample, Task
from softstart.gym.template import Row, get, text_of

NO = "no"
NOTHING = "(none)"
"""Stands for no label between reading a row and asking about it."""
METRIC = "Micro-F1"
"""What such tables are scored by: F1 over all pairs of a row and a label."""
MOST_DEV = 200
"""About how many dev questions a split has, if they come from the rows to learn from."""

_ASKED, _TRUE, _FALSE = "label: ", ("1", "true", "yes"), ("0", "false", "no", "")


def labels_of(several: Several) -> Callable[[Row], str]:
    """What gives the labels of a row, TABs between them, or ``NOTHING``."""

    def collect(row: Row) -> str:
        if len(several.columns) == 1:
            found = _listed(get(row, several.columns[0]), several.columns[0])
        else:
            found = [name for name in several.columns if _flagged(get(row, name), name)]
        words = [_word(label, several.words) for label in dict.fromkeys(found)]
        return "\t".join(words) or NOTHING

    return collect


def _word(label: str, words: Mapping[str, str]) -> str:
    word = words.get(label, None if words else label)
    if word is None:
        known = ", ".join(list(words)[:20])
        raise SoftstartError(f"the label {label!r} is not among --labels", fix=f"They are {known}.")
    return " ".join(word.split())


def _listed(value: Any, name: str) -> list[str]:
    """The labels of a cell: a list, a list in JSON, or a text with ; or | between labels."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise SoftstartError(
                f"column '{name}' holds {value[:40]!r}, which is not valid JSON",
                fix='Write ["one", "two"], or one; two.',
            ) from None
    if value is None or value != value:
        return []
    values = value if isinstance(value, (list, tuple)) else re.split(r"[;|]", text_of(value, name))
    return [text for one in values if (text := text_of(one, name).strip())]


def _flagged(value: Any, name: str) -> bool:
    """Whether a cell says that its column is a label of the row."""
    text = "" if value is None or value != value else text_of(value, name).strip().lower()
    if text not in (*_TRUE, *_FALSE):
        raise SoftstartError(
            f"column '{name}' holds {text!r}, neither 0 nor 1",
            fix="Name columns of 0 and 1, or a single column of lists.",
        )
    return text in _TRUE


def question(text: str, label: str) -> str:
    """What the model reads to say whether a label fits a text.

    >>> question("the screen is cracked", "repair")
    'label: repair\\nthe screen is cracked'
    """
    return f"{_ASKED}{label}\n{text}"


def questions(rows: Sequence[Example], labels: Sequence[str]) -> tuple[Example, ...]:
    """Rows with several labels as one example for each label, row by row.

    >>> rows = [Example("cracked screen", ("repair", "phone"))]
    >>> [(row.input, row.outputs) for row in questions(rows, ["phone", "sales"])]
    [('label: phone\\ncracked screen', ('yes',)), ('label: sales\\ncracked screen', ('no',))]
    """
    return tuple(
        Example(question(row.input, label), (YES if label in row.outputs else NO,))
        for row in rows
        for label in labels
    )


def labels_asked(rows: Sequence[Example]) -> list[str]:
    """The labels that ``questions`` asked about, in order."""
    return list(dict.fromkeys(row.input.removeprefix(_ASKED).split("\n", 1)[0] for row in rows))


def as_questions(task: Task, words: Sequence[str], most_train: int, *, own_dev: bool) -> Task:
    """A task of rows with several labels, as one of yes and no.

    Args:
        task: its rows have their labels as outputs, or ``NOTHING``.
        words: all labels; by default those of the rows to learn from.
        most_train: at most this many questions to learn from in a sample.
        own_dev: whether the dev rows are given; else about ``MOST_DEV`` questions stay, and the other rows
            are learned from.

    Raises:
        SoftstartError: no label in any row, or one that all rows to learn from have.
    """
    learned = [row for sample in task.samples.values() for row in (*sample.train, *sample.dev)]
    found = {label for row in learned for label in row.outputs} - {NOTHING}
    labels = list(words or sorted(found))
    if not found:
        raise SoftstartError("no row has a label", where=task.source, fix="Name other columns.")
    samples = {}
    for seed, sample in task.samples.items():
        few = len(sample.dev) if own_dev else max(1, MOST_DEV // len(labels))
        train = (*sample.train, *sample.dev[few:])[: max(1, most_train // len(labels))]
        samples[seed] = Sample(seed, questions(train, labels), questions(sample.dev[:few], labels))
    made = replace(task, kind="classification", samples=samples, test=questions(task.test, labels))
    if len(made.labels) < 2:
        raise SoftstartError("every row has every label", where=task.source, fix="Name other columns.")
    missing = sorted({label for row in task.test for label in row.outputs} - {NOTHING, *labels})
    note = f"no row to learn from has the label {missing[0]!r}: it is not asked about" if missing else ""
    counts = f"{len(labels)} labels, each asked about for every row"
    return replace(made, notes=(*task.notes, counts, *([note] if note else [])))


def f1(
    predicted: Sequence[Collection[str]], gold: Sequence[Collection[str]], labels: Sequence[str]
) -> tuple[float, float]:
    """Micro- and macro-F1 of predicted labels, 0 where there is nothing to find and nothing was found.

    Args:
        predicted: the labels of each row.
        gold: the true ones.
        labels: all labels; macro-F1 is the mean over them.

    >>> f1([{"a"}, {"a", "b"}], [{"a"}, {"b"}], ["a", "b"])
    (0.8, 0.8333333333333333)
    """
    hits = [sum(label in p and label in g for p, g in zip(predicted, gold, strict=True)) for label in labels]
    sizes = [sum(label in p for p in predicted) + sum(label in g for g in gold) for label in labels]
    each = [2 * hit / size if size else 0.0 for hit, size in zip(hits, sizes, strict=True)]
    return 2 * sum(hits) / sum(sizes) if sum(sizes) else 0.0, sum(each) / len(each)


def macro_f1(answers: Sequence[str], rows: Sequence[Example]) -> float:
    """Macro-F1 of answers to ``questions``: the mean over the labels that were asked about."""
    labels = labels_asked(rows)

    def chosen(said: Sequence[str]) -> list[set[str]]:
        return [
            {label for label, answer in zip(labels, said[i : i + len(labels)], strict=True) if answer == YES}
            for i in range(0, len(said), len(labels))
        ]

    return f1(chosen(answers), chosen([row.outputs[0] for row in rows]), labels)[1]
