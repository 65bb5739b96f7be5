"""The store: whole rows or none, one writer, rows whose prompts are there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys

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
    with pytest.raises(SoftstartError, match=r"schema 99, this Softstart knows 5\. Update Softstart"):
        open_store(tmp_path)
    (tmp_path / "study.db").write_bytes(b"not a database, but long enough to look at" * 50)
    for name in ("study.db-wal", "study.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(SoftstartError, match="move it away and run again"):
        open_store(tmp_path)


def test_what_is_committed_is_on_the_disk(tmp_path):
    with open_store(tmp_path / "new" / "study") as store:
        assert store.db.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert store.db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_folder_that_is_moved_removed_or_replaced_takes_no_more_rows(tmp_path):
    study = tmp_path / "study"
    with open_store(study) as store:
        store.add(runs=[run_row("a")])
        store.check_in_place()
        for name in ("study.db", "study.db-wal", "study.lock"):
            (study / name).rename(tmp_path / "aside")
            with pytest.raises(SoftstartError, match=r"was removed, renamed or replaced while the study"):
                store.check_in_place()
            shutil.copy(tmp_path / "aside", study / name)
            with pytest.raises(SoftstartError, match="nothing more is written"):
                store.check_in_place()
            (tmp_path / "aside").replace(study / name)
            store.check_in_place()
        study.rename(tmp_path / "other")
        with pytest.raises(SoftstartError, match="was removed"):
            store.check_in_place()


@pytest.mark.parametrize("again", [False, True], ids=["a new folder", "a folder that exists"])
def test_another_program_may_read_the_database_meanwhile(tmp_path, again):
    if again:
        open_store(tmp_path / "s").close()
    code = (
        "import sqlite3, sys\n"
        "print(*sqlite3.connect(sys.argv[1]).execute('SELECT data FROM inputs').fetchone())"
    )
    with open_store(tmp_path / "s") as store:
        for inputs in ("first", "second"):
            store.set_inputs(inputs)
            reader = [sys.executable, "-c", code, str(tmp_path / "s" / "study.db")]
            assert subprocess.run(reader, capture_output=True, text=True, check=True).stdout.strip() == inputs
            store.check_in_place()
    with open_store(tmp_path / "s", readonly=True) as store:
        assert store.inputs() == "second"


def test_a_file_system_without_locks_is_called_so(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(SoftstartError, match=r"cannot lock files \(No locks available\), which a study"):
        open_store(tmp_path)
