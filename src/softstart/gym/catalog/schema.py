"""What a catalog entry is: everything needed to build a task from the rows of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from softstart.errors import SoftstartError
from softstart.gym.metrics import METRICS
from softstart.gym.quirks import QUIRKS
from softstart.gym.sampling import SHOTS
from softstart.gym.task import Kind
from softstart.gym.template import Field as FieldOf
from softstart.gym.template import Template, check_operations


def _checked(check: Any) -> Any:
    """A validator out of a function that raises SoftstartError."""

    def validate(value: Any) -> Any:
        try:
            check(value)
        except SoftstartError as error:
            raise ValueError(str(error)) from None
        return value

    return AfterValidator(validate)


Text = Annotated[str, Field(min_length=1)]
TemplateText = Annotated[Text, _checked(Template)]
FieldPath = Annotated[Text, _checked(FieldOf)]
Operations = Annotated[tuple[str, ...], _checked(lambda value: check_operations(list(value)))]
Metric = Annotated[Text, AfterValidator(METRICS.check)]
QuirkName = Annotated[Text, AfterValidator(QUIRKS.check)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset(_Strict):
    """Where the rows come from: a dataset of the hub, or files."""

    id: Text | None = None
    """Name on the Hugging Face hub today."""
    config: Text | None = None
    revision: Text | None = None
    """A commit, tag or branch of the hub; ``refs/convert/parquet`` where the main branch is a script."""
    mirrors: tuple[Text, ...] = ()
    """Other names on the hub to try in turn."""
    first_id: Text | None = None
    """Its name when the gym was made, where that differs."""
    withdrawn: Text | None = None
    """Why the hub no longer has the rows."""
    today: Text | None = None
    """How today's copy differs from that of 2021, if it is known to differ."""
    prepare: QuirkName | None = None
    """The function of ``softstart.gym.quirks`` that undoes such a difference in rows from the hub."""
    files: Mapping[str, str] = {}
    """Split → file of rows (parquet, JSONL, CSV, TSV), relative to the catalog file."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    header: bool | None = None
    """False: the TSV files have no line of column names, as CrossFit's."""

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if not (self.id or self.files or self.withdrawn):
            raise ValueError("needs an 'id' on the hub or 'files'")
        return self

    @property
    def availability(self) -> str:
        """ "hub", "converted" (only as the hub's own conversion to parquet), "files" or "withdrawn"."""
        if self.files:
            return "files"
        if self.withdrawn:
            return "withdrawn"
        return "converted" if self.revision == "refs/convert/parquet" and not self.mirrors else "hub"


