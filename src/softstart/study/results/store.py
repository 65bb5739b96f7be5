"""Where results live: one SQLite file and one safetensors file a prompt. One writer; whole rows or none."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from softstart.errors import Damaged, SoftstartError
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
from softstart.study.run.clock import SUFFIX
from softstart.training.evaluation import Assessment

DATABASE = "study.db"
SCHEMA = 3

TABLES = """
CREATE TABLE IF NOT EXISTS inputs (id INTEGER PRIMARY KEY CHECK (id = 1), data TEXT, digest TEXT);
CREATE TABLE IF NOT EXISTS meta_trainings (
    key TEXT PRIMARY KEY, method TEXT, seed INTEGER, seconds REAL, prompt TEXT, curve TEXT,
    tokens INTEGER, flops REAL, memory INTEGER, environment TEXT, digest TEXT
);
CREATE TABLE IF NOT EXISTS runs (
    key TEXT PRIMARY KEY, method TEXT, task TEXT, sample INTEGER, lr REAL, seed INTEGER, start TEXT,
    dev REAL, best_step INTEGER, steps INTEGER, status TEXT, seconds REAL, prompt TEXT, curve TEXT,
    tokens INTEGER, flops REAL, memory INTEGER, environment TEXT, digest TEXT
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
}
"""How a database of each older schema becomes one of the next."""


