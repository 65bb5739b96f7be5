"""Tasks from tables: a file of rows, a dataset of the hub, or a folder of files.

``RawData`` says which columns are inputs, outputs and labels; ``entry_of`` fills in what it leaves out, from
the columns that the table has and from how often its outputs repeat.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any
from unicodedata import category, normalize

from softstart.errors import SoftstartError, did_you_mean
from softstart.gym import multi_label as questions
from softstart.gym.build import Job, draw
from softstart.gym.catalog.reading import parse_entry, read_catalog
from softstart.gym.catalog.schema import Entry
from softstart.gym.entries import EntryGym
from softstart.gym.hub import hub_rows
from softstart.gym.label_sets import compare_labels
from softstart.gym.lines import Keyed, Line, kept_text, make_lines, reserved
from softstart.gym.metrics import taken_for_one
from softstart.gym.rows import SUFFIXES, read_rows
from softstart.gym.sampling import shuffled
from softstart.gym.task import Example, Kind, Sample, Task, check_kind
from softstart.gym.template import MADE, Row, Template

HUB = "hf:"
"""Begins the name of a dataset of the hub: ``hf:dair-ai/emotion``."""

CATALOGS = (".yaml", ".yml")
"""Suffixes of catalog files."""

FEW_OUTPUTS, ROWS_PER_OUTPUT = 50, 8
"""Without labels, at most 50 different outputs with 8 rows each on average make a task classification."""


@dataclass(frozen=True)
class RawData:
    """A table and how its rows become a task; what is left out is taken from its columns.

    Without ``input``, ``output`` and ``label`` the columns of these names are taken. ``label`` names the
    column whose values are balanced: samples hold k rows of each. Where a table has both an output and a
    label, the output is the answer. ``labels`` are the label words, all of them, or a mapping from values to
    words; a value outside them is an error. Without ``test`` (a file, or a split of the hub) a fifth of the
    rows becomes the test set, as CrossFit carves it. ``dev`` (likewise) holds the dev rows of ``whole_task``,
    which are else drawn from the rows. ``header=False``: a TSV without column names, each line the input and
    the answers. ``multi_label`` names a column of lists of labels, or several columns of 0 and 1, in
    place of ``label`` and ``output``: each label is then a question of its own (``gym.multi_label``).
    ``only``: rows with these values in these columns. All commands read tables this way.

    Raises:
        SoftstartError: an unknown kind, a template that cannot be read, or a label that is there twice.
    """

    data: str
    name: str | None = None
    input: str | None = None
    output: str | None = None
    label: str | None = None
    labels: Sequence[str] | Mapping[str, str] = ()
    kind: Kind | None = None
    metric: str | None = None
    category: str = "own"
    test: str | None = None
    config: str | None = None
    split: str = "train"
    delimiter: str | None = None
    dev: str | None = None
    header: bool | None = None
    multi_label: Sequence[str] = ()
    only: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an unknown kind, a template that cannot be read, and a label that is there twice."""
        if self.multi_label and (self.output or self.label):
            raise SoftstartError(
                "--multi-label cannot go together with --label or --output",
                where=self.where,
                fix="Leave the others out.",
            )
        for text in (self.input, self.output):
            if text is not None:
                Template(text)
        if isinstance(self.labels, Sequence) and len(set(self.labels)) < len(self.labels):
            twice = next(label for label in self.labels if list(self.labels).count(label) > 1)
            raise SoftstartError(
                f"the label {twice!r} is there twice", where=self.where, fix="Leave one out."
            )
        if self.kind is not None:
            check_kind(self.kind)

    @property
    def on_hub(self) -> bool:
        """Whether the rows are those of a dataset of the hub."""
        return self.data.startswith(HUB)

    @property
    def where(self) -> str:
        """The table in error messages."""
        return self.data if self.on_hub else str(Path(self.data))

    @property
    def task_name(self) -> str:
        """The name of the task: as given, else the file's, without what a name cannot hold."""
        stem = Path(self.data.removeprefix(HUB)).stem
        kept = "".join(c if c in "._-" or category(c)[0] in "LMN" else " " for c in normalize("NFC", stem))
        return self.name or re.sub(" +", "_", kept).lstrip("._-")


