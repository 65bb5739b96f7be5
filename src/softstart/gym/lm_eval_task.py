"""Tasks of lm-evaluation-harness with rows on this machine, as tables of input and output.

A multiple-choice task is a YAML file. What it makes of a row is written in Jinja. No template is run: it is
parsed, and expressions of columns, items, constants and a few functions of texts and lists are computed here.
Everything else, and code (``!function``), is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes

from softstart.errors import SoftstartError
from softstart.gym.template import Row, text_of
from softstart.storage.safe_yaml import read_yaml

SUFFIXES = (".yaml", ".yml")
SPLITS = ("training_split", "validation_split", "test_split")
"""Where the rows are, in the order in which they are looked for."""
NEEDED = ("dataset_path", "doc_to_text", "doc_to_choice", "doc_to_target")
METHODS: Mapping[str, Callable[..., Any]] = {
    "strip": str.strip, "rstrip": str.rstrip, "lstrip": str.lstrip, "lower": str.lower, "upper": str.upper,
    "capitalize": str.capitalize, "replace": str.replace, "index": lambda of, item: of.index(item),
}  # fmt: skip
"""Methods and filters that are computed."""
FILTERS = {
    "trim": "strip",
    "lower": "lower",
    "upper": "upper",
    "capitalize": "capitalize",
    "replace": "replace",
}


def is_lm_eval(path: str | Path) -> bool:
    """Whether a file is a task of lm-evaluation-harness, by its suffix and what it holds."""
    file, _ = _named(path)
    if file.suffix.lower() not in SUFFIXES or not file.is_file():
        return False
    text = file.read_bytes().decode(errors="replace")
    return "doc_to_text" in text and "dataset_path" in text


def lm_eval_rows(path: str | Path, read: Callable[[Path], Iterator[Row]]) -> Iterator[Row]:
    """The rows of a task, with their ``input``, ``output`` and own columns.

    Args:
        path: the YAML file; ``task.yaml@test`` takes another split than the first of ``SPLITS``.
        read: reads a table, by its suffix.

    Raises:
        SoftstartError: a file that cannot be read, code, a template that is not computed here, or rows on the
            hub.
    """
    file, split = _named(path)
    task = _task(file)
    text, target = (_maker(task[name], name, file) for name in ("doc_to_text", "doc_to_target"))
    choices = _maker(task["doc_to_choice"], "doc_to_choice", file)
    data = _data_file(task, file, split)
    rows = _json_rows(data) if data.suffix.lower() == ".json" else read(data)
    for number, row in enumerate(rows, 1):
        try:
            words = [text_of(choice, "doc_to_choice") for choice in choices(row)]
            answer = _answer(target(row), words)
            yield {**row, "input": text_of(text(row), "doc_to_text"), "output": answer.strip()}
        except SoftstartError as problem:
            raise SoftstartError(problem.what, where=f"{data}, row {number}", fix=problem.fix) from None
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as problem:
            raise SoftstartError(
                f"the templates of {file.name} do not fit ({type(problem).__name__}: {problem})",
                where=f"{data}, row {number}",
                fix="Correct one of the two.",
            ) from None


def _named(path: str | Path) -> tuple[Path, str]:
    name, _, split = str(path).rpartition("@")
    return (Path(name), split) if name.lower().endswith(SUFFIXES) else (Path(path), "")


def _task(file: Path) -> Mapping[str, Any]:
    try:
        text = file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as problem:
        raise SoftstartError(
            f"cannot read this task ({problem})", where=str(file), fix="Write it again."
        ) from None
    if "!function" in text:
        raise SoftstartError(
            "the task uses code of its own (!function), which is not run",
            where=str(file),
            fix="Write its rows with lm_eval --log_samples, or as a table of input and label.",
        )
    task = read_yaml(text, str(file))
    if not isinstance(task, Mapping):
        raise SoftstartError("not a task", where=str(file), fix="It must map names to values.")
    if "include" in task:
        raise SoftstartError(
            "the task includes another file", where=str(file), fix="Copy what it includes into it."
        )
    if task.get("output_type") != "multiple_choice":
        raise SoftstartError(
            f"a task of output_type {task.get('output_type')!r}",
            where=str(file),
            fix="Only multiple_choice is read.",
        )
    if missing := next((name for name in NEEDED if task.get(name) is None), None):
        raise SoftstartError(f"the task has no '{missing}'", where=str(file), fix="Add it.")
    return task


def _data_file(task: Mapping[str, Any], file: Path, split: str) -> Path:
    """The table of a split."""
    kind, options = str(task["dataset_path"]), task.get("dataset_kwargs") or {}
    files = options.get("data_files") if isinstance(options, Mapping) else None
    if kind not in ("json", "csv", "parquet") or not files:
        raise SoftstartError(
            f"the rows of this task are on the hub ('{kind}')",
            where=str(file),
            fix="Read them from there: hf:OWNER/NAME with --input and --label.",
        )
    if not isinstance(files, Mapping):
        files = {"train": files}
    wanted = split or next((str(task[name]) for name in SPLITS if task.get(name) in files), next(iter(files)))
    if wanted not in files:
        raise SoftstartError(
            f"no split '{wanted}'", where=str(file), fix=f"It has {', '.join(map(str, files))}."
        )
    found = files[wanted]
    if isinstance(found, Sequence) and not isinstance(found, str) and len(found) == 1:
        found = found[0]
    if not isinstance(found, str):
        raise SoftstartError("several files for one split", where=str(file), fix="Join them to one table.")
    path = Path(found)
    beside = file.parent / path
    return path if path.is_absolute() or (path.is_file() and not beside.is_file()) else beside


def _json_rows(path: Path) -> Iterator[Row]:
    """The rows of a JSON list, or of one object a line."""
    try:
        text = path.read_bytes().decode()
        rows = (
            json.loads(text)
            if text.lstrip().startswith("[")
            else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
    except (OSError, ValueError, RecursionError) as problem:
        raise SoftstartError(
            f"cannot read rows ({problem})", where=str(path), fix="Write valid JSON."
        ) from None
    if not all(isinstance(row, dict) for row in rows):
        raise SoftstartError("not a list of objects", where=str(path), fix="One object for each row.")
    yield from rows


def _answer(target: Any, choices: Sequence[str]) -> str:
    """The choice that a target names: by its position, or by its text."""
    if isinstance(target, str) and target in choices:
        return target
    try:
        place = int(target)
    except (TypeError, ValueError):
        raise SoftstartError(
            f"the target {target!r} is no choice", fix=f"They are {', '.join(choices)}."
        ) from None
    if not 0 <= place < len(choices):
        raise SoftstartError(
            f"the target {place} names none of {len(choices)} choices", fix="They count from 0."
        )
    return choices[place]


# --- expressions ---


def _maker(value: Any, name: str, file: Path) -> Callable[[Row], Any]:
    """What computes a field of a task for a row: a list, a column, or a template."""
    if isinstance(value, (list, int)):
        return lambda row: value
    if not isinstance(value, str):
        raise SoftstartError(
            f"the field '{name}' of the task is a {type(value).__name__}",
            where=str(file),
            fix="Write a template.",
        )
    if "{{" not in value and "{%" not in value:
        return lambda row: row.get(value, value)
    where = f"{file}: {name}"
    try:
        parts = Environment(autoescape=False).parse(value).body
    except (TemplateSyntaxError, RecursionError) as problem:
        raise SoftstartError(f"not a template ({problem})", where=where, fix="Correct it.") from None
    pieces: list[nodes.Expr] = []
    for part in parts:
        if not isinstance(part, nodes.Output):
            raise _refused(part, where)
        pieces += part.nodes
    for piece in pieces:
        _check(piece, where)
    if len(pieces) == 1 and not isinstance(pieces[0], nodes.TemplateData):
        return lambda row: _value(pieces[0], row)
    return lambda row: "".join(text_of(_value(piece, row), name) for piece in pieces)


def _refused(node: nodes.Node, where: str) -> SoftstartError:
    return SoftstartError(
        f"a template with {type(node).__name__.lower()}, which is not computed here",
        where=where,
        fix=f"Use columns, items, constants, ~, {', '.join(METHODS)}; or make a table of input and label.",
    )


def _check(node: Any, where: str) -> None:
    """Refuse everything that ``_value`` does not compute."""
    plain = (nodes.TemplateData, nodes.Const, nodes.Name, nodes.List, nodes.Concat)
    parts: list[nodes.Node] | None = None
    if isinstance(node, (*plain, nodes.Getitem, nodes.Getattr)):
        parts = list(node.iter_child_nodes())
    elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr) and node.node.attr in METHODS:
        parts = [node.node.node, *node.args]
    elif isinstance(node, nodes.Filter) and node.name in FILTERS and node.node is not None:
        parts = [node.node, *node.args]
    called = isinstance(node, (nodes.Call, nodes.Filter))
    if parts is None or (called and any((node.kwargs, node.dyn_args, node.dyn_kwargs))):
        raise _refused(node, where)
    for part in parts:
        _check(part, where)


def _value(node: Any, row: Row) -> Any:
    """The value of an expression that ``_check`` has passed."""
    if isinstance(node, nodes.TemplateData):
        return node.data
    if isinstance(node, nodes.Const):
        return node.value
    if isinstance(node, nodes.Name):
        return row if node.name == "doc" and "doc" not in row else row[node.name]
    if isinstance(node, nodes.List):
        return [_value(item, row) for item in node.items]
    if isinstance(node, nodes.Concat):
        return "".join(text_of(_value(part, row), "~") for part in node.nodes)
    if isinstance(node, nodes.Getattr):
        return _value(node.node, row)[node.attr]
    if isinstance(node, nodes.Getitem):
        return _value(node.node, row)[_value(node.arg, row)]
    if isinstance(node, nodes.Filter):
        name, of = FILTERS[node.name], _value(node.node, row)
    else:
        name, of = node.node.attr, _value(node.node.node, row)
    return METHODS[name](of, *(_value(argument, row) for argument in node.args))
