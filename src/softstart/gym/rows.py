"""Rows as they come: from parquet, JSONL, CSV and TSV files, and from the Hugging Face hub."""

from __future__ import annotations

import csv
import json
import os
import re
import ssl
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from softstart.errors import SoftstartError
from softstart.gym.catalog.schema import Dataset
from softstart.gym.template import Row

SUFFIXES = (".parquet", ".jsonl", ".csv", ".tsv")
"""The files that rows are read from."""

CONVERTED = "refs/convert/parquet"
"""The branch on which the hub keeps its own conversion of datasets that need a loading script."""


def read_rows(path: str | Path, delimiter: str | None = None, *, header: bool = True) -> Iterator[Row]:
    """The rows of a file, by its suffix.

    Rows of text files carry the number of their line as ``LINE``. CSV and TSV begin with a line of column
    names; TSV knows no quoting. With ``header=False`` a TSV may lack it: if its first line names no ``input``
    column, the columns are the input and the answers, as in CrossFit's files.

    Raises:
        SoftstartError: an unknown suffix, a file that cannot be read, bytes that are no UTF-8, or a row that
            does not fit, with file and line.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise SoftstartError(f"cannot read rows from '{path.name}'", fix=f"Use {', '.join(SUFFIXES)}.")
    try:
        if path.suffix == ".parquet":
            return _parquet(path)
        data = path.read_bytes()
    except OSError as error:
        raise SoftstartError(f"cannot read this file ({error.strerror})", where=str(path)) from None
    if path.suffix == ".jsonl":
        return _jsonl(data, path)
    named = header or path.suffix != ".tsv"
    return _table(data, path, delimiter or ("\t" if path.suffix == ".tsv" else ","), named)


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


def hub_rows(dataset: Dataset, split: str) -> Iterator[Row]:
    """The rows of a split from the hub, or from the local cache of ``datasets``.

    Raises:
        SoftstartError: the dataset cannot be loaded, in one line that says why.
    """
    if problem := out_of_reach(dataset):
        raise problem
    assert dataset.id is not None
    if not Path(dataset.id).exists() and not hub_reachable():
        _go_offline()
    first: Exception | None = None
    for name in (dataset.id, *dataset.mirrors):
        try:
            loaded = _load(name, dataset, split)
        except Exception as error:
            first = first or error
        else:
            for batch in loaded.with_format("arrow").iter(1000):
                yield from batch.to_pylist()
            return
    assert first is not None
    raise _explained(first, dataset.id) from first


@cache
def hub_reachable(seconds: float = 5.0) -> bool:
    """Whether the hub answers within seconds, through a proxy if one is set; False when set offline."""
    if any(os.environ.get(name, "").upper() in _YES for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")):
        return False
    request = Request(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), method="HEAD")
    answered: list[bool] = []

    def knock() -> None:
        try:
            trust = ssl.create_default_context()
            trust.load_verify_locations(import_module("certifi").where())
            urlopen(request, timeout=seconds, context=trust).close()
            answered.append(True)
        except HTTPError:
            answered.append(True)
        except (OSError, ValueError, ImportError):
            pass

    # In a thread: looking up a name has no time limit of its own.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answered)


def out_of_reach(dataset: Dataset) -> SoftstartError | None:
    """Why there is no point in trying the hub, told without loading its libraries; None if there may be.

    A dataset that somebody loaded before may be in the local cache.
    """
    if dataset.withdrawn or dataset.id is None:
        return SoftstartError(f"not on the hub: {dataset.withdrawn}", fix=f"Give {_ROWS_FIX}.")
    names = (dataset.id, *dataset.mirrors)
    if Path(dataset.id).exists() or hub_reachable() or any(map(_cached, names)):
        return None
    return _unreachable(dataset.id)


_YES = ("1", "ON", "YES", "TRUE")
_ROWS_FIX = "its rows with --source DIR, as DIR/<split>.parquet or .jsonl"


def _unreachable(name: str) -> SoftstartError:
    return SoftstartError(
        "the hub cannot be reached (no network, or offline mode) and it is not in the local cache",
        where=f"dataset '{name}'",
        fix=f"Go online, or give {_ROWS_FIX}.",
    )


def _cached(name: str) -> bool:
    """Whether the caches of the hub's libraries hold anything of a dataset."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")).expanduser()
    places = {
        os.environ.get("HF_HUB_CACHE", home / "hub"): f"datasets--{name.replace('/', '--')}",
        os.environ.get("HF_DATASETS_CACHE", home / "datasets"): name.replace("/", "___"),
    }
    return any(
        folder.name.lower() == wanted.lower()
        for place, wanted in places.items()
        for folder in Path(place).expanduser().glob("*")
    )


def _go_offline() -> None:
    """Let the hub's libraries read their cache alone, whether they are imported yet or not."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets.config
    import huggingface_hub.constants

    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True


def _load(name: str, dataset: Dataset, split: str) -> Any:
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()
    own = name == dataset.id
    if own and dataset.revision == CONVERTED:
        pattern = f"hf://datasets/{name}@{CONVERTED}/{dataset.config or '*'}/{split}/*.parquet"
        return datasets.load_dataset("parquet", data_files={split: pattern}, split=split)
    revision = dataset.revision if own else None
    config = dataset.config if own else None
    return datasets.load_dataset(name, config, revision=revision, split=split)


def _explained(error: Exception, name: str) -> SoftstartError:
    """One line for what can go wrong between here and the hub."""
    if isinstance(error, SoftstartError):
        return error
    import datasets

    text = " ".join(str(error).split())
    kind = type(error).__name__
    where = f"dataset '{name}'"
    if re.search(r"\bscripts?\b", text, re.IGNORECASE):
        what = f"it needs a loading script, which datasets {datasets.__version__} does not run"
        return SoftstartError(what, where=where, fix=f"Give {_ROWS_FIX}.")
    if not hub_reachable() and not Path(name).exists():
        return _unreachable(name)
    return SoftstartError(
        f"datasets cannot load it ({kind}: {text[:300]})", where=where, fix=f"Give {_ROWS_FIX}."
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
    for number, line in enumerate(_decode(data, path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            where = f"{path}, line {number}"
            raise SoftstartError(f"not valid JSON ({error})", where=where, fix="One object a line.") from None
        if not isinstance(row, dict):
            raise SoftstartError(
                "not a JSON object", where=f"{path}, line {number}", fix="One object a line."
            )
        yield {**row, "LINE": number}


def _table(data: bytes, path: Path, delimiter: str, named: bool) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)
    quoting: Any = csv.QUOTE_NONE if path.suffix == ".tsv" else csv.QUOTE_MINIMAL
    lines = _decode(data, path).split("\n")
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, quoting=quoting, strict=True)
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
                if twice := {name for name in header if header.count(name) > 1}:
                    raise SoftstartError(f"two columns are named {sorted(twice)[0]!r}", where=where)
                continue
            yield _cells(header, cells, where) | {"LINE": int(where.rpartition(" ")[2])}
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
