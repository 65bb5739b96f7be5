"""The code blocks of a page, and a folder in which they can run."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import yaml

from helpers.paths import ROOT
from softstart.cli import app as cli
from softstart.gym import load_setting, open_gym, write_tsv

MARKS = ("slow", "gpu", "network")
"""`<!-- slow -->` before a block: it runs with `pytest -m slow`, and so on; all others run always."""

_FEW = """meta.steps=1 adaptation.steps=2 adaptation.eval_every=2 adaptation.eval_start=false
    adaptation.budgets=[] adaptation.rungs=[] finetuning.steps=1 finetuning.budgets=[] samples=[13]
    meta_seeds=[42] learning_rates=[0.3] test_rows=4 source_tasks=2
    variants={}"""

FEW_STEPS = {
    "adapt": ["--steps", "2", "--lr", "0.3", "--splits", "1"],
    "demo": [],
    "doctor": [],
    "meta-train": ["--steps", "2"],
    "run": ["--workers", "1", "--threads", "1", *(word for key in _FEW.split() for word in ("--set", key))],
    "similarity": ["--prompt-steps", "0"],
}
"""What is added to a command, so that its block takes a second: the last value of an option counts."""

ELSEWHERE = {"softstart push": "tests/prompt/test_hub.py uploads a prompt to a hub on this machine"}
"""Commands that a page shows and this runner leaves out."""


class Block(NamedTuple):
    """A fenced block: its language, its text, and the comment on the line before it."""

    language: str
    text: str
    mark: str
    line: int


def blocks(page: Path) -> list[Block]:
    """All blocks of a page that have a language."""
    text = page.read_text(encoding="utf-8")
    fence = re.compile(r"(?:<!-- ([^\n]*?) -->\n\n?)?^```([a-z]+)[^\n]*\n(.*?)^```$", re.S | re.M)
    return [Block(m[2], m[3], m[1] or "", text[: m.start(3)].count("\n")) for m in fence.finditer(text)]


def file_of(page: Path, name: str) -> str:
    """The content of a file that a page shows."""
    (text,) = (block.text for block in blocks(page) if block.mark == f"file: {name}")
    return text


def furnish(folder: Path) -> None:
    """What the pages use: tables of a user, a folder in CrossFit's format, our studies."""
    gym = open_gym("mini")
    names = load_setting("mini-cls2cls").source[:4]
    tables = {name: gym.load(name).samples[13] for name in names}
    (folder / "sources").mkdir()
    for name in names[:3]:
        _table(folder / "sources" / f"{name}.csv", "input,output", tables[name].train[:8])
    task = tables[names[3]]
    for name, rows in (("mine", task.train * 2), ("more", task.dev), ("reviews", task.train * 4)):
        _table(folder / f"{name}.csv", "input,output", rows)
    _table(folder / "new.csv", "input", task.dev[:4])
    (folder / "studies").symlink_to(ROOT / "studies")
    study = yaml.safe_load((ROOT / "studies" / "real-smoke.yaml").read_text(encoding="utf-8"))["setting"]
    for name in (*study["source"], *study["target"]):
        place = folder / "path" / "to" / "gym" / name
        place.mkdir(parents=True)
        for part, rows in (("16_13_train", task.train), ("16_13_dev", task.dev), ("test", task.dev)):
            write_tsv(place / f"{name}_{part}.tsv", rows[:4])


def _table(path: Path, head: str, rows: object) -> None:
    columns = head.count(",") + 1
    lines = (",".join(f'"{text}"' for text in (e.input, e.outputs[0])[:columns]) for e in rows)  # type: ignore
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")


def shell(text: str) -> None:
    """Run the lines of a block: ``softstart`` in this process, with few steps; all else by bash."""
    joined = text.replace("\\\n", " ")
    for line in filter(None, (line.strip() for line in joined.splitlines())):
        words = shlex.split(line, comments=True)
        if not words or any(line.startswith(command) for command in ELSEWHERE):
            continue
        if words[0] != "softstart" or {"|", "&&", ";"} & set(words):
            environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
            bash = ["bash", "-euo", "pipefail", "-c", line]
            done = subprocess.run(bash, capture_output=True, text=True, env=environment)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            continue
        with contextlib.ExitStack() as stack:
            if ">" in words:
                words, (name,) = words[: words.index(">")], words[words.index(">") + 1 :]
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(Path(name).open("w"))))
            assert cli._main(words[1:] + FEW_STEPS.get(words[1], []), debug=True) == 0, line
