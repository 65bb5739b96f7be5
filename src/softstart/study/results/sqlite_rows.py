"""Rows of a database that are as they were written, and what can be saved of a damaged database.

SQLite notices a damaged structure, but not a flipped bit in a number. So every row holds a digest of its
values, and a row that does not match its digest counts as missing: it is computed again. A database from
somebody else may also hold views or triggers that run code when it is read: only plain tables are opened.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from softstart.errors import Damaged

NAMES = ("inputs", "meta_trainings", "runs", "tests", "failures")
"""The tables."""

LONGEST = 2**27
"""Bytes of the longest value that is read."""

STRANGE = " UNION ALL ".join(
    (
        "SELECT type, name FROM sqlite_master WHERE sql NOT LIKE 'CREATE TABLE %'",
        *(
            f"SELECT 'column', '{table}.' || name FROM pragma_table_xinfo('{table}') "
            "WHERE hidden OR name GLOB '*[^a-z_]*'"
            for table in NAMES
        ),
    )
)
"""Finds views, triggers, virtual tables, declared indices, generated columns, and columns named by SQL."""

ENDINGS = ("", "-wal", "-shm")
"""The files of a database."""


def connect(path: Path | None, *, fixed: bool = False) -> sqlite3.Connection:
    """Open a database, or a new one in memory; ``fixed`` where nothing can be written next to it, as on a
    read-only disk.

    Raises:
        Damaged: it holds anything but plain tables.
    """
    name = "file::memory:"
    if path is not None:
        still = fixed and not _next_to(path, "-wal").exists()
        name = f"{path.resolve().as_uri()}{'?immutable=1' if still else ''}"
    db = sqlite3.connect(name, timeout=30, uri=True)
    db.row_factory = sqlite3.Row
    # Text that is no longer UTF-8 must not keep the other rows from being read.
    db.text_factory = lambda data: data.decode(errors="replace")
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    try:
        strange = db.execute(f"{STRANGE} LIMIT 1").fetchone()
        # What is committed is on the disk, whatever SQLite was built with.
        db.execute("PRAGMA synchronous=FULL")
    except sqlite3.Error:
        db.close()
        raise
    except UnicodeDecodeError as problem:  # raised where SQLite's own error message is not UTF-8
        db.close()
        raise sqlite3.DatabaseError("its names are not text") from problem
    if strange:
        db.close()
        raise Damaged(
            f"holds a {strange[0]} {strange[1][:60]!r} that Softstart did not write",
            where=str(path),
            fix="Use the database as Softstart wrote it, or move it away and run again.",
        )
    return db


def rows_of(db: sqlite3.Connection, table: str, order: str = "") -> Iterator[dict[str, Any]]:
    """The rows of a table.

    Raises:
        sqlite3.DatabaseError: it cannot be read, or its pages refer to each other in a circle, so that there
            are more rows than the file can hold.
    """
    cursor, held = db.execute(f"SELECT * FROM {table}{order}"), 0
    pages, size = (db.execute(f"PRAGMA page_{of}").fetchone()[0] for of in ("count", "size"))
    for row in cursor:
        held += 1 + sum(len(value) for value in row if isinstance(value, (str, bytes)))
        if held > pages * size:
            raise sqlite3.DatabaseError("pages of it contain each other")
        yield dict(row)


def row_digest(row: Mapping[str, Any]) -> str:
    """The digest of the values of a row, the same for what is written and what SQLite returns."""
    values = {
        name: float(value) if isinstance(value, (int, float)) else value
        for name, value in row.items()
        if name != "digest" and value is not None and value == value  # NaN comes back as NULL
    }
    return sha256(json.dumps(values, sort_keys=True, default=repr).encode()).hexdigest()[:16]


def intact(row: Mapping[str, Any]) -> bool:
    """Whether a row is as it was written."""
    return bool(row.get("digest") == row_digest(row))


def insert(db: sqlite3.Connection, table: str, values: Mapping[str, Any]) -> None:
    """Write a row; it replaces one with the same key."""
    columns, marks = ", ".join(values), ", ".join("?" * len(values))
    db.execute(f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({marks})", list(values.values()))


def damaged(path: Path) -> bool:
    """Whether the structure of a database is broken; no other process may use it meanwhile."""
    if not path.exists():
        return False
    try:
        with closing(connect(path)) as db:
            return [tuple(row) for row in db.execute("PRAGMA integrity_check(1)")] != [("ok",)]
    except sqlite3.DatabaseError as problem:
        return not isinstance(problem, sqlite3.OperationalError) or "malformed" in str(problem)


def salvage(path: Path) -> None:
    """Replace a damaged database by one with all rows that can still be read from it.

    The damaged one stays next to it, under names that end in ``.damaged``. If nothing can be read, nothing
    changes.
    """
    fresh, saved = _next_to(path, ".salvaged"), 0
    fresh.unlink(missing_ok=True)
    with suppress(sqlite3.Error), closing(connect(path)) as old, closing(connect(fresh)) as new, new:
        new.execute("PRAGMA journal_mode=WAL")
        new.execute(f"PRAGMA user_version={old.execute('PRAGMA user_version').fetchone()[0]}")
        tables = f"SELECT name, sql FROM sqlite_master WHERE type='table' AND name IN {NAMES}"
        for table, sql in old.execute(tables).fetchall():
            new.execute(sql)
            for row in _readable(old, table):
                if "digest" not in row or intact(row):
                    insert(new, table, row)
                    saved += 1
    if saved:
        for ending in ENDINGS:
            with suppress(FileNotFoundError):
                os.replace(_next_to(path, ending), _next_to(path, f"{ending}.damaged"))
        os.replace(fresh, path)
    for ending in ENDINGS:
        _next_to(fresh, ending).unlink(missing_ok=True)


def _readable(db: sqlite3.Connection, table: str) -> Iterator[dict[str, Any]]:
    """The rows of a table from both ends, each as far as it can be read."""
    first = db.execute(f"PRAGMA table_info({table})").fetchone()["name"]
    for order in ("", f" ORDER BY {'rowid' if table != 'tests' else first} DESC"):
        with suppress(sqlite3.Error):
            yield from rows_of(db, table, order)


def _next_to(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
