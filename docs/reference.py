"""Write the generated pages of the documentation; ``build.py`` calls it for the site.

Everything comes from the code itself (docstrings, the command line's own help, the models' fields, every
``SoftstartError``). The pages are kept in git, so that links to them work where the repository is read:
``python docs/reference.py`` writes them anew, and a test holds them equal.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from troubleshooting import page as errors_page
from typer.main import get_command

HERE = Path(__file__).parent
SOURCE = HERE.parent / "src" / "softstart"

PACKAGES = {
    "softstart": "Train, adapt, evaluate, run a study. What most programs need.",
    "softstart.algorithms": "Ways to learn a start, and the contract that they keep.",
    "softstart.gym": "Tasks, k-shot samples, settings.",
    "softstart.gym.metrics": "Scores of predictions.",
    "softstart.yourtasks": "Your own tables: learn a start, tune a prompt from it, predict.",
    "softstart.backbone": "Frozen models that take stacked prompts.",
    "softstart.prompt": "Soft prompts: where they start, how they are stored.",
    "softstart.training.optimizers": "Optimizers over stacked runs.",
    "softstart.training.losses": "What training minimizes.",
    "softstart.study": "Declare, run and report a comparison.",
    "softstart.analysis": "Gains with intervals, tests, speed of adaptation.",
    "softstart.diagnostics.inspection": "What a prompt looks like, and how far it moved.",
    "softstart.diagnostics.second_order": "What second order adds to a meta-gradient.",
    "softstart.diagnostics.task_similarity": "How similar tasks are, and which start a new one should take.",
    "softstart.training.spot": "SPoT: start from the nearest source prompt.",
    "softstart.report": "Tables and pages for people.",
}
"""Public modules, in reading order; their names are those of ``__all__``, or what they define."""

STUDY = {
    "Study": "softstart.study.declare.spec",
    "SettingSpec": "softstart.study.declare.spec",
    "PromptSpec": "softstart.training.configs",
    "TextFormat": "softstart.training.encoding",
    "MetaConfig": "softstart.training.configs",
    "Optimizer": "softstart.training.optimizers",
    "AdaptConfig": "softstart.training.configs",
    "FineTuneConfig": "softstart.training.configs",
    "Evaluation": "softstart.training.evaluation",
    "Decoding": "softstart.backbone",
}
"""The models of a study file."""


def public_names(module: str) -> list[str]:
    """The public functions and classes of a module."""
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", None)
    if names is None:
        names = [n for n, o in vars(loaded).items() if getattr(o, "__module__", "") == module and n[0] != "_"]
    kinds = (inspect.isclass, inspect.isfunction)
    return sorted((n for n in names if any(is_kind(getattr(loaded, n)) for is_kind in kinds)), key=str.lower)


class Definition(NamedTuple):
    """A class or function as it is written: its syntax, its module and the line it begins at."""

    node: ast.ClassDef | ast.FunctionDef
    module: str

    @property
    def doc(self) -> str:
        """The docstring."""
        return ast.get_docstring(self.node) or ""

    @property
    def fields(self) -> list[tuple[str, str, str, str]]:
        """Name, type, default and docstring of each annotated field of a class."""
        defined = []
        body = self.node.body
        for at, item in enumerate(body):
            if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
                continue
            if item.target.id.startswith("_") or "ClassVar" in ast.unparse(item.annotation):
                continue
            after = body[at + 1] if at + 1 < len(body) else None
            described = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            text = str(after.value.value) if described else ""  # type: ignore[union-attr]
            default = ast.unparse(item.value) if item.value else ""
            defined.append(
                (item.target.id, _type(ast.unparse(item.annotation)), default, inspect.cleandoc(text))
            )
        return defined

    @property
    def methods(self) -> list[Definition]:
        """Public methods and properties of a class."""
        return [
            Definition(item, self.module)
            for item in self.node.body
            if isinstance(item, ast.FunctionDef) and not item.name.startswith("_")
        ]

    @property
    def signature(self) -> str:
        """The call, as it is written; of a class, the call that makes one."""
        node: Any = self.node
        if isinstance(node, ast.ClassDef):
            init = [i for i in node.body if isinstance(i, ast.FunctionDef) and i.name == "__init__"]
            if not init:
                return f"{node.name}({', '.join(_field(*f) for f in self.fields)})"
            return f"{node.name}({_arguments(init[0])})"
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"{node.name}({_arguments(node)}){returns}"


def _field(name: str, kind: str, default: str, doc: str) -> str:
    return f"{name}: {kind} = {default}" if default else f"{name}: {kind}"


def _arguments(node: ast.FunctionDef) -> str:
    return re.sub(r"^(self|cls)(, )?", "", ast.unparse(node.args))


def definition(module: str, name: str) -> Definition:
    """Where a public name is defined, as syntax."""
    thing = getattr(importlib.import_module(module), name)
    home = thing.__module__
    tree = ast.parse(Path(str(importlib.import_module(home).__file__)).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == thing.__name__:
            return Definition(node, home)
    raise LookupError(f"{module}.{name}")


# --- the pages ---


def api_page(module: str) -> str:
    """One module: every public name with its signature, docstring, fields and methods."""
    out = [f"# {module}", "", PACKAGES[module], ""]
    for name in public_names(module):
        defined = definition(module, name)
        out += [f"## {name}", "", *_block(defined), *_docstring(defined.doc)]
        if isinstance(defined.node, ast.ClassDef):
            if any(doc for *_, doc in defined.fields):
                out += [*_table("field", "type", "default", ""), *map(_row, defined.fields), ""]
            for method in defined.methods:
                out += [f"### {name}.{method.node.name}", "", *_block(method), *_docstring(method.doc)]
        out += [f"Defined in `{defined.module}`.", ""]
    return "\n".join(out)


def _block(defined: Definition) -> list[str]:
    return ["```python", _wrapped(defined.signature), "```", ""]


def _wrapped(signature: str) -> str:
    """One argument a line, where the call is long."""
    if len(signature) <= 88:
        return signature
    arguments, depth, parts = signature.partition("(")[2], 0, [""]
    end = len(arguments)
    for at, char in enumerate(arguments):
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            end = at
            break
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    lines = "".join(f"    {part.strip()},\n" for part in parts)
    return f"{signature.partition('(')[0]}(\n{lines}{arguments[end:]}"


def _docstring(text: str) -> list[str]:
    """Our docstrings as Markdown: sections become lists, ``code`` becomes `code`."""
    out: list[str] = []
    for block in re.split(r"\n\n(?=\w+:\n)", text):
        title, _, body = block.partition("\n")
        if title in ("Args:", "Raises:", "Returns:") and body:
            out += ["", f"**{title[:-1]}**", ""]
            out += ["- " + re.sub(r"^(\w+):", r"`\1`:", item) for item in _items(inspect.cleandoc(body))]
        else:
            out += ["", *_plain(block)]
    return [re.sub(r"``(.+?)``", r"`\1`", line) for line in out] + [""]


def _items(body: str) -> Iterator[str]:
    for item in re.split(r"\n(?=\S)", body):
        yield " ".join(item.split())


def _plain(text: str) -> Iterator[str]:
    """Indented parts of a docstring are formulas: keep their lines."""
    code = False
    for line in text.splitlines():
        if line.startswith("    ") != code:
            code = not code
            yield "```"
        yield line
    if code:
        yield "```"


def commands() -> dict[str, Any]:
    """Every command of the command line by its full name."""
    from softstart.cli.app import app

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
            return
        for word, sub in inner.items():
            yield from walk(f"{name} {word}", sub)

    return dict(walk("softstart", get_command(app)))


def command_page() -> str:
    """Every command: what it does, its arguments and options, examples."""
    from softstart.cli.listing import list_registered

    out = ["# Command line", "", "The same as `softstart COMMAND --help`.", ""]
    for name, command in commands().items():
        list_registered(command)
        context = command.context_class(command, info_name=name)
        usage = " ".join(command.get_usage(context).split()).removeprefix("Usage: ")
        summary, _, examples = inspect.cleandoc(command.help or "").partition("\b\n")
        out += [f"## {name}", "", "```text", usage, "```", "", summary.strip(), ""]
        if examples:
            out += ["```bash", *(line.strip() for line in examples.splitlines()[1:]), "```", ""]
        records = [p.get_help_record(context) for p in command.params if p.name != "help"]
        if rows := [(f"`{name.strip()}`", meaning) for name, meaning in filter(None, records)]:
            out += [*_table("argument or option", "meaning"), *map(_row, rows), ""]
    return "\n".join(out)


def study_page() -> str:
    """Every key of a study file."""
    from softstart.training.losses import LOSSES
    from softstart.training.methods import BASELINES, LEARNERS
    from softstart.training.optimizers import OPTIMIZERS

    out = [
        "# Study files", "",
        "A study is one YAML file. A key left out has the default shown; an unknown key is an error. "
        "`--set a.b=c` overrides any of them. [study.schema.json](study.schema.json) is the same as a JSON "
        "schema: an editor that reads a first line `# yaml-language-server: $schema=study.schema.json` "
        "completes and checks keys as you type.", "",
    ]  # fmt: skip
    for name, module in STUDY.items():
        out += _model(name, module)
    chosen = {
        "Algorithms": (LEARNERS, "Under `methods`, a method's name (or its `algorithm`) is one of these."),
        "Baselines": (BASELINES, "The same goes for methods that learn nothing from source tasks."),
        "Optimizers": (
            OPTIMIZERS,
            "The `name` of an `optimizer`; the keys of `Optimizer` are theirs too.",
        ),
        "Losses": (LOSSES, "The `name` of a `loss`."),
    }
    for title, (registry, text) in chosen.items():
        out += [f"## {title}", "", f"{text} The import path of a class of your own works too.", ""]
        for kind, made in registry.items():
            defined = definition(made.__module__, made.__name__)
            out += [f"### {kind}", "", *_docstring(defined.doc)]
            if defined.fields:
                out += [*_table("key", "type", "default", ""), *map(_row, defined.fields), ""]
    return "\n".join(out)


def task_page() -> str:
    """Every key of a catalog entry."""
    out = [
        "# Task files", "",
        "The catalog of tasks, and a catalog of your own (`softstart gym build --catalog FILE`), is YAML: "
        "`tasks` maps names to entries, `shared` holds what all entries of the file have in common.", "",
    ]  # fmt: skip
    module = "softstart.gym.catalog.schema"
    names = [n for n in vars(importlib.import_module(module)) if not n.startswith("_")]
    for name in sorted(names, key=lambda n: n != "Entry"):
        thing = getattr(importlib.import_module(module), name)
        if inspect.isclass(thing) and thing.__module__ == module and definition(module, name).fields:
            out += _model(name, module)
    return "\n".join(out)


def _model(name: str, module: str) -> list[str]:
    defined = definition(module, name)
    return [
        f"## {name}", "", *_docstring(defined.doc),
        *_table("key", "type", "default", ""), *map(_row, defined.fields), "",
    ]  # fmt: skip


def _table(*heads: str) -> list[str]:
    return [_row(heads), _row(["---"] * len(heads))]


def _type(annotation: str) -> str:
    """A type as people read it: aliases of constraints spelled out."""
    annotation = re.sub(r"Annotated\[(.+), (?:Added|Unkeyed|AfterValidator)\(.*\)\]", r"\1", annotation)
    annotation = re.sub(r"Annotated\[(.+), Field\((.*?)\)\]", r"\1 (\2)", annotation)
    for alias, plain in (
        ("Positive", "int > 0"),
        ("Rates", "list of numbers > 0"),
        ("min_length=1", "not empty"),
    ):
        annotation = re.sub(rf"\b{alias}(?![\w])", plain, annotation)
    return re.sub(r"Literal\[(.+?)\]", lambda m: m[1].replace(", ", " | "), annotation)


def _row(cells: Any) -> str:
    code = len(cells) == 4 and cells[0] not in ("field", "key", "---")
    shown = [
        f"`{c}`" if code and c and i < 3 else re.sub(r"``(.+?)``", r"`\1`", c) for i, c in enumerate(cells)
    ]
    return "| " + " | ".join(without_bars(" ".join(s.split())) for s in shown) + " |"


def without_bars(cell: str) -> str:
    """A cell without a bar, which would end it: an escape shows as a backslash in code on some renderers."""

    def code(found: re.Match[str]) -> str:
        return found[0].replace(" | ", " or ").replace("|", "/")

    return re.sub(r"`[^`]*`", code, cell).replace("|", "&#124;")


def write(folder: Path) -> list[str]:
    """Write all generated pages into ``folder``; their names."""
    from softstart.study.declare.spec import Study

    pages = {f"{module}.md": api_page(module) for module in PACKAGES}
    pages |= {"cli.md": command_page(), "study.md": study_page(), "task.md": task_page()}
    pages |= {
        "errors.md": errors_page(SOURCE, yaml.safe_load((HERE / "errors.yaml").read_text(encoding="utf-8")))
    }
    pages["study.schema.json"] = json.dumps(Study.model_json_schema(), indent=1) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (folder / name).write_text(re.sub(r"\n{3,}", "\n\n", text), encoding="utf-8")
    return sorted(pages)


if __name__ == "__main__":
    print("\n".join(write(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "reference")))
