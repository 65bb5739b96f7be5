"""Where results live: one SQLite file and one safetensors file a prompt. One writer; whole rows or none."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from softstart.errors import SoftstartError
from softstart.evaluation import Assessment

SCHEMA = 1

TABLES = """
CREATE TABLE IF NOT EXISTS inputs (id INTEGER PRIMARY KEY CHECK (id = 1), data TEXT);
CREATE TABLE IF NOT EXISTS meta_trainings (
    key TEXT PRIMARY KEY, method TEXT, seed INTEGER, seconds REAL, prompt TEXT, curve TEXT, environment TEXT
);
CREATE TABLE IF NOT EXISTS runs (
    key TEXT PRIMARY KEY, method TEXT, task TEXT, sample INTEGER, lr REAL, seed INTEGER, start TEXT,
    dev REAL, best_step INTEGER, steps INTEGER, status TEXT, seconds REAL, prompt TEXT, curve TEXT,
    test REAL, companions TEXT, environment TEXT
);
"""


class Store:
    """A study folder's database and prompt files.

    Args:
        folder: the study folder; made if it is not there.

    Raises:
        SoftstartError: the folder cannot be written, another process works on it, or the database is damaged
            or of a newer version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "study.db"
        try:
            (folder / "prompts").mkdir(parents=True, exist_ok=True)
            self._lock = (folder / "study.lock").open("w")
        except OSError as problem:
            raise SoftstartError(
                f"cannot write ({problem.strerror})",
                where=str(folder),
                mend="Choose a writable folder (--out).",
            ) from problem
        _lock(self._lock, folder)
        with self._errors():
            self.db = sqlite3.connect(self.path)
            self.db.row_factory = sqlite3.Row
            version = self.db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA:
                raise SoftstartError(
                    f"the database has schema {version}, this Softstart knows {SCHEMA}",
                    where=str(self.path),
                    mend="Update Softstart.",
                )
            self.db.execute("PRAGMA journal_mode=WAL")
            self.db.executescript(TABLES)
            self.db.execute(f"PRAGMA user_version={SCHEMA}")
            self.db.commit()

    def close(self) -> None:
        """Release the database and the lock."""
        self.db.close()
        self._lock.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def prompt_path(self, key: str) -> Path:
        """The file of a learned prompt or start."""
        return self.folder / "prompts" / f"{key}.safetensors"

    def checkpoint_path(self, key: str) -> Path:
        """The file of work under way."""
        return self.folder / "checkpoints" / f"{key}.safetensors"

    def drop_checkpoints(self) -> None:
        """Remove what interrupted work left behind, once nothing can resume from it."""
        for file in (self.folder / "checkpoints").glob("*.safetensors"):
            file.unlink(missing_ok=True)

    def set_inputs(self, data: str) -> None:
        """Remember what the study now computed depends on."""
        with self._errors(), self.db:
            self.db.execute("INSERT OR REPLACE INTO inputs VALUES (1, ?)", (data,))

    def inputs(self) -> str:
        """What ``set_inputs`` stored.

        Raises:
            SoftstartError: nothing was ever run here.
        """
        with self._errors():
            row = self.db.execute("SELECT data FROM inputs").fetchone()
        if row is None:
            raise SoftstartError("no study was run here", where=str(self.folder), mend="Run one first.")
        return str(row[0])

    def metas(self) -> dict[str, dict[str, Any]]:
        """Finished meta-trainings by key; one whose prompt file is gone counts as unfinished."""
        return self._rows("meta_trainings")

    def runs(self) -> dict[str, dict[str, Any]]:
        """Finished runs by key; one whose prompt file is gone counts as unfinished."""
        return self._rows("runs")

    def add_meta(self, row: Mapping[str, Any]) -> None:
        """Record a finished meta-training; its prompt file must be in place."""
        self._insert("meta_trainings", [row])

    def add_runs(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record finished runs in one transaction; their prompt files must be in place."""
        self._insert("runs", rows)

    def set_tests(self, scores: Mapping[str, Assessment]) -> None:
        """Record test scores of finished runs and what goes beside them, in one transaction."""
        rows = [(test.score, json.dumps(test.companions), key) for key, test in scores.items()]
        with self._errors(), self.db:
            self.db.executemany("UPDATE runs SET test=?, companions=? WHERE key=?", rows)

    def _insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        with self._errors(), self.db:
            for row in rows:
                columns = ", ".join(row)
                marks = ", ".join("?" * len(row))
                values = [json.dumps(v) if isinstance(v, (list, dict)) else v for v in row.values()]
                self.db.execute(f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({marks})", values)

    def _rows(self, table: str) -> dict[str, dict[str, Any]]:
        with self._errors():
            rows = [dict(row) for row in self.db.execute(f"SELECT * FROM {table}")]
        return {
            row["key"]: {**row, "curve": json.loads(row["curve"])}
            for row in rows
            if row["prompt"] is None or self.prompt_path(row["key"]).exists()
        }

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as problem:
            raise SoftstartError(
                f"the results database cannot be used ({problem})",
                where=str(self.path),
                mend="Check free space and rights; if it is damaged, move it away and run again.",
            ) from problem


def _lock(file: IO[str], folder: Path) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        raise SoftstartError(
            "another process is working on this study",
            where=str(folder),
            mend="Wait for it, or use another --out.",
        ) from problem
