"""The rules of the house: few files at the root, no import cycle, nothing too long to be read at once."""

from __future__ import annotations

import ast
import tomllib

import pytest

from helpers.imports import cycles, imports
from helpers.paths import ROOT

SOURCE = ROOT / "src" / "softstart"

ROOT_FILES = {"__init__.py", "__main__.py", "errors.py", "progress.py", "registry.py"}
"""The Python files at the package's root, six at most. New code goes into a room."""

MOST_LINES = {"function": 80, "class": 250}

TOO_LONG: set[str] = set()
"""Functions and classes that are still too long. Entries are only removed."""


def test_few_files_lie_at_the_root():
    assert {path.name for path in SOURCE.glob("*.py")} == ROOT_FILES
    assert len(ROOT_FILES) <= 6


def test_every_room_is_named_in_the_import_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = [each for each in contracts["contracts"] if each.get("containers") == ["softstart"]]
    assert layers["exhaustive"]
    named = {name.strip() for layer in layers["layers"] for name in layer.split("|")}
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert named == rooms | {name.removesuffix(".py") for name in ROOT_FILES} - {"__init__"}


def test_no_module_imports_itself_through_others():
    assert cycles(imports(SOURCE, type_checking=False)) == []


def test_functions_and_classes_can_be_read_at_once():
    long = {
        f"{path.relative_to(SOURCE)}: {kind} {name}"
        for path in SOURCE.rglob("*.py")
        for kind, name, lines in definitions(path.read_text(encoding="utf-8"))
        if lines > MOST_LINES[kind]
    }
    assert sorted(long - TOO_LONG) == [], "longer than the rule allows"
    assert sorted(TOO_LONG - long) == [], "these are short now: remove them from TOO_LONG"


def definitions(source):
    """Kind, name and number of lines of each function and class, with its decorators and docstring."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            yield kind, node.name, node.end_lineno - first + 1


@pytest.mark.parametrize(
    ("text", "tangled"),
    [
        ("import package.second", True),
        ("def f():\n    from package.second import name", True),
        ("from package import second", True),
        ("from package.third import name", False),
        ("if TYPE_CHECKING:\n    import package.second", False),
    ],
)
def test_a_cycle_would_be_noticed(tmp_path, text, tangled):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "first.py").write_text(f"{text}\n")
    (package / "second.py").write_text("from package.first import name\n")
    (package / "third.py").write_text("")
    groups = cycles(imports(package, type_checking=False))
    assert groups == ([{"package.first", "package.second"}] if tangled else [])
    assert imports(package, type_checking=True)["package.first"] != set()


def test_the_length_of_a_definition_counts_its_decorators():
    source = "class A:\n    @first\n    @second\n    def f(self):\n        '''Doc.'''\n        return 1\n"
    assert list(definitions(source)) == [("class", "A", 6), ("function", "f", 5)]
