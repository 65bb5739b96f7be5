"""Runs commands: in a forked child that has everything loaded already, or as the real program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRAM = str(Path(sys.executable).parent / "softstart")
LIMIT = 600.0
"""Seconds after which a command counts as hung."""

Shim = Callable[[], None]
"""What the child does to its own world before the command runs there."""


@dataclass
class Ended:
    """How a command ended: exit code (negative: the signal), and what it said."""

    code: int
    said: str
    hung: bool = False

    @property
    def traceback(self) -> bool:
        """Whether it showed its insides."""
        return "Traceback (most recent call last)" in self.said or "This is a bug in Softstart" in self.said

    @property
    def last(self) -> str:
        """Its last line."""
        return ([line for line in self.said.splitlines() if line.strip()] or [""])[-1]


@dataclass
class Running:
    """A command under way; ``log`` takes what it says."""

    pid: int
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        if self.process:
            return self.process.poll()
        if self.pid:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if not done:
                return None
            self.pid, self._code = 0, os.waitstatus_to_exitcode(status)
        return self._code

    def send(self, which: int) -> None:
        """Send a signal to it alone."""
        if self.poll() is None:
            os.kill(self.pid or self.process.pid, which)

    def wait(self, limit: float = LIMIT) -> Ended:
        """Wait for its end; one that does not come is made."""
        deadline, hung = time.monotonic() + limit, False
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
                hung = True
            time.sleep(0.005)
        return Ended(code, self.log.read_text(errors="replace"), hung)


def start(arguments: Sequence[str], log: Path, *, real: bool = False, shim: Shim | None = None) -> Running:
    """Begin a command; ``real`` starts the installed program, which takes its time to load."""
    if real and shim is None:
        with log.open("wb") as file:
            process = subprocess.Popen([PROGRAM, *arguments], stdout=file, stderr=file, env=_environment())
        return Running(process.pid, log, process)
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    pid = os.fork()
    if not pid:
        # As a program begins, before it has said what is to be done about them.
        for which in signals:
            signal.signal(which, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        _child(arguments, log, shim)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    return Running(pid, log)


def _child(arguments: Sequence[str], log: Path, shim: Shim | None) -> None:
    """Never returns."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = (os.fdopen(fd, "w", buffering=1, closefd=False) for fd in (1, 2))
    os.environ.update(_environment())
    code = 70
    try:
        from softstart.__main__ import main

        sys.argv = ["softstart", *arguments]
        if shim:
            shim()
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
