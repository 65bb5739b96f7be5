"""The store of the package: one SQLite file in the study's folder."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from softstart.errors import SoftstartError
from softstart.storage.files import sync
from softstart.study.results.folder import DATABASE, moved, same_file
from softstart.study.results.sqlite_rows import (
    NAMES,
    connect,
    damaged,
    insert,
    intact,
    row_digest,
    rows_of,
    salvage,
)
from softstart.study.results.store import KEYS, NothingRun, Row, Store

SCHEMA = 5

TABLES = """
CREATE TABLE IF NOT EXISTS inputs (id INTEGER PRIMARY KEY CHECK (id = 1), data TEXT, digest TEXT);
CREATE TABLE IF NOT EXISTS meta_trainings (
    key TEXT PRIMARY KEY, method TEXT, seed INTEGER, seconds REAL, prompt TEXT, curve TEXT,
    tokens INTEGER, flops REAL, computed_tokens INTEGER, computed_flops REAL, memory INTEGER,
    environment TEXT, digest TEXT
);
CREATE TABLE IF NOT EXISTS runs (
    key TEXT PRIMARY KEY, method TEXT, task TEXT, sample INTEGER, lr REAL, seed INTEGER, start TEXT,
    dev REAL, best_step INTEGER, steps INTEGER, status TEXT, seconds REAL, prompt TEXT, curve TEXT,
    tokens INTEGER, flops REAL, computed_tokens INTEGER, computed_flops REAL, memory INTEGER,
    environment TEXT, trained INTEGER, stored INTEGER, digest TEXT
);
CREATE TABLE IF NOT EXISTS tests (
    run TEXT, step INTEGER, test REAL, companions TEXT, digest TEXT, PRIMARY KEY (run, step)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (
    key TEXT PRIMARY KEY, name TEXT, kind TEXT, reason TEXT, digest TEXT
);
"""

MIGRATIONS = {
    1: """
ALTER TABLE meta_trainings ADD COLUMN tokens INTEGER;
ALTER TABLE meta_trainings ADD COLUMN flops REAL;
ALTER TABLE meta_trainings ADD COLUMN memory INTEGER;
ALTER TABLE runs ADD COLUMN tokens INTEGER;
ALTER TABLE runs ADD COLUMN flops REAL;
ALTER TABLE runs ADD COLUMN memory INTEGER;
CREATE TABLE IF NOT EXISTS failures (key TEXT PRIMARY KEY, name TEXT, kind TEXT, reason TEXT);
CREATE TABLE tests (
    run TEXT, step INTEGER, test REAL, companions TEXT, PRIMARY KEY (run, step)
) WITHOUT ROWID;
INSERT INTO tests SELECT key, best_step, test, companions FROM runs WHERE test IS NOT NULL;
ALTER TABLE runs DROP COLUMN test;
ALTER TABLE runs DROP COLUMN companions;
DELETE FROM inputs;
""",
    2: " ".join(f"ALTER TABLE {name} ADD COLUMN digest TEXT;" for name in NAMES),
    3: " ".join(
        f"ALTER TABLE {name} ADD COLUMN computed_tokens INTEGER; "
        f"ALTER TABLE {name} ADD COLUMN computed_flops REAL;"
        for name in ("meta_trainings", "runs")
    ),
    4: "ALTER TABLE runs ADD COLUMN trained INTEGER; ALTER TABLE runs ADD COLUMN stored INTEGER;",
}
"""The SQL that brings a database of each older schema to the next one."""


class SQLiteStore(Store):
    """The results of a study in ``study.db``; every row has a digest of its values.

    Args:
        folder: the study folder; made if it is not there.
        readonly: only read, even while another process works on the study.

    Raises:
        SoftstartError: the folder cannot be written, another process works on it, or the database is damaged,
            of a newer version, or holds more than tables.
    """

    def __init__(self, folder: Path, *, readonly: bool = False) -> None:
        self.path = folder / DATABASE
        if readonly and not self.path.exists():
            raise NothingRun(folder)
        super().__init__(folder, readonly=readonly)
        if not readonly:
            if damaged(self.path):
                salvage(self.path)
            # Before SQLite opens it: whoever closes a file gives up all locks of its process on it. Another
            # program that reads this one would then think itself alone and remove the log of a study at work.
            if not self.path.exists():
                with self._errors():
                    self.path.touch()
            sync([self.path])
        with self._errors():
            self.db = connect(self.path, fixed=readonly and not os.access(folder, os.W_OK))
            version = self.db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA:
                raise SoftstartError(
                    f"the database has schema {version}, this Softstart knows {SCHEMA}",
                    where=self.where,
                    fix="Update Softstart.",
                )
            if version < SCHEMA:
                if readonly:
                    self._copy()
                self._migrate(version)
        self._opened = {path: os.stat(path) for path in self._files()}

    def check_in_place(self) -> None:
        """As ``Store.check_in_place``, for the files of the database too."""
        super().check_in_place()
        for path, facts in self._opened.items():
            if not same_file(facts, path):
                raise moved(path)
        self._opened |= {path: os.stat(path) for path in self._files() if path not in self._opened}

    def _files(self) -> list[Path]:
        """The files of the database that hold rows; the second is made when the first row is written."""
        wal = self.path.with_name(f"{self.path.name}-wal")
        return [path for path in (self.path, wal) if path.exists()]

    @property
    def where(self) -> str:
        """The file."""
        return str(self.path)

    def read(self, table: str) -> list[Row]:
        """The rows of a table that are as they were written; others count as missing."""
        with self._errors():
            return [row for row in rows_of(self.db, table) if intact(row)]

    def write(
        self,
        rows: Mapping[str, Sequence[Mapping[str, Any]]],
        delete: Mapping[str, Sequence[tuple[Any, ...]]] | None = None,
    ) -> None:
        """Delete and write rows by table, in one transaction."""
        with self._errors(), self.db:
            for table, names in (delete or {}).items():
                where = " AND ".join(f"{column}=?" for column in KEYS[table])
                self.db.executemany(f"DELETE FROM {table} WHERE {where}", names)
            for table, new in rows.items():
                self._insert(table, new)

    def inputs(self) -> str:
        """As ``Store.inputs``, with an error of its own for a damaged record."""
        try:
            return super().inputs()
        except NothingRun:
            if not self.db.execute("SELECT count(*) FROM inputs").fetchone()[0]:
                raise
        raise SoftstartError(
            "the record of what the study depends on is damaged",
            where=self.where,
            fix="Run the study again; finished work is kept.",
        )

    def close(self) -> None:
        """Release the database and the lock."""
        self.db.close()
        super().close()

    def _copy(self) -> None:
        """Go on with a copy in memory: a reader changes nothing, and an older version may be at work."""
        memory = connect(None)
        self.db.backup(memory)
        self.db.close()
        self.db = memory

    def _migrate(self, version: int) -> None:
        """Bring the tables to this schema in one transaction; version 0 is a new file."""
        steps = [MIGRATIONS[v] for v in range(version or SCHEMA, SCHEMA)]
        if version == 1 and "companions" not in {r[1] for r in self.db.execute("PRAGMA table_info(runs)")}:
            steps.insert(0, "ALTER TABLE runs ADD COLUMN companions TEXT;")
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.executescript(f"BEGIN IMMEDIATE; {' '.join(steps)} {TABLES} PRAGMA user_version={SCHEMA};")
        with self.db:
            for name in NAMES:
                for row in list(rows_of(self.db, name)):
                    self._insert(name, [row])

    def _insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            insert(self.db, table, {**row, "digest": row_digest(row)})

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError, OSError) as problem:
            raise SoftstartError(
                f"the results database cannot be used ({problem})",
                where=self.where,
                fix="Check free space and permissions. If it is damaged, run the study again: what can be "
                "read is kept. If that does not help, move it away and run again.",
            ) from problem
