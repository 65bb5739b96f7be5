"""Tables of the user's own, and commands on them in this process, which has torch loaded."""

from __future__ import annotations

import contextlib
import csv
import io
import random

from helpers.paths import ROOT
from softstart.cli import app as cli


def softstart(*arguments, cwd):
    """The command in this process, which has torch loaded: (code, output, errors)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli._main([str(a) for a in arguments], debug=False)
    assert "Traceback" not in err.getvalue()
    return code, out.getvalue(), err.getvalue()


def failed(*arguments, cwd):
    code, _, err = softstart(*arguments, cwd=cwd)
    assert code == 1
    return err.strip().splitlines()[-1]


def table(path, n, seed=0):
    noise = random.Random(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "body", "label"])
        for i in range(n):
            word = ("good", "bad")[i % 2]
            writer.writerow([i, f"film {noise.randrange(9)}", f"it was {word},\nreally", word])


def write_rows(path, examples):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["input", "output"])
        writer.writerows((e.input, e.outputs[0]) for e in examples if e.outputs)


def documented(mark):
    page = (ROOT / "docs" / "ecosystem.md").read_text(encoding="utf-8")
    return page.split(mark)[1].split("```python\n")[1].split("```")[0]
