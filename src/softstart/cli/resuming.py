"""What an interrupted command leaves behind; ``app`` says so in the line that ends it."""

from __future__ import annotations

from collections.abc import Callable

from softstart.errors import SoftstartError

_checks: list[Callable[[], bool]] = []


def resumable(kept: Callable[[], bool]) -> None:
    """State that the same command goes on where it was interrupted.

    Args:
        kept: whether there is anything to go on from, asked when the command is interrupted.
    """
    _checks.append(kept)


def something_kept() -> bool:
    """Whether the interrupted command can go on from something."""
    try:
        return any(kept() for kept in _checks)
    except (OSError, SoftstartError):
        return False


def begin() -> None:
    """A new command: nothing is kept yet."""
    _checks.clear()
