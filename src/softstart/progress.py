"""How long work reports itself: units done, and a note. Whoever shows it decides how."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the units of work just done and a short note on what is going on."""

    def __call__(self, done: float, note: str = "") -> None:
        """Called often; must be cheap."""


def silent(done: float, note: str = "") -> None:
    """Show nothing."""
