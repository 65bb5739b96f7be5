"""Files that are either complete or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from softstart.errors import SoftstartError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path next to ``path``, which replaces it when the block ends without an error.

    Raises:
        SoftstartError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as problem:
        raise SoftstartError(
            f"cannot write ({problem.strerror or problem})",
            where=str(path),
            fix="Choose a writable folder with free space (--out).",
        ) from problem
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
