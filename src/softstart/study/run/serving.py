"""What a worker process does: take pieces of work from a connection and send back their outcomes."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from softstart.study.run.executors import attempt
from softstart.study.run.work import Worker

REPORT_SECONDS = 0.2
"""Seconds between two reports of progress, at least."""


class Line(Protocol):
    """A connection that carries messages."""

    def send(self, message: Any, /) -> None:
        """Send a message."""

    def recv(self) -> Any:
        """Wait for the next one."""


@dataclass(frozen=True)
class Broken:
    """What a worker sends before it ends on an error that no input explains: a bug."""

    traceback: str


def serve(connection: Line, worker: Worker, ended: Callable[[object], object] = bool) -> None:
    """Do the work that comes until the other side is gone; ``ended`` receives each outcome."""
    try:
        while True:
            item = connection.recv()
            outcome = attempt(worker, item, _Reporter(connection))
            connection.send(outcome)
            ended(outcome)
    except (EOFError, ConnectionError):
        return
    except Exception:
        connection.send(Broken(traceback.format_exc()))


class _Reporter:
    """Sends progress now and then."""

    def __init__(self, connection: Any) -> None:
        self.connection, self.share, self.last = connection, 0.0, time.monotonic()

    def __call__(self, done: float, note: str = "") -> None:
        self.share += done
        if time.monotonic() - self.last >= REPORT_SECONDS:
            self.connection.send((self.share, note))
            self.share, self.last = 0.0, time.monotonic()
