"""How long a piece of work took, including the time before it was interrupted."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from softstart.errors import SoftstartError
from softstart.progress import Progress
from softstart.storage.files import atomic
from softstart.study.results.folder import SECONDS

EVERY = 5.0
"""Seconds between two notes of the time spent."""


def clock(checkpoint: Path, progress: Progress) -> tuple[float, Progress]:
    """Start the clock of a piece of work that may go on from a checkpoint.

    Returns:
        (when the work began by ``time.monotonic``, as if it had never been interrupted; a progress callback
        that also writes the seconds so far next to the checkpoint now and then).
    """
    path, before = checkpoint.with_suffix(SECONDS), 0.0
    if checkpoint.exists():
        with suppress(OSError, ValueError):
            before = float(path.read_text(encoding="utf-8"))
    last = time.monotonic()
    began = last - (before if 0 <= before < 1e9 else 0.0)

    def noting(done: float, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY and checkpoint.exists():
            last = now
            # A full disk is reported when the checkpoint itself is written.
            with suppress(SoftstartError), atomic(path, durable=False) as temporary:
                temporary.write_text(f"{now - began:.1f}", encoding="utf-8")
        progress(done, note)

    return began, noting
