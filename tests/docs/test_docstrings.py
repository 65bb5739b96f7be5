"""Public names tell shapes, errors and sources, by rules that a machine can check."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from functools import cache
from pathlib import Path

import pytest

from helpers.paths import ROOT

sys.path.insert(0, str(ROOT / "docs"))

import reference

SHAPE = re.compile(r"\[[≤A-Z0-9·][^\]]*\]|\[\]|scalar")
"""``[P, d]``: a shape as the docstrings write it."""

CITED = re.compile(r"[A-Z][\w'-]+ (et al|&|and)[^)]{0,60}(19|20)\d\d")
"""``Finn et al., 2017``."""

SOURCES = {
    "softstart.algorithms": "ALGORITHMS",
    "softstart.training.optimizers": "OPTIMIZERS",
}
"""Tables of methods that somebody invented."""

MAKING = ("__init__", "__post_init__")

NAMES = [(module, name) for module in reference.PACKAGES for name in reference.public_names(module)]


def callables(defined):
    """A function, or the public methods of a class with the class's own docstring before theirs."""
    if isinstance(defined.node, ast.FunctionDef):
        return [(defined, defined.doc)]
    return [(method, f"{defined.doc}\n{method.doc}") for method in defined.methods]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_name_tells_shapes_and_errors(module, name):
    defined = reference.definition(module, name)
    assert defined.doc, "no docstring"
    for member, doc in callables(defined):
        what = member.node.name
        taken = [a.annotation for a in ast.walk(member.node.args) if isinstance(a, ast.arg)]
        types = [ast.unparse(kind) for kind in (*taken, member.node.returns) if kind]
        if any(re.search(r"\bTensor\b", kind) for kind in types):
            assert SHAPE.search(doc), f"{what} takes or returns a tensor of unknown shape"
        if raises(defined, member.node):
            assert re.search(r"Raises:|SoftstartError", member.doc), f"{what} does not say what it raises"
    if isinstance(defined.node, ast.ClassDef):
        for field, kind, _, doc in defined.fields:
            if re.search(r"\bTensor\b", kind):
                assert SHAPE.search(f"{defined.doc}\n{doc}"), f"{name}.{field} is a tensor of unknown shape"
        made = [n for n in defined.node.body if isinstance(n, ast.FunctionDef) and n.name in MAKING]
        if any(raises(defined, node) for node in made):
            explained = re.search(r"Raises:|SoftstartError", defined.doc)
            assert explained, f"making a {name} can fail and its docstring does not say how"


@pytest.mark.parametrize(("module", "table"), SOURCES.items())
def test_methods_name_their_papers(module, table):
    for kind, made in getattr(importlib.import_module(module), table).items():
        defined = reference.definition(made.__module__, made.__name__)
        whole = ast.get_docstring(tree(defined.module)) or ""
        assert CITED.search(" ".join(f"{whole} {defined.doc}".split())), kind


def test_every_key_of_a_study_is_explained():
    from softstart.algorithms import ALGORITHMS

    algorithms = [(made.__name__, made.__module__) for made in ALGORITHMS.values()]
    bare = [
        f"{name}.{field}"
        for name, module in (*reference.STUDY.items(), *algorithms)
        for defined in [reference.definition(module, name)]
        for field, *_, doc in defined.fields
        if not doc and not re.search(rf"``{field}\b", defined.doc)
    ]
    assert not bare


@cache
def tree(module):
    return ast.parse(Path(str(importlib.import_module(module).__file__)).read_text(encoding="utf-8"))


def raises(defined, node, seen=frozenset()):
    """Whether a function raises, itself or through its own module's functions and its own class's methods."""
    if any(isinstance(n, ast.Raise) and n.exc and not _abstract(n) for n in ast.walk(node)):
        return True
    functions = {n.name: n for n in tree(defined.module).body if isinstance(n, ast.FunctionDef)}
    methods = {n.name: n for n in getattr(defined.node, "body", []) if isinstance(n, ast.FunctionDef)}
    for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
        match call.func:
            case ast.Name(id=name):
                target = functions.get(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                target = methods.get(name)
            case _:
                target = None
        if target and target.name not in seen and raises(defined, target, seen | {target.name}):
            return True
    return False


def _abstract(node):
    return "NotImplementedError" in ast.unparse(node) or "AttributeError" in ast.unparse(node)
