"""Rows of files: parquet, JSONL, CSV and TSV; ``hub.py`` has those of the Hugging Face hub."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

from softstart.errors import SoftstartError
from softstart.gym.lm_eval_task import is_lm_eval, lm_eval_rows
from softstart.gym.template import Row
from softstart.storage.csv_files import read_cell

PREDICTION = "prediction"
"""The column of predictions. A CSV file that has it was written by ``softstart predict``: no cell of it is a
formula (``softstart.storage.csv_files``)."""


class FileRow(dict[str, Any]):
    """A row of a text file; ``line`` is the number of the line that it begins in."""

    line: int

    def __init__(self, cells: Row, line: int) -> None:
        super().__init__(cells)
        self.line = line


def line_of(row: Row) -> int | None:
    """The line of the file that a row was read from, if it is known."""
    return row.line if isinstance(row, FileRow) else None


SUFFIXES = (".parquet", ".jsonl", ".csv", ".tsv")
"""The files that rows are read from."""

_GYM_FILE = re.compile(r".+_\d+_\d+_(train|dev|test)\.tsv")
"""Names of CrossFit's files, which have no line of column names."""


def read_rows(path: str | Path, delimiter: str | None = None, *, header: bool | None = None) -> Iterator[Row]:
    """The rows of a file, by its suffix; a YAML file is a task of lm-evaluation-harness (``lm_eval_task``).

    Rows of text files know their line (``line_of``). CSV and TSV begin with a line of column names. Without
    it, in a file named like CrossFit's (``emo_16_13_train.tsv``) or with ``header=False``, each line of a TSV
    is the input and the answers, and a quotation mark is a character like any other. A TSV with column names
    is read like a CSV; if its quotation marks do not fit together, they are text.

    Raises:
        SoftstartError: an unknown suffix, a file that cannot be read, bytes that are not UTF-8, or a row that
            does not fit, with file and line.
    """
    if is_lm_eval(path):
        return lm_eval_rows(path, read_rows)
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        packed = suffix in (".gz", ".zip", ".bz2", ".xz", ".zst")
        fix = "Unpack it first." if packed else f"Use {', '.join(SUFFIXES)}."
        raise SoftstartError(f"cannot read rows from '{path.name}'", where=str(path), fix=fix)
    try:
        if suffix == ".parquet":
            return _parquet(path)
        data = path.read_bytes()
    except OSError as error:
        raise SoftstartError(f"cannot read this file ({error.strerror})", where=str(path)) from None
    if data.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        raise SoftstartError("a compressed file", where=str(path), fix="Unpack it first.")
    if suffix == ".jsonl":
        return _jsonl(data, path)
    tabs = suffix == ".tsv"
    if header is False and not tabs:
        raise SoftstartError("only a TSV can lack column names", where=str(path), fix="Name its columns.")
    bare = header is False or (header is None and tabs and _GYM_FILE.fullmatch(path.name) is not None)
    text, delimiter = _decode(data, path), delimiter or ("\t" if tabs else ",")
    quoted = not bare and not (tabs and _badly_quoted(text, delimiter))
    return _table(text, path, delimiter, named=not bare, quoted=quoted)


def _badly_quoted(text: str, delimiter: str) -> bool:
    """Whether a table's quotation marks are text: read as quotes, they do not close or make uneven rows."""
    if '"' not in text:
        return False
    try:
        return len({len(cells) for cells in _reader(text, delimiter, quoted=True) if any(cells)}) > 1
    except csv.Error:
        return True


def _reader(text: str, delimiter: str, *, quoted: bool) -> Any:
    csv.field_size_limit(2**31 - 1)
    quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    lines = (line if line.endswith("\n") else f"{line}\n" for line in _lines(text))
    return csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)


def _lines(text: str) -> Iterator[str]:
    """Its lines, one at a time: a list of a million of them would need as much memory again."""
    yield from StringIO(text, newline="\n")
    if text.endswith("\n") or not text:
        yield ""