def entry_of(raw: RawData) -> Entry:
    """The catalog entry that a table amounts to.

    Without ``kind``, a task with a label is classification, and so is one with few different outputs (see
    ``FEW_OUTPUTS``).

    Raises:
        SoftstartError: a file that cannot be read, columns that are missing, rows that do not fit.
    """
    return described(raw)[0]


def described(raw: RawData) -> tuple[Entry, list[str]]:
    """``entry_of``, and notes on what its metric cannot tell apart.

    Without ``metric``, answers that EM would take for one (``C#`` and ``C++``, ``15`` and ``1.5``, an article
    and nothing) are scored by ACC, or as they are written.

    Raises:
        SoftstartError: as ``entry_of``.
    """
    fields = _source(raw) | {"category": raw.category}
    rows, first = _peek(raw, fields)
    fields |= _columns(raw, first)
    if raw.multi_label:
        metric = raw.metric or questions.METRIC
        return parse_entry(raw.task_name, fields | {"kind": "text2text", "metric": metric}, raw.where), []
    guess: Kind = "classification" if raw.label or "label" in first else "text2text"
    draft = parse_entry(
        raw.task_name, fields | {"kind": raw.kind or guess, "metric": raw.metric or "EM"}, raw.where
    )
    lines = list(make_lines(draft, rows, raw.where, tidy=kept_text))
    kind = raw.kind or _kind(draft, lines, guess)
    outputs = dict.fromkeys(keyed.line.output.partition("\t")[0] for keyed in lines)
    metric, notes = _metric(raw.metric, kind, list(outputs))
    return parse_entry(raw.task_name, fields | {"kind": kind, "metric": metric}, raw.where), notes


METRICS_OF: Mapping[Kind, tuple[str, ...]] = {
    "classification": ("Classification-F1",),
    "text2text": ("EM", "ACC", "Equal"),
}
"""The metrics of tables that name none: the first one that tells all answers apart."""


def _metric(given: str | None, kind: Kind, outputs: Sequence[str]) -> tuple[str, list[str]]:
    """The metric of a table, and what it, or the one it takes the place of, cannot tell apart."""
    first, *others = (given,) if given else METRICS_OF[kind]
    pair = taken_for_one(first, outputs)
    if pair is None:
        return first, []
    named = (
        f"{first} takes {pair[0]!r} and {pair[1]!r} for one"
        if pair[0]
        else f"{first} takes {pair[1]!r} for nothing"
    )
    better = next((metric for metric in others if taken_for_one(metric, outputs) is None), None)
    if better is None:
        return first, [f"{named}: wrong answers may count as right"]
    return better, [f"{named}: scored by {better} (--metric decides)"]


def label_words(labels: Sequence[str]) -> Sequence[str] | Mapping[str, str]:
    """``RawData.labels`` out of plain strings: words, or a mapping if every one is ``VALUE=WORD``."""
    if labels and all("=" in label for label in labels):
        return dict(label.split("=", 1) for label in labels)
    return tuple(labels)


_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_NAMED = 3
"""How many labels a note names."""
WHOLE = 42
"""The name of the first sample of ``whole_task``."""


MOST_TRAIN, MOST_TEST = 20_000, 10_000
"""The most rows of a split to learn from, and of a test set that is carved from a table: tuning reads no more
of a table of a million rows, which would take gigabytes as tokens."""


