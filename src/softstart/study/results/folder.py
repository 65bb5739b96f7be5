"""The files of a study folder: every name is declared here."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import IO

from softstart.errors import SoftstartError
from softstart.storage.files import check_output_folder, sync

STUDY_FILE = "study.yaml"
"""The study as it was run, every default filled in."""
DATABASE = "study.db"
"""The results (see ``store``)."""
LOCK = "study.lock"
"""Held by the process that writes."""
PROGRESS = "progress.json"
"""The progress of that process (see ``softstart.study.run.status``)."""
JOIN = "join.json"
"""Where it accepts further workers (see ``softstart.study.run.joining``)."""
PROMPTS = "prompts"
"""The folder of learned prompts and starts, one file each."""
CHECKPOINTS = "checkpoints"
"""The folder of checkpoints of running work."""
RESULTS, RUNS, CURVES = "results.csv", "runs.csv", "curves.csv"
"""The tables (see ``softstart.study.results.frames``)."""
REPORT = "report.html"
"""The page for people."""
REPORT_FILES = "report"
"""The folder of its tables and figures as files."""
SIMILARITY = "similarity.json"
"""What ``softstart similarity`` measured."""

KEY = "(pack-|test-)?[0-9a-f]{16}"
"""What the name of a file of prompts or of a checkpoint begins with: a key (see ``study.plan.keys``)."""
TENSORS = ".safetensors"
SECONDS = ".seconds"
"""Ending of the file next to a checkpoint that holds the seconds spent so far."""


def prompt_path(folder: Path, key: str) -> Path:
    """The file of a learned prompt or start."""
    return folder / PROMPTS / f"{key}{TENSORS}"


def checkpoint_path(folder: Path, key: str) -> Path:
    """The checkpoint of a piece of work."""
    return folder / CHECKPOINTS / f"{key}{TENSORS}"


def stored_prompts(folder: Path) -> set[str]:
    """Keys of all learned prompts and starts in the folder."""
    return {path.stem for path in (folder / PROMPTS).glob(f"*{TENSORS}")}


def drop_checkpoint(folder: Path, key: str) -> None:
    """Remove the checkpoint of work that is finished."""
    for suffix in (TENSORS, SECONDS):
        checkpoint_path(folder, key).with_suffix(suffix).unlink(missing_ok=True)


def drop_checkpoints(folder: Path) -> None:
    """Remove everything that interrupted work left behind, once nothing can resume from it.

    Only files under a name that Softstart gives are removed.
    """
    for name, endings in ((CHECKPOINTS, rf"({TENSORS}|{SECONDS}|.*\.tmp)"), (PROMPTS, r".*\.tmp")):
        left = re.compile(rf"\.?{KEY}{endings}")
        for file in (folder / name).glob("*"):
            if left.fullmatch(file.name):
                file.unlink(missing_ok=True)


def check_study_folder(folder: Path) -> None:
    """Refuse a folder that a study cannot be written to.

    Raises:
        SoftstartError: it cannot be written, or holds files but no study.
    """
    check_output_folder(folder, _is_ours)


def _is_ours(folder: Path) -> bool:
    """Whether a study was begun here, or all that there is was left by one whose folder was removed."""
    if (folder / DATABASE).exists() or (folder / LOCK).exists():
        return True
    left = re.compile(rf"({CHECKPOINTS}|{PROMPTS})(/\.?{KEY}.*)?|{PROGRESS}|{JOIN}")
    return all(left.fullmatch(path.relative_to(folder).as_posix()) for path in folder.rglob("*"))


def refuse_moved(folder: Path, lock_file: IO[str]) -> None:
    """Refuse to go on with a folder that is no longer the one that was locked.

    Raises:
        SoftstartError: it was removed, renamed or replaced.
    """
    if not same_file(os.fstat(lock_file.fileno()), folder / LOCK):
        raise moved(folder)


def same_file(facts: os.stat_result, path: Path) -> bool:
    """Whether what was opened is still what is there under its name."""
    try:
        return os.path.samestat(facts, os.stat(path))
    except OSError:
        return False


def moved(path: Path) -> SoftstartError:
    """The error for what is no longer there under its name."""
    return SoftstartError(
        "was removed, renamed or replaced while the study was running; nothing more is written",
        where=str(path),
        fix="Put it back, or choose another folder (--out), and run again.",
    )


def lock(folder: Path) -> IO[str]:
    """The lock file of a study folder, held until it is closed and with our process id in it.

    Raises:
        SoftstartError: the folder cannot be written or holds other files, or another process has the lock.
    """
    check_study_folder(folder)
    try:
        fresh = [each for each in (folder, *folder.absolute().parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
        (folder / PROMPTS).mkdir(exist_ok=True)
        sync([folder / LOCK, *fresh])
    except OSError as problem:
        raise SoftstartError(
            f"cannot write ({problem.strerror})",
            where=str(folder),
            fix="Choose a writable folder (--out).",
        ) from problem
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise SoftstartError(
                f"another process is working on this study (pid {holder or 'unknown'})",
                where=str(folder),
                fix="Wait for it, work for it (--join), or use another --out.",
            ) from problem
        except OSError as problem:
            file.close()
            raise SoftstartError(
                f"this file system cannot lock files ({problem.strerror}), which a study needs",
                where=str(folder),
                fix="Choose a folder on another disk (--out).",
            ) from problem
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
