"""CrossFit's files of examples, written and read byte for byte (Ye et al. 2021).

A line is ``input TAB answer``, UTF-8, without header or quoting; text-to-text rows may hold several answers,
each after its own TAB. Only a line feed ends a line, as it is what the gym's writer writes: a lone carriage
return inside a text stays text, where CrossFit's reader would tear the row into pieces without answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from softstart.errors import SoftstartError
from softstart.gym.task import Example, Kind
from softstart.storage.files import atomic

Split = Literal["train", "dev", "test"]

_ROW_FIX = (
    "Write one example a line as input, TAB, answer, without line break or TAB inside a text, "
    "or open the folder with skip_malformed=True; files of the published gym are read as the published code "
    "did with gym_reading: published (meta-train: --gym-reading published)."
)


def output_of(row: Any) -> str:
    """The answers of a row as the file holds them: joined by TABs."""
    return "\t".join(_cells(row)[1:])


def to_line(row: Any) -> str:
    """A row as its line in the file: input, TAB, answers with TABs between them, line feed. No escaping."""
    return "\t".join(_cells(row)) + "\n"


def write_tsv(path: str | Path, rows: Iterable[Any]) -> None:
    """Write rows (see ``kshot``) as CrossFit does: UTF-8, no header, no quoting, nothing escaped.

    A TAB or a line break inside a text is written as it is, as in the published files: such a row does not
    come back when the file is read. The file is whole or absent.
    """
    with atomic(Path(path)) as temporary:
        temporary.write_bytes("".join(map(to_line, rows)).encode())


def file_name(task: str, k: int, seed: int, part: str) -> str:
    """The name of one file: ``emo_16_13_train.tsv``."""
    return f"{task}_{k}_{seed}_{part}.tsv"


def read_lines(path: Path) -> list[bytes]:
    """The lines of a file, without a byte order mark, their line feeds and empty lines at the end.

    Raises:
        SoftstartError: the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SoftstartError(
            f"cannot read this file ({error.strerror})",
            where=str(path),
            fix="A task needs train and dev files for each of its seeds, and a test file.",
        ) from None
    lines = data.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n").split(b"\n")
    return lines if lines != [b""] else []


def read_examples(path: Path, kind: Kind, split: Split, *, skip_malformed: bool) -> tuple[Example, ...]:
    """The examples of a file. White space around a line is dropped.

    A test row of a text-to-text task may have an empty answer (``input TAB``), as in CrossFit's files.

    Args:
        path: the file.
        kind: classification has one answer per row.
        split: which part of a sample, or the test set.
        skip_malformed: leave broken rows out with a warning that counts them.

    Raises:
        SoftstartError: the file cannot be read, has a broken row, or no rows.
    """
    rows: list[Example] = []
    problems: list[str] = []
    for number, line in enumerate(read_lines(path), 1):
        row = _parse(line, kind, split)
        if isinstance(row, Example):
            rows.append(row)
            continue
        problems.append(f"line {number}: {row}")
        if not skip_malformed:
            raise SoftstartError(row, where=f"{path}, line {number}", fix=_ROW_FIX)
    if problems:
        warnings.warn(f"{path}: left out {len(problems)} malformed rows ({problems[0]})", stacklevel=6)
    if not rows:
        raise SoftstartError("no rows", where=str(path))
    return tuple(rows)


def read_as_published(path: Path) -> tuple[Example, ...]:
    """The examples of a file as the published code read them, whatever is in it (Ye et al., 2021).

    Every line break ends an example, a carriage return alone too. White space around a line is dropped; what
    stands before the first TAB is the input, what follows are the answers. So a stray TAB inside an input
    cuts it there and makes its rest an answer, an empty output leaves an example without answers, and an
    empty input turns the label into the input.

    Raises:
        SoftstartError: the file cannot be read, is not UTF-8, or has no rows.
    """
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or f"not UTF-8, {error}"
        raise SoftstartError(
            f"cannot read this file as published ({reason})",
            where=str(path),
            fix="Build it again (softstart gym build --version v1).",
        ) from None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    if lines == [""]:
        raise SoftstartError("no rows", where=str(path))
    cells = (line.strip().split("\t") for line in lines)
    return tuple(Example(source, tuple(answers)) for source, *answers in cells)


def _cells(row: Any) -> list[str]:
    """Input and answers of a row in any of its forms, as text."""
    if isinstance(row, Example):
        return [row.input, *row.outputs]
    if isinstance(row, Mapping):
        row = (row["input"], row["output"])
    if isinstance(row, str) or not isinstance(row, Sequence) or len(row) < 2:
        raise SoftstartError(f"expected a row of input and output, not {row!r}")
    return [str(v) for part in row for v in (part if isinstance(part, (list, tuple)) else [part])]


def _parse(line: bytes, kind: Kind, split: Split) -> Example | str:
    """One example, or what is wrong with its line."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {error.start + 1} of the line)"
    if not text.strip():
        return "blank line"
    if "\t" not in text:
        return "no TAB between input and answer (a line break inside the text?)"
    if not text.partition("\t")[0].strip():
        return "no input before the TAB"
    source, *answers = text.strip().split("\t")
    if not answers and (kind == "classification" or split != "test"):
        return "no answer after the TAB"
    if kind == "classification" and len(answers) > 1:
        return f"{1 + len(answers)} columns where classification has 2 (a TAB inside the text?)"
    return Example(source, tuple(answers))
