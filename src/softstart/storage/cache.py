"""The cache folder: what can be had again, kept so that it is had once.

It is ``$SOFTSTART_CACHE`` (``off`` switches it off), else ``softstart`` below the user's cache folder. It is
safe to delete while nothing runs: texts are tokenized again, backbones fetched again.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from softstart.errors import SoftstartError


def cache_folder() -> Path | None:
    """The folder of the cache, or None if it is switched off."""
    given = os.environ.get("SOFTSTART_CACHE")
    if given is not None:
        return None if given.lower() in ("", "off", "0") else Path(given).expanduser()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "softstart"
    except RuntimeError:
        return None


@contextmanager
def exclusive(folder: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold ``folder`` for this process; others wait until the block ends or the process dies.

    On a file system without locks nothing is held: what is written must take its place by a rename.

    Args:
        folder: made if it is not there.
        waiting: called once if another process holds it.

    Raises:
        SoftstartError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a")
    except OSError as problem:
        raise _unwritable(folder, problem) from problem
    with file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                pass
        yield


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``path``, replacing it, when the block ends without an error.

    Call it while the parent is held (``exclusive``): what killed processes left behind is deleted.

    Raises:
        SoftstartError: the folder cannot be written or the disk is full.
    """
    try:
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            shutil.rmtree(left)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.mkdir(parents=True)
    except OSError as problem:
        raise _unwritable(path, problem) from problem
    try:
        yield temporary
        for file in temporary.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    except OSError as problem:
        raise _unwritable(path, problem) from problem
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary)


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what a disk has no room for.

    Args:
        folder: where it would be written; the nearest folder that exists is asked.
        needed: bytes.

    Raises:
        SoftstartError: less is free.
    """
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise SoftstartError(
            f"{needed / 1e9:.2f} GB are needed here and {free / 1e9:.2f} GB are free",
            where=str(folder),
            fix="Free some space, or set SOFTSTART_CACHE to a folder with more.",
        )


def _unwritable(path: Path, problem: OSError) -> SoftstartError:
    return SoftstartError(
        f"cannot write ({problem.strerror or problem})",
        where=str(path),
        fix="Free some space, or set SOFTSTART_CACHE to a writable folder.",
    )