def whole_task(raw: RawData, *, splits: int = 1, dev_share: float = 0.25, max_dev: int = 200) -> Task:
    """A task with the rows of a table: each sample is another split of them into train and dev.

    Without a test file a fifth of the rows becomes the test set, the same for all splits. The samples are
    named ``WHOLE``, ``WHOLE + 1``, … With a dev file, all samples hold the same rows, in other orders. Line
    breaks inside inputs stay. ``Task.notes`` says what is odd: labels of one side only, rows on both, and
    that rows of a large table were drawn (``MOST_TRAIN``; ``MOST_TEST`` of a test set that is no file).

    Args:
        raw: the table.
        splits: how many samples.
        dev_share: dev rows as a share of the rows that are not in the test set.
        max_dev: at most this many dev rows.

    Raises:
        SoftstartError: as ``entry_of``, or fewer than two rows to learn from.
    """
    entry, notes = described(raw)
    drawn = draw(Job(entry, Path(), False, allow_short=True, tidy=kept_text))
    own_dev = _dev_rows(raw, entry) if raw.dev else None
    if own_dev and entry.kind == "classification":
        known = [keyed.line.output for keyed in drawn.pool]
        notes += compare_labels(known, [row.outputs[0] for row in own_dev], str(raw.dev))
    dev = 0 if own_dev else min(max_dev, max(1, int(dev_share * len(drawn.pool))))
    if len(drawn.pool) <= dev:
        raise SoftstartError(
            f"{len(drawn.pool)} row to learn from, at least two are needed",
            where=raw.data,
            fix="Add labeled rows: next to the test rows, one is needed for training and one for dev.",
        )
    samples = {}
    for seed in range(WHOLE, WHOLE + splits):
        kept = shuffled(drawn.pool, seed)[: dev + MOST_TRAIN]
        rows = _whole_examples([keyed.line for keyed in kept])
        samples[seed] = Sample(seed, rows[dev:], own_dev or rows[:dev])
    test = _whole_examples(drawn.test if raw.test else drawn.test[:MOST_TEST])
    if len(drawn.pool) > dev + MOST_TRAIN:
        notes.append(
            f"{len(drawn.pool):,} rows to learn from: each split takes {MOST_TRAIN:,} of them, "
            "drawn by its seed"
        )
    if len(test) < len(drawn.test):
        notes.append(f"{len(drawn.test):,} rows to test on: {MOST_TEST:,} of them are taken, drawn by seed")
    learned = {keyed.line.input for keyed in drawn.pool}
    notes += [*drawn.labels, *_shared(learned, test)]
    facts = (entry.name, entry.kind, entry.metric, entry.category)
    task = Task(*facts, samples, test, raw.data)
    task = replace(task, notes=(*notes, *_numbers(task.labels)))
    if not raw.multi_label:
        return task
    words = tuple(_several(raw)["words"].values())
    return questions.as_questions(task, words, MOST_TRAIN, own_dev=bool(own_dev))


def _numbers(labels: Sequence[str]) -> list[str]:
    """A note on labels that are numbers."""
    if not labels or not all(_NUMBER.fullmatch(label) for label in labels):
        return []
    words = " ".join(f"{label}=WORD" for label in labels[:_NAMED]) + (" …" if len(labels) > _NAMED else "")
    return [f"all labels are numbers, which say little to a model: give it words, --labels {words}"]


def _dev_rows(raw: RawData, entry: Entry) -> tuple[Example, ...]:
    """The rows of the dev file (or split of the hub), read as those of the table are."""
    dev = str(raw.dev)
    rows = hub_rows(entry.dataset, dev) if raw.on_hub else read_rows(dev, raw.delimiter, header=raw.header)
    examples = _whole_examples([keyed.line for keyed in make_lines(entry, rows, dev, tidy=kept_text)])
    if not examples:
        raise SoftstartError("no rows", where=dev, fix="Give a table with labeled rows.")
    return examples


def labeled_rows(raw: RawData) -> tuple[Example, ...]:
    """All rows of one table as examples, read as ``whole_task`` reads them.

    Raises:
        SoftstartError: as ``entry_of``.
    """
    # How the classes of a table are balanced is nothing to its score.
    fields = _source(raw) | {"category": raw.category, "kind": raw.kind or "text2text", "metric": "EM"}
    rows, first = _peek(raw, fields)
    columns = {name: value for name, value in _columns(raw, first).items() if name != "balance"}
    entry = parse_entry(raw.task_name, fields | columns, raw.where)
    return _whole_examples([keyed.line for keyed in make_lines(entry, rows, raw.where, tidy=kept_text)])


