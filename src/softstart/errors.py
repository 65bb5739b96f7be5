"""The one error a user sees: what is wrong, where, and how to mend it."""

from __future__ import annotations


class SoftstartError(Exception):
    """Bad input or a failed run, told in one line.

    Args:
        what: the thing that is wrong ("unknown task 'emoo'").
        where: the file, line, key or run it concerns, if there is one.
        mend: what the user can do about it.
    """

    def __init__(self, what: str, *, where: str | None = None, mend: str | None = None) -> None:
        self.what, self.where, self.mend = what, where, mend
        message = what if where is None else f"{where}: {what}"
        super().__init__(message if mend is None else f"{message}. {mend}")
