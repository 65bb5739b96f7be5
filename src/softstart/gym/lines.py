"""From the rows of a dataset to the lines of a task, and from lines to pool and test set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from softstart.errors import SoftstartError
from softstart.gym.catalog.schema import Answer, Answers, Choices, Entry, Keep, Splits
from softstart.gym.multi_label import labels_of
from softstart.gym.quirks import QUIRKS
from softstart.gym.rows import line_of
from softstart.gym.sampling import shuffled
from softstart.gym.template import Field, Row, Template, apply, flatten, text_of

CARVE_SEED = 42
"""Seed of the shuffles that belong to no sample: of carved lines and of subsampled test sets."""


class Line(NamedTuple):
    """One example as it is written; several answers have TABs between them."""

    input: str
    output: str


class Keyed(NamedTuple):
    """A line and the class that it belongs to when samples are drawn."""

    line: Line
    key: str


Tidy = Callable[[str], str]
"""What is done to a text of a row: ``one_line`` or ``kept_text``."""


def make_lines(entry: Entry, rows: Iterable[Row], where: str, *, tidy: Tidy | None = None) -> Iterator[Keyed]:
    """The lines of a split, in the order of its rows.

    ``where`` names the split in errors; a row of a text file is named by its line, others by
    their number from 1. With ``tidy``, for entries that are not CrossFit's, it is applied to every text, TABs
    inside outputs become spaces, and an empty input or output or a column whose name is reserved is an
    error; the published files have empty texts and breaks.

    Raises:
        SoftstartError: a row without a field that the entry needs, or with a label outside its verbalizer.
    """
    convert = _converter(entry, own=tidy is not None)
    if tidy:
        convert = _tidy(convert, tidy, several="{ANSWERS}" in entry.output)
    position = _Position(rows)
    kept: Iterable[Row] = (row for row in position if all(_holds(keep, row) for keep in entry.keep))
    try:
        if entry.quirk:
            kept = QUIRKS.find(entry.quirk)(kept)
        for row in kept:
            yield convert(row)
    except SoftstartError as error:
        # An error with a place was raised by a file or by the hub, before there was a row.
        raise SoftstartError(error.what, where=error.where or f"{where}, {position}", fix=error.fix) from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise SoftstartError(
            f"does not have the columns this task needs ({type(error).__name__}: {error})",
            where=f"{where}, {position}",
            fix="Compare its columns with 'softstart gym show'.",
        ) from None


def reserved(name: str) -> SoftstartError:
    """The error for a column that has the name of something a template makes from other columns."""
    return SoftstartError(
        f"a column is named '{name}', which stands for something else in templates", fix="Rename the column."
    )


def one_line(text: str) -> str:
    """A text without line breaks, TABs and white space around it."""
    return apply(["line"], text).strip()


def kept_text(text: str) -> str:
    """A text with its line breaks and TABs, without white space around it."""
    return text.replace("\r\n", "\n").strip()


def pool_and_test(splits: Splits, lines: Callable[[str], list[Keyed]]) -> tuple[list[Keyed], list[Keyed]]:
    """The lines that samples are drawn from and those of the test set.

    ``lines`` gives the lines of a split of the dataset.
    """
    if splits.carve is None:
        pool, test = (lines(name) for name in splits.names)
        if splits.test_share is not None:
            test = shuffled(test, CARVE_SEED)[: int(splits.test_share * len(test))]
        return pool, test
    everything = shuffled(lines(splits.carve), CARVE_SEED)

    def cut(span: Any) -> list[Keyed]:
        begin, end = (x if isinstance(x, int) else int(x * len(everything)) for x in span)
        return everything[begin:end]

    return cut(splits.pool), cut(splits.test)


class _Position:
    """An iterable of rows that remembers which one was taken last."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows, self.number = rows, 0
        self.line: int | None = None

    def __iter__(self) -> Iterator[Row]:
        for row in self.rows:
            self.number, self.line = self.number + 1, line_of(row)
            yield row

    def __str__(self) -> str:
        return f"row {self.number}" if self.line is None else f"line {self.line}"


def _converter(entry: Entry, *, own: bool) -> Callable[[Row], Keyed]:
    source, target = Template(entry.input), Template(entry.output)
    used = {field.path for field in (*source.fields, *target.fields)}
    parts: list[tuple[str, Callable[[Row], str]]] = []
    if "LABEL" in used and entry.labels:
        parts.append(("LABEL", _labeler(entry.labels.field, entry.labels.words)))
    if "CHOICES" in used and entry.choices:
        parts.append(("CHOICES", _lister(entry.choices)))
    if "ANSWER" in used and entry.answer:
        parts.append(("ANSWER", _chooser(entry.answer, entry.choices)))
    if "ANSWERS" in used and entry.answers:
        parts.append(("ANSWERS", _collector(entry.answers)))
    if "ANSWERS" in used and entry.several:
        parts.append(("ANSWERS", labels_of(entry.several)))
    balance = Field(entry.balance) if entry.balance else None
    operations = list(entry.input_operations)

    def convert(row: Row) -> Keyed:
        if own and (taken := next((name for name, _ in parts if name in row), None)):
            raise reserved(taken)
        row = {**row, **{name: part(row) for name, part in parts}}
        line = Line(apply(operations, source(row)), target(row))
        return Keyed(line, balance(row) if balance else line.output)

    return convert


