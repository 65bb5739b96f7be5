"""Folders that older versions wrote open in this one; what a newer one wrote is refused, and not touched."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.paths import ROOT
from softstart import SoftPrompt
from softstart.cli import app as cli
from softstart.errors import SoftstartError
from softstart.study import report_study
from softstart.study.results.sqlite_store import SCHEMA
from softstart.study.results.stores import open_store

FIXTURES = ROOT / "tests" / "fixtures"
FOLDERS = ("schema-1-first", "schema-1", "schema-2", "schema-3", "schema-4")


@pytest.fixture
def folder(request, tmp_path):
    return Path(shutil.copytree(FIXTURES / request.param, tmp_path / "study"))


def test_every_schema_has_its_folder():
    versions = set()
    for name in FOLDERS:
        with sqlite3.connect(f"{(FIXTURES / name / 'study.db').as_uri()}?immutable=1", uri=True) as db:
            versions.add(db.execute("PRAGMA user_version").fetchone()[0])
    assert versions == set(range(1, SCHEMA))


@pytest.mark.parametrize("folder", FOLDERS, indirect=True)
def test_every_number_of_an_older_database_is_there(folder):
    before = pd.read_csv(folder / "results.csv").set_index("run")
    for _ in range(2):
        with open_store(folder) as store:
            runs, tests, metas = store.runs(), store.tests(), store.metas()
    assert len(runs) == 5
    assert len(metas) == 1
    assert [point["step"] for point in next(iter(metas.values()))["curve"]] == [0, 1]
    assert len(before) == len(tests) == 3
    for (key, step), test in tests.items():
        assert step == runs[key]["best_step"]
        assert test["test"] == pytest.approx(before.loc[key, "test"])
        assert runs[key]["dev"] == pytest.approx(before.loc[key, "dev"])
    with sqlite3.connect(folder / "study.db") as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


@pytest.mark.parametrize("folder", FOLDERS, indirect=True)
def test_every_prompt_of_an_older_folder_is_read(folder):
    files = list((folder / "prompts").iterdir())
    assert len(files) == 5
    for file in files:
        prompt = SoftPrompt.load(file)
        assert prompt.tensor.shape == (4, 16)
        assert np.isfinite(prompt.tensor.numpy()).all()
        assert prompt.placement == "prefix"
        assert len(prompt.backbone_digest) == 64
        assert prompt.info["method"] in ("pt", "reptile")


@pytest.mark.parametrize("folder", FOLDERS, indirect=True)
def test_a_report_of_an_older_folder_is_made_or_refused_in_one_line(folder, capsys):
    """Results never get fewer: where keys are made of other things now, the old tables stay as they are."""
    tables = {file.name: file.read_bytes() for file in folder.glob("*.csv")}
    code = cli._main(["report", str(folder)], debug=False)
    said = capsys.readouterr().err.strip()
    assert code in (0, 1)
    if code:
        assert said.startswith("error: ")
        assert "\n" not in said
        assert {file.name: file.read_bytes() for file in folder.glob("*.csv")} == tables


@pytest.mark.parametrize("folder", FOLDERS[-1:], indirect=True)
def test_a_newer_schema_is_refused_and_left_alone(folder):
    with sqlite3.connect(folder / "study.db") as db:
        db.execute(f"PRAGMA user_version={SCHEMA + 1}")
    before = (folder / "study.db").read_bytes()
    for readonly in (True, False):
        with pytest.raises(
            SoftstartError, match=rf"schema {SCHEMA + 1}, .* knows {SCHEMA}\. Update Softstart"
        ):
            open_store(folder, readonly=readonly)
    with pytest.raises(SoftstartError, match="Update Softstart"):
        report_study(folder)
    assert (folder / "study.db").read_bytes() == before


@pytest.mark.parametrize("folder", FOLDERS[-1:], indirect=True)
def test_an_upgrade_that_is_cut_off_leaves_the_old_database(folder, monkeypatch):
    from softstart.study.results import sqlite_store

    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_store, "row_digest", cut)
        with pytest.raises(KeyboardInterrupt):
            open_store(folder)
    with open_store(folder) as again:
        assert len(again.runs()) == 5


def test_a_database_of_the_first_schema_is_taken_over(tmp_path):
    with sqlite3.connect(tmp_path / "study.db") as db:
        db.executescript(
            """
            CREATE TABLE inputs (id INTEGER PRIMARY KEY CHECK (id = 1), data TEXT);
            CREATE TABLE meta_trainings (
                key TEXT PRIMARY KEY, method TEXT, seed INTEGER, seconds REAL, prompt TEXT, curve TEXT,
                environment TEXT
            );
            CREATE TABLE runs (
                key TEXT PRIMARY KEY, method TEXT, task TEXT, sample INTEGER, lr REAL, seed INTEGER,
                start TEXT, dev REAL, best_step INTEGER, steps INTEGER, status TEXT, seconds REAL,
                prompt TEXT, curve TEXT, test REAL, companions TEXT, environment TEXT
            );
            INSERT INTO runs VALUES ('a', 'pt', 't', 13, 0.5, 1, NULL, 0.5, 4, 8, 'done', 1, NULL, '[]', 0.25,
                                     '{"outside": 0}', '{}');
            PRAGMA user_version=1;
            """
        )
    before = (tmp_path / "study.db").read_bytes()
    for how in ({"readonly": True}, {}, {}):
        with open_store(tmp_path, **how) as store:
            # Who only looks leaves the file to the version that may be at work on it.
            assert ((tmp_path / "study.db").read_bytes() == before) == bool(how)
            assert store.runs()["a"]["dev"] == 0.5
            test = store.tests()["a", 4]
            assert (test["test"], json.loads(test["companions"])) == (0.25, {"outside": 0})
