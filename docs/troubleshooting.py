"""Every error that Softstart raises, read from its source, with what to do about it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

RAISED = ("SoftstartError", "Diverged")

AREAS = {
    "cli": "The command line",
    "yourtasks": "Your own tasks",
    "gym": "The gym: tasks, rows, settings",
    "prompt": "Prompts and their files",
    "backbone": "Backbones",
    "training": "Training",
    "algorithms": "Training",
    "study": "Studies",
    "analysis": "Results and reports",
    "report": "Results and reports",
    "diagnostics": "Results and reports",
    "tiny": "The embedded model",
    "storage": "Files and names",
    "": "Files and names",
}
"""The heading of each room of the package on the page; "" stands for the files at its root."""


class Error(NamedTuple):
    """One place that raises: its module, and its message and fix without their values ("task '…'")."""

    module: str
    what: str
    fix: str

    @property
    def keys(self) -> list[str]:
        """Its possible names in errors.yaml: its message, alone or after its file (``gym/own.py: …``)."""
        parts = self.module.split("/")
        return [*(f"{'/'.join(parts[at:])}: {self.what}" for at in range(len(parts))), self.what]

    @property
    def area(self) -> str:
        """The heading it belongs under."""
        room, _, below = self.module.partition("/")
        return AREAS[room if below else ""]


def errors(source: Path) -> list[Error]:
    """All errors in the order of the files.

    An error whose message is nothing but another error's (``error.what``) repeats that error and is left out.
    """
    every = []
    for path in sorted(source.rglob("*.py")):
        module = str(path.relative_to(source))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node, function in _calls(tree, tree):
            if isinstance(node.args[0], ast.Attribute):
                continue
            fix = next((k.value for k in node.keywords if k.arg == "fix"), None)
            what = _text(node.args[0], constants) or ast.unparse(node.args[0])
            every.append(Error(module, what, _fix(fix, function, constants) if fix else ""))
    return list(dict.fromkeys(every))


def _calls(node: ast.AST, function: ast.AST) -> Iterator[tuple[ast.Call, ast.AST]]:
    """Every place that makes an error, with the function it is in."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISED:
        yield node, function
    inner = node if isinstance(node, ast.FunctionDef) else function
    for child in ast.iter_child_nodes(node):
        yield from _calls(child, inner)


def _fix(node: ast.expr, function: ast.AST, constants: Mapping[str, object]) -> str:
    """What to do, also where it is a variable of the function."""
    text = _text(node, constants)
    if text or not isinstance(node, ast.Name):
        return text
    assigned = (
        each.value
        for each in ast.walk(function)
        if isinstance(each, ast.Assign)
        and any(isinstance(t, ast.Name) and t.id == node.id for t in each.targets)
    )
    return next(filter(None, (_text(value, constants) for value in assigned)), "")


def _text(node: ast.expr, constants: Mapping[str, object]) -> str:
    """A message as it is written, with "…" for every value; "" for what is not written there."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name) and isinstance(constants.get(node.id), str):
        return str(constants[node.id])
    if isinstance(node, ast.IfExp):
        return " / ".join(t for t in (_text(node.body, constants), _text(node.orelse, constants)) if t)
    if isinstance(node, ast.BoolOp):
        return next(filter(None, (_text(part, constants) for part in reversed(node.values))), "")
    if isinstance(node, ast.BinOp):
        return _text(node.left, constants) + _text(node.right, constants)
    if isinstance(node, ast.JoinedStr):
        parts = []
        for part in node.values:
            value = part.value if isinstance(part, ast.FormattedValue) else part
            parts.append(_text(value, constants) if _written(value, constants) else "…")
        return re.sub(r"…+", "…", "".join(parts))
    return ""


def _written(node: ast.expr, constants: Mapping[str, object]) -> bool:
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id in constants)


def entries(source: Path, notes: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[Error, str, str]]:
    """Every error with its message and what to do; "" where nothing is said, which a test does not let pass.

    Args:
        source: the package.
        notes: what errors.yaml adds, by message: ``shown`` where the message is put together elsewhere,
            ``do`` where the error itself says too little.
    """
    for error in errors(source):
        note = next((notes[key] for key in error.keys if key in notes), {})
        yield error, note.get("shown", error.what), error.fix or note.get("do", "")


def page(source: Path, notes: Mapping[str, Mapping[str, str]]) -> str:
    """The page, by area; "…" stands for a value."""
    out = [
        "# Troubleshooting", "",
        "Every error is one line: where it is, what is wrong, what to do. All of them are listed below, "
        "with `…` in place of a name or a number; search for the words between. `--debug` after any command "
        "shows the traceback. A message that ends in \"This is a bug in Softstart\" is one.", "",
    ]  # fmt: skip
    every = list(entries(source, notes))
    for title in dict.fromkeys(AREAS.values()):
        out += [f"## {title}", "", "| message | what to do |", "|---|---|"]
        rows = {f"| {_cell(shown)} | {_cell(do)} |" for error, shown, do in every if error.area == title}
        out += [*sorted(rows), ""]
    return "\n".join(out)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "&#124;").replace("<", "&lt;")
