"""Worker processes on this machine: each loads the backbone once, computes with one thread and may die."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from softstart.study.executors import Failure, Report, Setup, attempt
from softstart.study.work import Done, Item

TRIES = 3
"""How often a piece of work is begun when its worker dies."""
REPORT_SECONDS = 0.2
"""How often a worker reports progress, at most."""


@dataclass(frozen=True)
class _Broken:
    """What a worker sends before it ends on an error that is nobody's input: a bug."""

    traceback: str


@dataclass
class _Process:
    process: BaseProcess
    connection: Connection
    item: Item | None = None
    tries: int = 1


class LocalProcesses:
    """Worker processes on this machine, started when there is work for them.

    A process that dies takes nothing with it: its piece of work is begun again by a new one, from the last
    checkpoint, up to three times in all.
    """

    def __init__(self, setup: Setup, workers: int) -> None:
        self.setup, self.slots = setup, workers
        self._processes: list[_Process] = []
        self._context = multiprocessing.get_context("spawn")
        self._started = 0

    def submit(self, item: Item) -> None:
        """Hand it to an idle process, or to a new one."""
        idle = [p for p in self._processes if p.item is None]
        self._give(idle[0] if idle else self._start(), item)

    def collect(self, report: Report) -> tuple[Item, Done | Failure]:
        """Wait for the next end of a piece of work."""
        while True:
            busy = {p.connection: p for p in self._processes if p.item is not None}
            for connection in wait(list(busy)):
                process = busy[connection]  # type: ignore[index]
                item = process.item
                assert item is not None
                try:
                    message = process.connection.recv()
                except (EOFError, OSError):
                    if failure := self._died(process, item):
                        return item, failure
                    continue
                if isinstance(message, _Broken):
                    raise RuntimeError(f"a worker process failed at {item.name}\n{message.traceback}")
                if isinstance(message, (Done, Failure)):
                    process.item = None
                    return item, message
                report(item, *message)

    def close(self) -> None:
        """End all processes; what they were doing goes on from its checkpoint another time."""
        for p in self._processes:
            p.process.terminate()
        for p in self._processes:
            p.process.join(timeout=5)
            if p.process.is_alive():
                p.process.kill()
                p.process.join()
            p.connection.close()
        self._processes.clear()

    def _start(self) -> _Process:
        ours, theirs = self._context.Pipe()
        setup = replace(self.setup, device=_device(self.setup.device, self._started))
        self._started += 1
        process = self._context.Process(target=_serve, args=(theirs, setup), daemon=True)
        # The helper that spawn starts first would let interrupts through again.
        resource_tracker.ensure_running()
        with _interrupts_blocked():
            process.start()
        theirs.close()
        self._processes.append(_Process(process, ours))
        return self._processes[-1]

    def _give(self, process: _Process, item: Item, tries: int = 1) -> None:
        process.item, process.tries = item, tries
        # If it is dead already, ``collect`` will see it.
        with contextlib.suppress(BrokenPipeError):
            process.connection.send(item)

    def _died(self, process: _Process, item: Item) -> Failure | None:
        """Bury a process and begin its work again; a failure if that was tried often enough."""
        self._processes.remove(process)
        process.process.join()
        process.connection.close()
        if process.tries < TRIES:
            self._give(self._start(), item, process.tries + 1)
            return None
        code = process.process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        hint = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
        return Failure("died", f"its worker process ended {TRIES} times ({how}{hint})")


def usable_cores() -> int:
    """The cores this process may use: its affinity, cut to a container's quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


def default_workers(device: str | None) -> int:
    """As many processes as cores on a CPU; one where a GPU computes."""
    on_cpu = device == "cpu" if device else not torch.cuda.is_available()
    return usable_cores() if on_cpu else 1


def _device(device: str | None, index: int) -> str | None:
    """GPUs in turn, where there are several and none was asked for."""
    if device is None and torch.cuda.device_count() > 1:
        return f"cuda:{index % torch.cuda.device_count()}"
    return device


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Children inherit this: Ctrl-C in a terminal reaches all processes, and the parent alone decides."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, setup: Setup) -> None:
    """A worker process: do what comes until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    worker = setup.worker()
    try:
        while True:
            item = connection.recv()
            connection.send(attempt(worker, item, _Reporter(connection)))
    except (EOFError, ConnectionError):
        return
    except Exception:
        connection.send(_Broken(traceback.format_exc()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _Reporter:
    """Sends progress now and then."""

    def __init__(self, connection: Any) -> None:
        self.connection, self.share, self.last = connection, 0.0, time.monotonic()

    def __call__(self, done: float, note: str = "") -> None:
        self.share += done
        if time.monotonic() - self.last >= REPORT_SECONDS:
            self.connection.send((self.share, note))
            self.share, self.last = 0.0, time.monotonic()
