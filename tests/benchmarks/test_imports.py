"""Benchmarks, experiments and notebooks import only what the package has."""

from __future__ import annotations

import ast
import importlib
import json

import pytest

from helpers.paths import ROOT

SCRIPTS = sorted(
    path
    for folder in ("benchmarks", "experiments", "docs", "examples")
    for path in (ROOT / folder).rglob("*.*")
)
SCRIPTS = [path for path in SCRIPTS if path.suffix in (".py", ".ipynb")]


def source(path):
    """The code of a file; of a notebook, that of its cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return text
    return "\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "code")


def lost(text):
    """What a source imports from the package, and the package does not have."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "softstart":
            for alias in node.names:
                try:
                    known = hasattr(importlib.import_module(node.module), alias.name)
                    known = known or importlib.import_module(f"{node.module}.{alias.name}")
                except ImportError:
                    known = False
                if not known:
                    yield f"{node.module}.{alias.name}"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_script_imports_is_there(path):
    assert list(lost(source(path))) == []


def test_an_import_of_what_is_gone_would_be_noticed():
    text = "from softstart.gym import load_setting, gone\nfrom softstart.gone import x\n"
    assert list(lost(text)) == ["softstart.gym.gone", "softstart.gone.x"]
