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
    "own": "Your own tasks",
    "gym": "The gym: tasks, rows, settings",
    "prompt": "Prompts and their files",
    "backbone": "Backbones",
    "training": "Training",
    "study": "Studies",
    "analysis": "Results and reports",
    "tiny": "The embedded model",
}
"""Headings of the page; a module belongs to the first whose pattern below matches."""

_OF = (
    (r"own_|gym/own", "own"),
    (r"^gym", "gym"),
    (r"^prompt", "prompt"),
    (r"^backbone|graphs", "backbone"),
    (r"^study", "study"),
    (r"^analysis|^report|similarity|inspection", "analysis"),
    (r"^tiny", "tiny"),
    (r"cli", "cli"),
)


class Error(NamedTuple):
    """One place that raises: where it is, its message and fix with the values left out ("task '…'")."""

    module: str
    what: str
    fix: str

    @property
    def key(self) -> str:
        """Its name in errors.yaml, where another module has the same message."""
        return f"{self.module}: {self.what}"

    @property
    def area(self) -> str:
        """The heading it belongs under."""
        return next((area for pattern, area in _OF if re.search(pattern, self.module)), "training")


def errors(source: Path) -> list[Error]:
    """All errors in the order of the files.

    A message that is nothing but another error's (``error.what``) is that error told again and left out.
    """
    found = []
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
        for node in ast.walk(tree):
            if not (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISED
            ):
                continue
            if isinstance(node.args[0], ast.Attribute):
                continue
            fix = next((k.value for k in node.keywords if k.arg == "fix"), None)
            what = _text(node.args[0], constants) or ast.unparse(node.args[0])
            found.append(Error(module, what, _text(fix, constants) if fix else ""))
    return list(dict.fromkeys(found))


def _text(node: ast.expr, constants: Mapping[str, object]) -> str:
    """A message as it is written, with "…" for every value; "" for what is not written there."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name) and isinstance(constants.get(node.id), str):
        return str(constants[node.id])
    if isinstance(node, ast.IfExp):
        return " / ".join(t for t in (_text(node.body, constants), _text(node.orelse, constants)) if t)
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


def entries(source: Path, told: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[Error, str, str]]:
    """Every error with its message and what to do; "" where nobody says it, which a test does not let pass.

    Args:
        source: the package.
        told: by message, what is added by hand: ``shown`` where the message is put together elsewhere, ``do``
            where the error itself says too little.
    """
    for error in errors(source):
        more = told.get(error.key, told.get(error.what, {}))
        yield error, more.get("shown", error.what), error.fix or more.get("do", "")


def page(source: Path, told: Mapping[str, Mapping[str, str]]) -> str:
    """The page, by area; "…" stands for a value."""
    out = [
        "# Troubleshooting", "",
        "Every error is one line: where it is, what is wrong, what to do. Below are all of them, "
        "`…` in place of a name or a number; search for the words between. `--debug` after any command "
        "shows the traceback. A message that ends in \"This is a bug in Softstart\" is one.", "",
    ]  # fmt: skip
    every = list(entries(source, told))
    for area, title in AREAS.items():
        out += [f"## {title}", "", "| message | what to do |", "|---|---|"]
        rows = {f"| {_cell(shown)} | {_cell(do)} |" for error, shown, do in every if error.area == area}
        out += [*sorted(rows), ""]
    return "\n".join(out)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
