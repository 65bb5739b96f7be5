"""What a study needs of a database: five tables of plain rows, one writer, atomic transactions."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from softstart.errors import Damaged, SoftstartError
from softstart.study.results.folder import lock, refuse_moved, stored_prompts

if TYPE_CHECKING:
    from softstart.training.evaluation import Assessment

KEYS = {
    "inputs": ("id",),
    "meta_trainings": ("key",),
    "runs": ("key",),
    "tests": ("run", "step"),
    "failures": ("key",),
}
"""The tables, and the columns that name a row of each."""

Row = dict[str, Any]


class NothingRun(SoftstartError):
    """A folder holds no results."""

    def __init__(self, folder: Path) -> None:
        super().__init__("no study was run here", where=str(folder), fix="Run one first.")


class Store(ABC):
    """The results of a study. Another database is another subclass with ``read``, ``write`` and ``close``.

    While a store is open for writing, it holds the lock of the study's folder. The files of learned prompts
    are in that folder, wherever the rows are. Open one with ``softstart.study.results.stores.open_store``.

    Args:
        folder: the study folder; made if it is not there.
        readonly: only read, even while another process works on the study.

    Raises:
        SoftstartError: the folder cannot be written, or another process works on it.
    """

    def __init__(self, folder: Path, *, readonly: bool = False) -> None:
        self.folder = folder
        self._lock = None if readonly else lock(folder)

    @property
    def where(self) -> str:
        """The place of the database, for errors."""
        return str(self.folder)

    def check_in_place(self) -> None:
        """Refuse to go on if the folder is no longer the one that was opened; called before a commit.

        Raises:
            SoftstartError: it was removed, renamed or replaced meanwhile.
        """
        if self._lock:
            refuse_moved(self.folder, self._lock)

    @abstractmethod
    def read(self, table: str) -> list[Row]:
        """The rows of a table, without those that are damaged."""

    @abstractmethod
    def write(
        self,
        rows: Mapping[str, Sequence[Mapping[str, Any]]],
        delete: Mapping[str, Sequence[tuple[Any, ...]]] | None = None,
    ) -> None:
        """Delete and write rows by table, all or nothing.

        Args:
            rows: what to write: texts, numbers and None; a row replaces the one with the same key columns.
            delete: the rows to delete first, by the values of their key columns; missing rows are no error.
        """

    def close(self) -> None:
        """Release the database (in a subclass) and the lock."""
        if self._lock:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def set_inputs(self, data: str) -> None:
        """Record what the study depends on."""
        self.write({"inputs": [{"id": 1, "data": data}]})

    def inputs(self) -> str:
        """What ``set_inputs`` stored.

        Raises:
            NothingRun: no study was run here.
            SoftstartError: the record is damaged.
        """
        rows = self.read("inputs")
        if not rows:
            raise NothingRun(self.folder)
        return str(rows[0]["data"])

    def metas(self) -> dict[str, Row]:
        """Finished meta-trainings by key; one whose prompt file is gone counts as unfinished."""
        return self._finished("meta_trainings")

    def runs(self) -> dict[str, Row]:
        """Finished runs by key; one whose prompt file is gone counts as unfinished."""
        return self._finished("runs")

    def tests(self) -> dict[tuple[str, int], Row]:
        """Test scores by run and by the step of the prompt tested."""
        return {(row["run"], row["step"]): row for row in self.read("tests")}

    def failures(self) -> dict[str, Row]:
        """What failed and was not computed since then, by key."""
        return {row["key"]: row for row in self.read("failures")}

    def add(
        self,
        *,
        metas: Sequence[Mapping[str, Any]] = (),
        runs: Sequence[Mapping[str, Any]] = (),
        tests: Mapping[tuple[str, int], Assessment] | None = None,
    ) -> None:
        """Record finished meta-trainings, runs and test scores (by run and step), all or nothing.

        The prompt files must already be in place.
        """
        scores = [
            {"run": run, "step": step, "test": test.score, "companions": test.companions}
            for (run, step), test in (tests or {}).items()
        ]
        rows = {"meta_trainings": metas, "runs": runs, "tests": scores}
        self.write(
            {table: list(map(_plain, new)) for table, new in rows.items()},
            delete={"failures": [(row["key"],) for row in (*metas, *runs)]},
        )

    def add_failure(self, key: str, name: str, kind: str, reason: str) -> None:
        """Record what failed and why."""
        self.write({"failures": [{"key": key, "name": name, "kind": kind, "reason": reason}]})

    def forget_failures(self) -> None:
        """Count everything that failed or diverged as missing again."""
        diverged = {row["key"] for row in self.read("runs") if row["status"] == "diverged"}
        self.write(
            {},
            delete={
                "failures": [(key,) for key in self.failures()],
                "tests": [of for of in self.tests() if of[0] in diverged],
                "runs": [(key,) for key in diverged],
            },
        )

    def _finished(self, table: str) -> dict[str, Row]:
        prompts = stored_prompts(self.folder)
        return {
            row["key"]: {**row, "curve": self._curve(row["curve"])}
            for row in self.read(table)
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
                f"contains a curve that Softstart did not write ({problem})",
                where=self.where,
                fix="Use the database as Softstart wrote it, or move it away and run again.",
            ) from problem
        return list(curve)


def _plain(row: Mapping[str, Any]) -> Row:
    """A row of texts and numbers: lists and mappings as JSON."""
    return {name: json.dumps(v) if isinstance(v, (list, dict)) else v for name, v in row.items()}
