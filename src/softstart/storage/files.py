"""Files that are either complete or absent."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from softstart.errors import SoftstartError, listed


@contextmanager
def atomic(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path next to ``path``, which replaces it when the block ends without an error.

    A power failure leaves the old file or the new one; once the block has ended, the new one.

    Args:
        path: its folder is made if it is not there.
        durable: False for what costs nothing to lose, and for what the caller syncs with more (``sync``).

    Raises:
        SoftstartError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            _on_disk(temporary)
        os.replace(temporary, path)
        if durable and os.name == "posix":
            _on_disk(path.parent)
    except OSError as problem:
        raise SoftstartError(
            f"cannot write ({problem.strerror or problem})",
            where=str(path),
            fix="Choose a writable folder with free space (--out).",
        ) from problem
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync(paths: Collection[Path]) -> None:
    """Have the disk hold files and their names, so that a power failure does not lose or empty them.

    Raises:
        SoftstartError: the disk reports an error.
    """
    # Windows has no way to do this for a folder.
    folders = {path.parent for path in paths} if os.name == "posix" else set()
    for path in (*paths, *folders):
        try:
            _on_disk(path)
        except OSError as problem:
            raise SoftstartError(
                f"cannot write ({problem.strerror})",
                where=str(path),
                fix="Choose a writable folder with free space (--out).",
            ) from problem


def _on_disk(path: Path) -> None:
    """Wait until the disk holds a file or the names in a folder."""
    # Windows can do this only to what is open for writing.
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_output_folder(folder: Path, ours: Callable[[Path], bool]) -> None:
    """Refuse a folder that cannot be written, or that holds files of others; hidden files do not count.

    Args:
        folder: where a command is going to write; it need not be there yet, and is not made.
        ours: whether a folder with files in it was written by this command before.

    Raises:
        SoftstartError: naming the folder, and what is in it.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    fix = "Choose a new or empty folder (--out)."
    try:
        if not there.is_dir():
            raise SoftstartError("not a folder", where=str(there), fix=fix)
        if not os.access(there, os.W_OK | os.X_OK):
            raise SoftstartError("cannot write (Permission denied)", where=str(there), fix=fix)
        held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        visible = [name for name in held if not name.startswith(".")]
        if visible and not ours(folder):
            raise SoftstartError(
                f"holds files that Softstart did not write ({listed(visible)}), which could be overwritten",
                where=str(folder),
                fix=fix,
            )
    except OSError as problem:
        raise SoftstartError(f"cannot write ({problem.strerror})", where=str(folder), fix=fix) from problem


def only_a_path(name: str) -> bool:
    """Whether a name can be a path alone and no hub id, which is ``NAME`` or ``OWNER/NAME``.

    >>> only_a_path("./start"), only_a_path("a/b/c"), only_a_path("owner/name")
    (True, True, False)
    """
    parts = re.split(r"[/\\]", name)
    if len(parts) > 2 or "\\" in name or name.startswith((".", "~")):
        return True
    return len(parts) == 2 and Path(parts[0] or "/").is_dir()
