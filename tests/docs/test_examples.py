"""The notebooks run as they are, with a small budget, and are kept without outputs."""

from __future__ import annotations

import ast
import json

import pytest

from helpers.paths import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
REAL = ROOT / "examples" / "real_model.ipynb"
"""Takes a real language model: run with the other tests of one (tests/real)."""
EMBEDDED = [notebook for notebook in NOTEBOOKS if notebook != REAL]
SMALL = {"SOURCES": 3, "TARGETS": 1, "META_STEPS": 2, "STEPS": 2, "SPLITS": 1}
"""What the cell of parameters says instead."""


def cells(notebook, kind="code"):
    every = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in every if cell["cell_type"] == kind]


def run(notebook, values):
    names = {"__name__": "__main__"}
    for i, cell in enumerate(cells(notebook)):
        exec(compile("".join(cell["source"]), f"{notebook.name}, cell {i}", "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            names.update({name: values[name] for name in values if name in names})
    return names


@pytest.mark.parametrize("notebook", EMBEDDED, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(notebook, SMALL)
    assert capsys.readouterr().out.strip()


@pytest.mark.slow
@pytest.mark.parametrize("notebook", EMBEDDED, ids=lambda path: path.stem)
def test_a_notebook_runs_in_full(notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(notebook, {})


def test_there_are_four_and_none_keeps_outputs():
    assert [path.stem for path in NOTEBOOKS] == ["anatomy", "own_tasks", "quickstart", "real_model"]
    for notebook in NOTEBOOKS:
        assert cells(notebook, "markdown")[0]["source"][0].startswith("# ")
        for cell in cells(notebook):
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            ast.parse("".join(cell["source"]))