def _whole_examples(lines: Sequence[Line]) -> tuple[Example, ...]:
    """Lines as examples, with the line breaks and TABs of their inputs."""
    return tuple(Example(line.input, tuple(line.output.split("\t"))) for line in lines)


def _shared(learned: Container[str], test: Sequence[Example]) -> Iterator[str]:
    count = sum(example.input in learned for example in test)
    if count:
        yield (
            f"{count} of {len(test)} test inputs are among the rows to learn from: the test score says less "
            "about new rows"
        )


def open_table(path: str | Path, *, shots: int | None = None) -> EntryGym:
    """A gym of one task from a table (a file or ``hf:DATASET``), or of the tasks of a catalog file.

    Args:
        path: see ``is_table``.
        shots: k of the samples; by default what each entry says.

    Raises:
        SoftstartError: the file cannot be read or does not fit.
    """
    if Path(path).suffix in CATALOGS:
        return EntryGym(read_catalog(path), str(path), shots=shots)
    entry = entry_of(RawData(str(path)))
    return EntryGym({entry.name: entry}, str(path), shots=shots)


def is_table(spec: str | Path) -> bool:
    """Whether a name is for ``open_table``: a table or a catalog file by its suffix, or ``hf:…``."""
    by_suffix = Path(spec).suffix.lower() in (*SUFFIXES, *CATALOGS)
    return str(spec).startswith(HUB) or (by_suffix and not Path(spec).is_dir())


def _source(raw: RawData) -> dict[str, Any]:
    """Where the rows of the entry come from, and which: its fields ``dataset``, ``splits`` and ``keep``."""
    return _place(raw) | {"keep": [{"field": name, "is": value} for name, value in raw.only.items()]}


def _place(raw: RawData) -> dict[str, Any]:
    if raw.on_hub:
        splits = {"pool": raw.split, "test": raw.test} if raw.test else {"carve": raw.split}
        return {"dataset": {"id": raw.data.removeprefix(HUB), "config": raw.config}, "splits": splits}
    files = {"train": raw.data} if raw.test is None else {"train": raw.data, "test": raw.test}
    splits = {"carve": "train"} if raw.test is None else {"pool": "train", "test": "test"}
    dataset = {"files": files, "delimiter": raw.delimiter, "header": raw.header}
    return {"dataset": dataset, "splits": splits}


def _peek(raw: RawData, source: Mapping[str, Any]) -> tuple[Iterator[Row], Row]:
    """The rows of the training split, and the first of them."""
    if raw.on_hub:
        probe = {"kind": "text2text", "metric": "EM", "input": "{input}", "output": "{output}"}
        rows = hub_rows(parse_entry("probe", {**source, **probe}, raw.where).dataset, raw.split)
    else:
        rows = read_rows(raw.data, raw.delimiter, header=raw.header)
    first = next(rows, None)
    if first is None:
        raise SoftstartError("no rows", where=raw.where)
    return chain([first], rows), first


def _columns(raw: RawData, first: Row) -> dict[str, Any]:
    """Which columns are input, output and label: the entry's fields, from what is given and the first row."""
    columns = list(first)
    if not columns:
        raise SoftstartError("the first row holds nothing", where=raw.where)
    read = [field.root for text in (raw.input, raw.output) if text for field in Template(text).fields]
    if taken := next((name for name in read if name in MADE and name in columns), None):
        raise SoftstartError(reserved(taken).what, where=raw.where, fix=reserved(taken).fix)
    label = raw.label or ("label" if "label" in columns and not raw.multi_label else None)
    wanted = column_template(raw.input, columns, "--input") if raw.input else None
    if wanted is None and "input" not in columns:
        raise _no_column("input", columns, raw.where, f"--input '{{{columns[0]}}}'", tsv=_is_tsv(raw))
    if label is not None and label not in columns and "." not in label:
        raise _no_column(label, columns, raw.where, f"--label {columns[-1]}")
    if raw.multi_label:
        if missing := next((name for name in raw.multi_label if name not in columns), None):
            raise _no_column(missing, columns, raw.where, f"--multi-label {columns[-1]}")
        return {"input": wanted or "{input}", "output": "{ANSWERS}", "several": _several(raw)}
    return {"input": wanted or "{input}", **_output(raw, columns, label)}