def _tidy(convert: Callable[[Row], Keyed], tidy: Tidy, several: bool) -> Callable[[Row], Keyed]:
    def tidied(row: Row) -> Keyed:
        line, key = convert(row)
        outputs = line.output.split("\t") if several else [line.output.replace("\t", " ")]
        outputs = [text for output in outputs if (text := tidy(output))]
        made = Line(tidy(line.input), "\t".join(outputs))
        for name, text in zip(Line._fields, made, strict=True):
            if not text:
                raise SoftstartError(f"the {name} is empty", fix="Fill it in or remove the row.")
        balanced = one_line(key) if key != line.output else made.output
        if not balanced:
            raise SoftstartError("the label is empty", fix="Fill it in or remove the row.")
        return Keyed(made, balanced)

    return tidied


def _labeler(path: str, words: Sequence[str] | Mapping[Any, str]) -> Callable[[Row], str]:
    field = Field(path)
    table: dict[Any, str] = dict(words) if isinstance(words, Mapping) else dict(enumerate(words))
    known = ", ".join(word if key == word else f"{key} ({word})" for key, word in list(table.items())[:20])
    table |= {str(key): word for key, word in table.items()}

    def label(row: Row) -> str:
        value = field.value(row)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        known_as = str(value) if isinstance(value, (bool, int)) and value not in table else value
        if isinstance(value, (list, dict)) or known_as not in table:
            raise SoftstartError(
                f"the label {value!r} of field '{path}' is outside the verbalizer",
                fix=f"It knows {known}. Give a word for every label (--labels, or labels in the YAML file).",
            )
        return table[known_as]

    return label


def _texts(row: Row, where: str | Sequence[str]) -> list[str]:
    """The texts of a list in the row, or of several fields."""
    if isinstance(where, str):
        return [text_of(value, where) for value in Field(where).value(row)]
    return [Field(field)(row) for field in where]


def _letters(choices: Choices, row: Row) -> list[str]:
    if isinstance(choices.letters, str):
        return _texts(row, choices.letters)
    return list(choices.letters)


def _lister(choices: Choices) -> Callable[[Row], str]:
    item = Template(choices.item)

    def listed(row: Row) -> str:
        texts = [apply(list(choices.operations), text) for text in _texts(row, choices.texts)]
        pairs = zip(_letters(choices, row), texts, strict=False)
        return "".join(item({"L": letter, "T": text}) for letter, text in pairs)

    return listed


def _chooser(answer: Answer, choices: Choices | None) -> Callable[[Row], str]:
    among = answer.among or (choices.texts if choices else ())
    operations = list(choices.operations) if choices and not answer.among else []

    def choose(row: Row) -> str:
        if answer.text is not None:
            return Field(answer.text)(row)
        texts = [apply(operations, text) for text in _texts(row, among)]
        if answer.index is not None:
            value = Field(answer.index).value(row)
            position = int(value) - answer.first
            if not 0 <= position < len(texts):
                raise SoftstartError(f"field '{answer.index}' names choice {value} of {len(texts)}")
            return texts[position]
        assert answer.letter is not None
        assert choices is not None
        wanted, letters = Field(answer.letter)(row), _letters(choices, row)
        if wanted not in letters[: len(texts)]:
            raise SoftstartError(f"no choice has the letter {wanted!r} of field '{answer.letter}'")
        return texts[letters.index(wanted)]

    return choose


def _collector(answers: Answers) -> Callable[[Row], str]:
    field, operations = Field(answers.field), list(answers.operations)

    def collect(row: Row) -> str:
        value = field.value(row)
        if answers.keys:
            value = [key for key, entry in value.items() if entry is not None]
        values = flatten(value) if isinstance(value, list) else [value]
        if answers.drop_empty:
            values = [v for v in values if v]
        # Before the operations: answers that only become equal by cleaning stay, as in the published files.
        if answers.unique != "no":
            values = list(dict.fromkeys(values))
        texts = [apply(operations, text_of(v, answers.field)) for v in values]
        if answers.unique == "sorted":
            texts.sort()
        return "\t".join(texts[:1] if answers.first_only else texts)

    return collect


def _holds(keep: Keep, row: Row) -> bool:
    value = Field(keep.field).value(row)
    if keep.whole:
        return float(value).is_integer()
    if keep.filled:
        return bool(value)
    if keep.at_least is not None:
        return bool(value >= keep.at_least)
    if keep.at_most is not None:
        return bool(value <= keep.at_most)
    if "is_not" in keep.model_fields_set:
        return bool(value != keep.is_not)
    return bool(value == keep.is_)
