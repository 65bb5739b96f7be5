"""Results in another database: one class from outside of the package, named by an environment variable."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

from helpers.toy_study import toy
from softstart.cli import app as cli
from softstart.errors import SoftstartError
from softstart.study import report_study, run_study
from softstart.study.results.stores import STORES, VARIABLE, open_store
from softstart.study.run.status import read_status

MODULE = """
import json

from softstart.study.results.store import KEYS, NothingRun, Store


class JSONStore(Store):
    "All tables in one JSON file."

    def __init__(self, folder, *, readonly=False):
        self.file = folder / "results.json"
        if readonly and not self.file.exists():
            raise NothingRun(folder)
        super().__init__(folder, readonly=readonly)

    def read(self, table):
        return list(self._tables()[table].values())

    def write(self, rows, delete=None):
        tables = self._tables()
        for table, keys in (delete or {}).items():
            for key in keys:
                tables[table].pop(json.dumps(key), None)
        for table, new in rows.items():
            for row in new:
                assert all(v is None or isinstance(v, (str, int, float)) for v in row.values())
                tables[table][json.dumps([row[column] for column in KEYS[table]])] = dict(row)
        self.file.write_text(json.dumps(tables))

    def _tables(self):
        return json.loads(self.file.read_text()) if self.file.exists() else {name: {} for name in KEYS}


Nothing = dict
"""
STUDY = {"methods": {"pt": {}, "ft": {}, "maml": {"inner_lr": 0.1}}, "samples": [13]}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A module that is not in the package, as a user's own on PYTHONPATH."""
    (tmp_path / "outside_store.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("outside_store", None)


@pytest.mark.parametrize("registered", [False, True])
def test_a_study_runs_under_it_to_the_report(outside, world, tmp_path, monkeypatch, registered, capsys):
    study, folder = toy(world, **STUDY), tmp_path / "out"
    plain = run_study(study, tmp_path / "sqlite", device="cpu")
    monkeypatch.setattr(STORES, "_entries", dict(STORES))
    if registered:
        STORES.add("json", STORES.find("outside_store.JSONStore"))
    monkeypatch.setenv(VARIABLE, "json" if registered else "outside_store.JSONStore")
    outcome = run_study(study, folder, device="cpu")
    assert (outcome.failures, outcome.missing) == ([], 0)
    assert not (folder / "study.db").exists()
    took = ["seconds"]
    pd.testing.assert_frame_equal(outcome.rows.drop(columns=took), plain.rows.drop(columns=took))

    # What is computed is not computed again, and the other commands read it as well.
    before = (folder / "results.json").read_text()
    assert not run_study(study, folder, device="cpu").failures
    assert (folder / "results.json").read_text() == before
    assert read_status(folder).missing == 0
    (folder / "report.html").unlink()
    assert report_study(folder).missing == 0
    assert (folder / "report.html").exists()
    assert cli._main(["status", str(folder)], False) == 0
    assert "0 runs missing" in capsys.readouterr().out

    # A run whose prompt file is gone is missing, whatever the database.
    run = outcome.rows.loc[outcome.rows["method"] == "pt", "run"].iloc[0]
    (folder / "prompts" / f"{run}.safetensors").unlink()
    assert read_status(folder).missing == 1


def test_it_forgets_failures_and_what_diverged(outside, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "outside_store.JSONStore")
    folder = tmp_path / "out"
    row = {"method": "pt", "prompt": None, "curve": [[0, 0.5, 1.0]], "environment": {}}
    with open_store(folder) as store:
        store.add(runs=[{"key": "a", "status": "done", **row}, {"key": "b", "status": "diverged", **row}])
        store.add_failure("c", "a name", "diverged", "a reason")
        with pytest.raises(SoftstartError, match="another process is working on this study"):
            open_store(folder)
        store.forget_failures()
    with open_store(folder, readonly=True) as store:
        assert store.runs().keys() == {"a"}
        assert store.failures() == {}
        with pytest.raises(SoftstartError, match="no study was run here"):
            store.inputs()


def test_what_is_not_a_store_is_refused(outside, tmp_path, monkeypatch):
    for name, message in (
        ("outside_store.Nothing", "SOFTSTART_STORE: 'outside_store.Nothing' is not a store"),
        ("sqlit", r"SOFTSTART_STORE: unknown store 'sqlit'\. Did you mean sqlite"),
    ):
        monkeypatch.setenv(VARIABLE, name)
        with pytest.raises(SoftstartError, match=message):
            open_store(tmp_path)