class Splits(_Strict):
    """Which rows are the pool that samples are drawn from, and which are the test set.

    Either two splits of the dataset (``pool`` and ``test``; ``test_share`` keeps the first share of the
    test rows after a shuffle under seed 42), or one split to ``carve``: its lines are shuffled under seed
    42, ``pool`` and ``test`` are ranges of them, in which whole numbers count lines and decimals are shares.
    """

    carve: Text | None = None
    pool: Text | tuple[int | float, int | float] = (0, 0.8)
    test: Text | tuple[int | float, int | float] = (0.8, 1.0)
    test_share: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        two = isinstance(self.pool, str) and isinstance(self.test, str)
        if two == (self.carve is not None) or isinstance(self.pool, str) != isinstance(self.test, str):
            raise ValueError("give 'pool' and 'test' as two splits, or 'carve' as one split")
        if self.test_share and not two:
            raise ValueError("'test_share' goes with two splits")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The splits of the dataset that are read."""
        if self.carve:
            return (self.carve,)
        return (str(self.pool), str(self.test))


class Keep(_Strict):
    """A condition that a row must meet; other rows are dropped."""

    field: FieldPath
    is_: Any = Field(None, alias="is")
    is_not: Any = None
    at_least: float | None = None
    at_most: float | None = None
    whole: Literal[True] | None = None
    filled: Literal[True] | None = None

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if len(self.model_fields_set) != 2:
            raise ValueError("give one condition: is, is_not, at_least, at_most, whole or filled")
        return self


class Labels(_Strict):
    """The verbalizer: ``{LABEL}`` is the word for the value of ``field``.

    ``words`` is a list (the position is the label's number) or a mapping from values to words.
    """

    field: FieldPath
    words: Annotated[tuple[Text, ...] | dict[int | str, Text], Field(min_length=1)]


class Choices(_Strict):
    """``{CHOICES}``: the choices of a question, one after the other, each written as ``item``.

    ``item`` contains ``{L}``, the letter, and ``{T}``, the text. ``texts`` is the path of a list in the row,
    or a list of fields that hold one text each; ``letters`` is the path of a list, or the letters themselves.
    """

    texts: FieldPath | tuple[FieldPath, ...]
    letters: FieldPath | tuple[Text, ...] = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    item: Annotated[Text, _checked(Template)] = " ({L}) {T}"
    operations: Operations = ()


class Answer(_Strict):
    """``{ANSWER}``: the right choice, given by its letter, its position or its text.

    ``among`` names the choices where the template has no ``{CHOICES}``.
    """

    letter: FieldPath | None = None
    index: FieldPath | None = None
    first: int = 0
    """The number of the first choice."""
    text: FieldPath | None = None
    among: FieldPath | tuple[FieldPath, ...] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(way is not None for way in (self.letter, self.index, self.text)) != 1:
            raise ValueError("give one of 'letter', 'index' and 'text'")
        return self


class Answers(_Strict):
    """``{ANSWERS}``: all accepted answers, TABs between them."""

    field: FieldPath
    keys: bool = False
    """The answers are the keys of a mapping."""
    operations: Operations = ()
    unique: Literal["no", "keep_order", "sorted"] = "no"
    drop_empty: bool = False
    first_only: bool = False


class Several(_Strict):
    """``{ANSWERS}`` of a table with several labels a row: see ``softstart.gym.multi_label``."""

    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    """One column of lists, or several of 0 and 1."""
    words: Mapping[str, str] = {}
    """The word of each label, if not the label itself; then there are no others."""


class Entry(_Strict):
    """One task: its dataset, how rows become lines, how lines are sampled, and how answers are scored."""

    name: Annotated[str, Field(pattern=r"^[^\W_][\w.-]*$")]
    dataset: Dataset
    splits: Splits = Splits(carve="train")
    kind: Kind
    metric: Metric
    category: Text
    """Path in the task ontology, broad to narrow."""
    k: Annotated[int, Field(gt=0)] | None = Field(None, alias="shots")
    input: TemplateText
    output: TemplateText
    input_operations: Operations = ()
    """Operations on the complete input."""
    labels: Labels | None = None
    choices: Choices | None = None
    answer: Answer | None = None
    answers: Answers | None = None
    several: Several | None = None
    balance: FieldPath | None = None
    """The field whose values are balanced, k rows each, in classification; by default the output."""
    keep: tuple[Keep, ...] = ()
    quirk: QuirkName | None = None
    """The function of ``softstart.gym.quirks`` for what templates cannot express."""
    unstable: Text | None = None
    """Why the published files cannot be rebuilt byte for byte."""
    note: Text | None = None
    example: tuple[Mapping[str, Any], ...] = ()
    """Made-up rows, with the columns that are read, that make one line."""
    citation: Text | None = None
    license: Text | None = None
    v1: Mapping[str, Any] = {}
    """What was different in the gym of April 2021, the version the study used."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        templates = self.input + self.output
        for placeholder, part in (
            ("{LABEL", self.labels),
            ("{CHOICES", self.choices),
            ("{ANSWERS", self.answers or self.several),
            ("{ANSWER}", self.answer),
        ):
            if placeholder in templates and part is None:
                name = placeholder.strip("{}")
                raise ValueError(f"the templates use {{{name}}}, but the entry has no '{_PARTS[name]}'")
        return self

    @property
    def recipe(self) -> str:
        """Everything that decides the lines, as JSON: the entry without what only describes it."""
        described = {"note", "example", "citation", "license", "unstable", "category"}
        # What builds of older versions lack as well is no part of it.
        absent = {"header"} if self.dataset.header is None else set()
        if self.several is None:
            described.add("several")
        return self.model_dump_json(exclude={**dict.fromkeys(described, True), "dataset": absent})

    @property
    def shots(self) -> int:
        """k: rows per label for classification, in all for text-to-text."""
        return self.k or SHOTS["classification" if self.balance else self.kind]

    @property
    def words(self) -> tuple[str, ...]:
        """The label words, in the verbalizer's order; empty without a verbalizer."""
        if self.labels is None:
            return ()
        words = self.labels.words
        return tuple(dict.fromkeys(words.values() if isinstance(words, dict) else words))

    def version(self, version: str) -> Entry:
        """The entry as of "v1" (April 2021) or "v2" (April 2022)."""
        if version == "v2" or not self.v1:
            return self
        data = self.model_dump(by_alias=True, exclude_unset=True)
        return Entry.model_validate(data | {"v1": {}} | dict(self.v1))


_PARTS = {"LABEL": "labels", "CHOICES": "choices", "ANSWERS": "answers", "ANSWER": "answer"}
