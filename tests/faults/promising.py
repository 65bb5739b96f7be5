"""``python -m faults.promising run …``: softstart, which tells the tracer what it has promised to keep."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from faults.power import MARK

NOWHERE = 1000
"""A descriptor that is not open: what is written there is seen by the tracer alone."""
ALL = "all"
"""Promised by a command that ends with 0."""


def promise(names: list[str]) -> None:
    """Tell the tracer."""
    with suppress(OSError):
        os.write(NOWHERE, (MARK + "\n".join(names)).encode())


def main() -> None:
    from softstart.cli import app
    from softstart.study.results.sqlite_store import SQLiteStore

    write = SQLiteStore.write

    def noted(store, rows, delete=None):
        write(store, rows, delete)
        named = [row for table in ("meta_trainings", "runs", "tests") for row in rows.get(table, ())]
        promise([row["key"] if "key" in row else f"test of {row['run']} {row['step']}" for row in named])

    SQLiteStore.write = noted
    code = app._main(sys.argv[1:], debug=False)
    if code == 0:
        promise([ALL])
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
