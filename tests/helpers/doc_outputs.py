"""The outputs that tutorials show: pages are run as they are, and what they print is compared or written.

``PYTHONPATH=tests python -m helpers.doc_outputs PAGE …`` writes the outputs of pages anew.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from helpers.doc_blocks import Block, blocks, furnish
from helpers.paths import ROOT

OUTPUT = "output"
"""`<!-- output -->` before a block of text: what the block before it prints."""
NUMBER = re.compile(r"[-+−]?\d+(?:,\d{3}(?!\d))*(?:\.\d+)?(?:e[-+]?\d+)?")
TOLERANCE = 10
"""How far a score, in points, may be from the one shown: processors round differently, and tuning adds up."""
TIME = re.compile(r"(?:\d+ h )?(?:\d+ min )?\d+(?:\.\d+)? (?:s|min)\b")
_STEPS = r".*(?: so far.*| in all| elapsed, ETA .*|notice.*pip.*)"
PASSING = re.compile(rf"^(?:{_STEPS}|memory is short: .*|note: texts are read once: .*)$\n?", re.M)
"""Lines of progress and of memory, which depend on the machine and on what else it does."""


def shown(page: Path) -> list[tuple[Block, Block]]:
    """The blocks of a page that have an output, each with it."""
    every = blocks(page)
    return [(before, after) for before, after in pairwise(every) if after.mark == OUTPUT]


def outputs(page: Path, folder: Path) -> Iterator[tuple[Block, str]]:
    """Run the blocks of a page in a folder, in order; those with an output come with what they print.

    Blocks that the page marks as not to be run are left out, and so are those after the last output.
    """
    furnish(folder)
    wanted = {before.line: before for before, _ in shown(page)}
    names = {"__name__": "__main__"}
    with contextlib.chdir(folder):
        sys.path.insert(0, str(folder))
        for block in blocks(page):
            if block.line > max(wanted, default=-1):
                break
            text = _run(block, page, names)
            if block.line in wanted:
                yield block, tidy(text)
        sys.path.remove(str(folder))


def _run(block: Block, page: Path, names: dict[str, object]) -> str:
    if file := re.fullmatch(r"file: (\S+)", block.mark):
        Path(file[1]).parent.mkdir(parents=True, exist_ok=True)
        Path(file[1]).write_text(block.text, encoding="utf-8")
    elif block.mark not in ("", "slow") and "test_outputs.py" not in block.mark:
        return ""
    elif block.language == "bash":
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        sources = os.pathsep.join([str(ROOT / "src"), str(Path.cwd())])
        environment = {**os.environ, "PATH": path, "COLUMNS": "110", "PYTHONPATH": sources}
        environment["OMP_NUM_THREADS"] = "1"  # another number rounds otherwise, which small tests amplify
        environment.pop("SOFTSTART_CACHE", None)  # the models that are kept on this machine
        call = ["bash", "-euo", "pipefail", "-c", block.text]
        done = subprocess.run(
            call, text=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert done.returncode == 0, f"{page}, line {block.line}\n{done.stdout}"
        return done.stdout
    elif block.language == "python":
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(block.text, f"{page}, line {block.line}", "exec"), names)
        return said.getvalue()
    return ""


def tidy(text: str) -> str:
    """An output as a page shows it: without spaces at the ends of lines, blank lines and passing ones."""
    lines = (line.rstrip() for line in PASSING.sub("", text).splitlines())
    return "\n".join(line for line in lines if line) + "\n"


def agrees(shown: str, printed: str) -> bool:
    """Whether an output is as shown: the same words, whole numbers too, and scores within ``TOLERANCE``.

    A number with a decimal point is a score. On a line with scores whole numbers may differ, such as the
    best step. A gain, which has a sign, may differ by half its size where that is more. Times are not
    compared, and … stands for anything; as a line, for any lines.
    """
    lines = [_squeezed(line) for line in printed.splitlines()]
    found = re.fullmatch(_pattern(shown), "\n".join(lines), re.S)
    if found is None:
        return False
    numbers = iter(found.groups())
    return all(
        _near(number, next(numbers), scores="." in "".join(NUMBER.findall(line)))
        for line in map(_squeezed, shown.splitlines())
        for number in NUMBER.findall(line)
    )


def _squeezed(line: str) -> str:
    return " ".join(TIME.sub("TIME", line).split())


def _pattern(shown: str) -> str:
    """What an output has to match: a group for every number that is shown."""
    lines = []
    for line in map(_squeezed, shown.splitlines()):
        parts = [re.escape(part).replace("…", ".*") for part in NUMBER.split(line)]
        lines.append(f"({NUMBER.pattern})".join(parts))
    return "\n".join(lines)


def _near(shown: str, printed: str, scores: bool) -> bool:
    if not scores:
        return shown == printed
    a, b = (float(text.replace(",", "").replace("−", "-").rstrip(".")) for text in (shown, printed))
    return abs(a - b) <= max(TOLERANCE, abs(a) / 2 if shown[0] in "+−-" else 0)


def write(page: Path) -> None:
    """Put what a page's blocks print into the page, where it shows something else."""
    with tempfile.TemporaryDirectory() as folder:
        printed = [text for _, text in outputs(page, Path(folder))]
    text = page.read_text(encoding="utf-8")
    for (_, after), new in reversed(list(zip(shown(page), printed, strict=True))):
        if after.text.strip("\n") and agrees(after.text, new):
            continue
        lines = text.splitlines(keepends=True)
        first = after.line
        lines[first : first + after.text.count("\n")] = [new]
        text = "".join(lines)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write(Path(name).resolve())