def _several(raw: RawData) -> dict[str, Any]:
    """The entry's field of this name; without words for labels, columns of 0 and 1 are their own words."""
    words = dict(raw.labels) if isinstance(raw.labels, Mapping) else {word: word for word in raw.labels}
    if not words and len(raw.multi_label) > 1:
        words = {name: name for name in raw.multi_label}
    return {"columns": list(raw.multi_label), "words": words}


def resolved(raw: RawData) -> RawData:
    """The same reading, its input and output as templates: a text without braces is one column.

    Raises:
        SoftstartError: as ``entry_of``.
    """
    _, first = _peek(raw, _source(raw))
    columns = list(first)
    wanted = column_template(raw.input, columns, "--input") if raw.input else None
    output = column_template(raw.output, columns, "--output") if raw.output else None
    return replace(raw, input=wanted, output=output)


def column_template(text: str, columns: Sequence[str], where: str) -> str:
    """A template of columns; a text without braces is the name of one column.

    Args:
        text: ``{title}: {body}``, or ``title``.
        columns: those of the table.
        where: the option it is from.

    Raises:
        SoftstartError: no such column, or a template that names none.
    """
    if Template(text).fields:
        return text
    if text not in columns:
        near = did_you_mean(text, columns)
        raise SoftstartError(
            f"no column '{text}', and no column in braces",
            where=where,
            fix=near or f"The table has {', '.join(columns)}: write {{{columns[0]}}}.",
        )
    return f"{{{text}}}"


def _no_column(
    name: str, columns: Sequence[str], where: str, example: str, tsv: bool = False
) -> SoftstartError:
    bare = ", or --no-header if its first line is a row" if tsv else ""
    near = did_you_mean(name, columns)
    fix = f"It has {', '.join(columns)}: rename one, or give a template like {example}{bare}."
    return SoftstartError(f"no column '{name}'", where=where, fix=f"{near} {fix}" if near else fix)


def _is_tsv(raw: RawData) -> bool:
    return not raw.on_hub and Path(raw.data).suffix.lower() == ".tsv"


def _output(raw: RawData, columns: Sequence[str], label: str | None) -> dict[str, Any]:
    """The entry's output: the template given, a verbalized label, the label itself, or all answers."""
    has_output = bool(raw.output) or "output" in columns
    balance = {"balance": label} if label and has_output and not raw.labels else {}
    if raw.output:
        return {**_answers(column_template(raw.output, columns, "--output")), **balance}
    if raw.labels:
        words = raw.labels if isinstance(raw.labels, Mapping) else {word: word for word in raw.labels}
        return {"output": "{LABEL}", "labels": {"field": label or "output", "words": dict(words)}}
    if "output" in columns:
        return {**_answers("{output}"), **balance}
    if label:
        return {"output": f"{{{label}}}"}
    raise SoftstartError(
        "no column 'output' or 'label'",
        where=raw.where,
        fix=f"It has {', '.join(columns)}: rename one, or give --output or --label.",
    )


def _answers(template: str) -> dict[str, Any]:
    """The output fields of an entry: one column may hold several answers a row, each without TABs."""
    if column := re.fullmatch(r"\{([^{}|]+)\}", template):
        operations = ["replace:\t= "]
        return {"output": "{ANSWERS}", "answers": {"field": column[1], "operations": operations}}
    return {"output": template}


def _kind(draft: Entry, lines: Sequence[Keyed], guess: Kind) -> Kind:
    """Classification or not, by how often the outputs of all rows repeat."""
    outputs = {keyed.line.output for keyed in lines}
    if draft.balance:
        classes = {keyed.key for keyed in lines}
        return "classification" if len(outputs) <= len(classes) else "text2text"
    several = any("\t" in output for output in outputs)
    few = 1 < len(outputs) <= min(FEW_OUTPUTS, len(lines) // ROWS_PER_OUTPUT)
    return "classification" if draft.labels or (few and not several) else guess
