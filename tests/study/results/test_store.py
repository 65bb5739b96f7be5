"""The store: whole rows or none, one writer, rows whose prompts are there."""

from __future__ import annotations

import json
import os
import sqlite3

import pytest

from helpers.rows import run_row
from softstart.errors import SoftstartError
from softstart.study.results.folder import prompt_path
from softstart.study.results.stores import open_store
from softstart.training.evaluation import Assessment


def test_the_store_keeps_rows_across_processes_and_all_or_nothing(tmp_path):
    with open_store(tmp_path) as store:
        store.add(runs=[run_row("a"), run_row("b", dev=float("nan")), run_row("gone", prompt="p")])
        with pytest.raises(SoftstartError):
            store.add(runs=[run_row("c"), {"key": "d", "nonsense": 1}])
        store.add(tests={("a", 1): Assessment(0.75, {"outside": 0.5})})
    with open_store(tmp_path) as store:
        runs, tests = store.runs(), store.tests()
    assert runs.keys() == {"a", "b"}
    assert runs["b"]["dev"] is None
    assert runs["a"]["curve"] == [[0, 0.1, None]]
    assert json.loads(runs["a"]["environment"]) == {}
    assert {of: row["test"] for of, row in tests.items()} == {("a", 1): 0.75}
    assert json.loads(tests["a", 1]["companions"]) == {"outside": 0.5}


def test_a_meta_training_without_its_prompt_counts_as_missing(tmp_path):
    with open_store(tmp_path) as store:
        row = {"key": "m", "method": "maml", "seed": 1, "seconds": 1.0, "prompt": "p", "curve": []}
        store.add(metas=[{**row, "environment": {}}])
        assert store.metas() == {}
        prompt_path(store.folder, "m").write_bytes(b"x")
        assert store.metas().keys() == {"m"}


def test_a_second_writer_a_newer_schema_and_a_damaged_file_are_refused(tmp_path):
    with (
        open_store(tmp_path),
        pytest.raises(SoftstartError, match=rf"another process .* \(pid {os.getpid()}\)"),
    ):
        open_store(tmp_path)
    with sqlite3.connect(tmp_path / "study.db") as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(SoftstartError, match=r"schema 99, this Softstart knows 4\. Update Softstart"):
        open_store(tmp_path)
    (tmp_path / "study.db").write_bytes(b"not a database, but long enough to look at" * 50)
    for name in ("study.db-wal", "study.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(SoftstartError, match="move it away and run again"):
        open_store(tmp_path)
