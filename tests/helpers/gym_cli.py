"""The installed command, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COMMAND = Path(sys.executable).parent / "softstart"


def gym(*arguments, cwd=None, **environment):
    """Run ``softstart gym …`` and return its code, output and errors."""
    return subprocess.run(
        [str(COMMAND), "gym", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def failed(*arguments, **options):
    """Run what must fail, and return its one line of error."""
    done = gym(*arguments, **options)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")