class Store:
    """A study folder's database and prompt files.

    Args:
        folder: the study folder; made if it is not there.
        readonly: only look, also while another process works on the study.

    Raises:
        SoftstartError: the folder cannot be written, another process works on it, or the database is damaged,
            of a newer version, or holds more than tables.
    """

    def __init__(self, folder: Path, *, readonly: bool = False) -> None:
        self.folder = folder
        self.path = folder / DATABASE
        if readonly and not self.path.exists():
            raise self._nothing()
        self._lock = None if readonly else _lock(folder)
        if not readonly and damaged(self.path):
            salvage(self.path)
        with self._errors():
            self.db = connect(self.path, fixed=readonly and not os.access(folder, os.W_OK))
            version = self.db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA:
                raise SoftstartError(
                    f"the database has schema {version}, this Softstart knows {SCHEMA}",
                    where=str(self.path),
                    fix="Update Softstart.",
                )
            if version < SCHEMA:
                if readonly:
                    self._copy()
                self._migrate(version)

    def _copy(self) -> None:
        """Go on with a copy in memory: who only looks changes nothing; an older version may be at work."""
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

    def close(self) -> None:
        """Release the database and the lock."""
        self.db.close()
        if self._lock:
            self._lock.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def prompt_path(self, key: str) -> Path:
        """The file of a learned prompt or start."""
        return prompt_path(self.folder, key)

    def checkpoint_path(self, key: str) -> Path:
        """The file of work under way."""
        return self.folder / "checkpoints" / f"{key}.safetensors"

    def drop_checkpoint(self, key: str) -> None:
        """Remove what work under way left behind, once it is finished."""
        for suffix in (".safetensors", SUFFIX):
            self.checkpoint_path(key).with_suffix(suffix).unlink(missing_ok=True)

    def drop_checkpoints(self) -> None:
        """Remove what interrupted work left behind, once nothing can resume from it."""
        work = ("checkpoints/*.safetensors", f"checkpoints/*{SUFFIX}", "checkpoints/.*.tmp")
        for name in (*work, "prompts/.*.tmp"):
            for file in self.folder.glob(name):
                file.unlink(missing_ok=True)

    def set_inputs(self, data: str) -> None:
        """Remember what the study now computed depends on."""
        with self._errors(), self.db:
            self._insert("inputs", [{"id": 1, "data": data}])

    def inputs(self) -> str:
        """What ``set_inputs`` stored.

        Raises:
            SoftstartError: nothing was ever run here, or the record is damaged.
        """
        rows = self._read("inputs")
        if not rows and self.db.execute("SELECT count(*) FROM inputs").fetchone()[0]:
            raise SoftstartError(
                "the record of what the study depends on is damaged",
                where=str(self.path),
                fix="Run the study again: what is finished is kept.",
            )
        if not rows:
            raise self._nothing()
        return str(rows[0]["data"])

    def metas(self) -> dict[str, dict[str, Any]]:
        """Finished meta-trainings by key; one whose prompt file is gone counts as unfinished."""
        return self._rows("meta_trainings")

    def runs(self) -> dict[str, dict[str, Any]]:
        """Finished runs by key; one whose prompt file is gone counts as unfinished."""
        return self._rows("runs")

    def tests(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Test scores by run and by the step of the prompt tested."""
        return {(row["run"], row["step"]): row for row in self._read("tests")}

    def failures(self) -> dict[str, dict[str, Any]]:
        """What failed and was not computed since, by key."""
        return {row["key"]: row for row in self._read("failures")}

    def add(
        self,
        *,
        metas: Sequence[Mapping[str, Any]] = (),
        runs: Sequence[Mapping[str, Any]] = (),
        tests: Mapping[tuple[str, int], Assessment] | None = None,
    ) -> None:
        """Record finished meta-trainings, runs and test scores (by run and step) in one transaction.

        The prompt files of what is recorded must be in place.
        """
        scores = [
            {"run": run, "step": step, "test": test.score, "companions": test.companions}
            for (run, step), test in (tests or {}).items()
        ]
        with self._errors(), self.db:
            for table, rows in (("meta_trainings", metas), ("runs", runs), ("tests", scores)):
                self._insert(table, rows)
            keys = [(row["key"],) for row in (*metas, *runs)]
            self.db.executemany("DELETE FROM failures WHERE key=?", keys)

    def add_failure(self, key: str, name: str, kind: str, reason: str) -> None:
        """Record what failed and why."""
        with self._errors(), self.db:
            self._insert("failures", [{"key": key, "name": name, "kind": kind, "reason": reason}])

    def forget_failures(self) -> None:
        """Make everything that failed or diverged missing again."""
        with self._errors(), self.db:
            self.db.execute("DELETE FROM failures")
            diverged = "SELECT key FROM runs WHERE status='diverged'"
            self.db.execute(f"DELETE FROM tests WHERE run IN ({diverged})")
            self.db.execute("DELETE FROM runs WHERE status='diverged'")

    def _insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            values = {k: json.dumps(v) if isinstance(v, (list, dict)) else v for k, v in row.items()}
            values["digest"] = row_digest(values)
            insert(self.db, table, values)

    def _rows(self, table: str) -> dict[str, dict[str, Any]]:
        rows = self._read(table)
        prompts = {path.stem for path in (self.folder / "prompts").glob("*.safetensors")}
        return {
            row["key"]: {**row, "curve": self._curve(row["curve"])}
            for row in rows
            if row["prompt"] is None or row["key"] in prompts
        }

    def _curve(self, text: str) -> list[Any]:
        """Points of a meta-training (mappings) or of a run (step, dev score, loss)."""
        try:
            curve = json.loads(text)
            if not all(isinstance(point, dict) or len(point) == 3 for point in curve):
                raise ValueError("points of a curve are triples")
        except (ValueError, TypeError, RecursionError) as problem:
            raise Damaged(
                f"holds a curve that Softstart did not write ({problem})",
                where=str(self.path),
                fix="Use the database as Softstart wrote it, or move it away and run again.",
            ) from problem
        return list(curve)

    def _read(self, table: str) -> list[dict[str, Any]]:
        """The rows of a table that are as they were written; others count as not there."""
        with self._errors():
            return [row for row in rows_of(self.db, table) if intact(row)]

    def _nothing(self) -> SoftstartError:
        return SoftstartError("no study was run here", where=str(self.folder), fix="Run one first.")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as problem:
            raise SoftstartError(
                f"the results database cannot be used ({problem})",
                where=str(self.path),
                fix="Check free space and rights. Of a damaged one, what can be read is kept when the study "
                "runs again; if that does not help, move it away and run again.",
            ) from problem


def prompt_path(folder: Path, key: str) -> Path:
    """The file of a learned prompt or start in a study folder."""
    return folder / "prompts" / f"{key}.safetensors"


def _lock(folder: Path) -> IO[str]:
    """The lock file of a study folder, held and with our process id in it."""
    try:
        (folder / "prompts").mkdir(parents=True, exist_ok=True)
        file = (folder / "study.lock").open("a+")
    except OSError as problem:
        raise SoftstartError(
            f"cannot write ({problem.strerror})",
            where=str(folder),
            fix="Choose a writable folder (--out).",
        ) from problem
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise SoftstartError(
                f"another process is working on this study (pid {holder or 'unknown'})",
                where=str(folder),
                fix="Wait for it, work for it (--join), or use another --out.",
            ) from problem
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