def columns_of(path: str | Path, *, header: bool | None = None) -> list[str]:
    """The names of the columns of a table, in the order in which they appear; rows of JSONL may differ.

    Raises:
        SoftstartError: as ``read_rows``.
    """
    rows = read_rows(path, header=header)
    several = rows if Path(path).suffix.lower() == ".jsonl" else islice(rows, 1)
    return list(dict.fromkeys(name for row in several for name in row))


def find_split(folder: Path, split: str) -> Path:
    """The file that holds a split: ``<split>.parquet``, ``.jsonl``, ``.csv`` or ``.tsv``.

    Raises:
        SoftstartError: there is none.
    """
    for suffix in SUFFIXES:
        if (path := folder / f"{split}{suffix}").is_file():
            return path
    raise SoftstartError(
        f"no rows for split '{split}'",
        where=str(folder),
        fix=f"Put them at {split}.parquet or {split}.jsonl.",
    )


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(4096):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        text = " ".join(str(error).split())
        raise SoftstartError(f"not a readable parquet file ({text[:200]})", where=str(path)) from None


def _decode(data: bytes, path: Path) -> str:
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        body = data.removeprefix(b"\xef\xbb\xbf")
        line = body.count(b"\n", 0, error.start) + 1
        column = error.start - (body.rfind(b"\n", 0, error.start) + 1) + 1
        raise SoftstartError(
            f"not UTF-8 (byte {column} of the line)",
            where=f"{path}, line {line}",
            fix="Save the file as UTF-8.",
        ) from None


def _jsonl(data: bytes, path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(_decode(data, path)), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            where = f"{path}, line {number}"
            raise SoftstartError(f"not valid JSON ({error})", where=where, fix="One object a line.") from None
        if "\\u" in line and not _is_text(row):
            raise SoftstartError(
                "holds half of a character (a lone surrogate)",
                where=f"{path}, line {number}",
                fix="Write the text again from its source, as UTF-8.",
            )
        if not isinstance(row, dict):
            raise SoftstartError(
                "not a JSON object", where=f"{path}, line {number}", fix="One object a line."
            )
        yield FileRow(row, number)


def _is_text(row: Any) -> bool:
    """Whether all texts of a row can be written as UTF-8."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _table(text: str, path: Path, delimiter: str, *, named: bool, quoted: bool) -> Iterator[Row]:
    reader = _reader(text, delimiter, quoted=quoted)
    header: Sequence[str] | None = None
    begin = 1
    try:
        for cells in reader:
            where, begin = f"{path}, line {begin}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if header is None and not named and "input" not in cells:
                header = ()
            if header is None:
                header = [cell.strip() for cell in cells]
                if PREDICTION in header:
                    header = [read_cell(cell) for cell in header]
                if twice := {name for name in header if header.count(name) > 1}:
                    raise SoftstartError(f"two columns are named {sorted(twice)[0]!r}", where=where)
                continue
            if header and PREDICTION in header:
                cells = [read_cell(cell) for cell in cells]
            yield FileRow(_cells(header, cells, where), int(where.rpartition(" ")[2]))
    except csv.Error as error:
        raise SoftstartError(
            f"not a readable table ({error})",
            where=f"{path}, line {begin}",
            fix="Close every quotation mark.",
        ) from None


def _cells(header: Sequence[str], cells: list[str], where: str) -> dict[str, Any]:
    if header and len(cells) != len(header):
        much = "few" if len(cells) < len(header) else "many"
        raise SoftstartError(
            f"too {much} columns: {len(cells)}, the first line names {len(header)} ({', '.join(header)})",
            where=where,
            fix="Quote a text that holds the delimiter or a line break.",
        )
    if not header and len(cells) < 2:
        raise SoftstartError("no TAB between input and answer", where=where)
    return dict(zip(header, cells, strict=True)) if header else {"input": cells[0], "output": cells[1:]}
