"""The one error a user sees: what is wrong, where, and how to fix it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches


class SoftstartError(Exception):
    """Bad input or a failed run, reported in one line.

    Args:
        what: the thing that is wrong ("unknown task 'emoo'").
        where: the file, line, key or run it concerns, if there is one.
        fix: what the user can do about it.
    """

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        message = what if where is None else f"{where}: {what}"
        super().__init__(message if fix is None else f"{message}. {fix}")


class Diverged(SoftstartError):
    """Training whose loss is no longer finite: the same again would end the same way."""


class Damaged(SoftstartError):
    """A file that is not, or no longer, what was written under its name."""


def memory_words(problem: Exception) -> bool:
    """Whether an error of a library says that memory ran out, without being a ``MemoryError``."""
    said = (
        "allocate memory",
        "could not create a primitive",
        "bad_alloc",
        "start new thread",
        "error return without exception set",  # a C extension that found no memory for the exception
    )
    return any(words in str(problem) for words in said)


def did_you_mean(name: str, known: Collection[str]) -> str:
    """A sentence with the known names nearest to an unknown one; empty if nothing is near."""
    containing = sorted(k for k in known if name.lower() in k.lower())
    near = list(dict.fromkeys([*get_close_matches(name, known, n=3), *containing]))[:3]
    return f"Did you mean {' or '.join(near)}?" if near else ""


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names for a message: the first few, and how many more there are.

    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
