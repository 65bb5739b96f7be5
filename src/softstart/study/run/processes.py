"""Worker processes on this machine: each loads the backbone once, computes with one thread, and may die."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import ClassVar

import torch

from softstart.study.run.executors import Failure, Order, Report, Setup
from softstart.study.run.joining import Joiners
from softstart.study.run.messages import PlainConnection
from softstart.study.run.serving import Broken, serve
from softstart.study.run.work import Done, WorkItem

TRIES = 3
"""How often a piece of work is started, at most, when its workers die."""
START = 10
"""How many times as long a process may be silent before its first message: it loads the backbone."""
JOIN_SECONDS = 1.0
"""Seconds between two looks for processes that want to join."""


@dataclass
class _Process:
    """A worker: a process of ours, or one that joined (``process`` is None)."""

    process: BaseProcess | None
    connection: Connection | PlainConnection
    item: WorkItem | None = None
    tries: int = 0
    hung: bool = False
    spoken: bool = False
    """Whether it has sent a message yet."""
    silent: float = 0.0
    """Seconds without a message while it has work, without those in which this process itself stood still."""

    @property
    def line(self) -> Connection:
        """The connection itself, to wait for."""
        return self.connection.raw if isinstance(self.connection, PlainConnection) else self.connection


class LocalProcesses:
    """Worker processes on this machine, started when there is work for them, and those that join.

    Nothing is lost with a process that dies: another one starts its piece of work again from the last
    checkpoint, up to three times in all. The ends of processes that had joined do not count.

    Args:
        setup: what a worker is made of.
        workers: the most processes to start.
        joiners: accepts processes that want to join; closed together with this.
        stall: seconds without progress after which a process counts as hung and is ended as if it had died;
            ten times as many at its start, when it loads the backbone. None waits for ever. Testing a task
            sends no progress, however long it takes.
    """

    local: ClassVar[bool] = True

    def __init__(
        self, setup: Setup, workers: int, joiners: Joiners | None = None, stall: float | None = None
    ) -> None:
        self.setup, self.workers = setup, workers
        self._processes: list[_Process] = []
        self._waiting: list[tuple[WorkItem, int]] = []
        self._context = multiprocessing.get_context("spawn")
        self._started = 0
        self._joiners, self._stall = joiners, stall

    @classmethod
    def of(cls, order: Order) -> LocalProcesses:
        """The executor of a study; where a socket can be made, other processes may join."""
        joiners = None
        with contextlib.suppress(OSError):  # the socket's path may be too long
            joiners = Joiners(order.setup, order.folder)
        return cls(order.setup, order.workers, joiners, order.stall)

    @property
    def slots(self) -> int:
        """The most processes to start, and those that joined."""
        return self.workers + sum(p.process is None for p in self._processes)

    def submit(self, item: WorkItem) -> None:
        """Give it to an idle process, or to a new one."""
        self._waiting.append((item, 1))
        self._assign()

    def collect(self, report: Report) -> tuple[WorkItem, Done | Failure] | None:
        """Wait until a piece of work ends, or a process joins."""
        while True:
            if self._welcome():
                return None
            self._assign()
            open_ = {p.line: p for p in self._processes}
            began = time.monotonic()
            heard = wait(list(open_), timeout=JOIN_SECONDS if self._joiners or self._stall else None)
            self._listen(heard, min(time.monotonic() - began, JOIN_SECONDS))
            for connection in heard:
                process = open_[connection]  # type: ignore[index]
                item, process.spoken = process.item, True
                try:
                    message = process.connection.recv()
                except (EOFError, OSError):
                    failure = self._died(process)
                    if item is not None and failure is not None:
                        return item, failure
                    continue
                if isinstance(message, Broken):
                    at = item.name if item else "its start"
                    raise RuntimeError(f"a worker process failed at {at}\n{message.traceback}")
                if item is None:
                    continue
                if isinstance(message, (Done, Failure)):
                    process.item = None
                    return item, message
                report(item, *message)

    def close(self) -> None:
        """End all processes; their work goes on from its checkpoints another time."""
        if self._joiners:
            self._joiners.close()
            self._welcome()
        ours = [p.process for p in self._processes if p.process is not None]
        for process in ours:
            process.terminate()
        for process in ours:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()
        for p in self._processes:
            p.connection.close()
        self._processes.clear()

    def _listen(self, heard: Container[object], seconds: float) -> None:
        """Count the seconds of silence of each process, and end those that were silent for too long."""
        for p in list(self._processes):
            p.silent = 0.0 if p.line in heard or p.item is None else p.silent + seconds
            limit = (self._stall or math.inf) * (1 if p.spoken else START)
            if p.silent <= limit or p.hung:
                continue
            p.hung = True
            if p.process is not None:
                p.process.kill()
            else:
                # One that joined is not ours to end; it finds its connection closed.
                self._died(p)

    def _welcome(self) -> bool:
        """Accept the processes that have joined since the last call; whether there are any."""
        arrived = False
        with contextlib.suppress(queue.Empty):
            while self._joiners:
                self._processes.append(_Process(None, self._joiners.arrived.get_nowait()))
                arrived = True
        return arrived

    def _assign(self) -> None:
        """Give waiting work to idle processes, and to new ones while there may be more."""
        while self._waiting:
            idle = next((p for p in self._processes if p.item is None), None)
            if idle is None and sum(p.process is not None for p in self._processes) >= self.workers:
                return
            process = idle or self._start()
            process.item, process.tries = self._waiting.pop(0)
            # If it is already dead, ``collect`` notices.
            with contextlib.suppress(OSError):
                process.connection.send(process.item)

    def _start(self) -> _Process:
        ours, theirs = self._context.Pipe()
        setup = replace(self.setup, device=_device(self.setup.device, self._started))
        self._started += 1
        process = self._context.Process(target=_serve, args=(theirs, setup), daemon=True)
        # The first process that spawn starts is its helper, which would unblock interrupts again.
        resource_tracker.ensure_running()
        with _interrupts_blocked():
            process.start()
        theirs.close()
        self._processes.append(_Process(process, ours))
        return self._processes[-1]

    def _died(self, process: _Process) -> Failure | None:
        """Remove a dead worker and requeue its item; a failure after the last try."""
        self._processes.remove(process)
        process.connection.close()
        if process.process is not None:
            process.process.join()
        if process.item is None:
            return None
        if process.process is None or process.tries < TRIES:
            self._waiting.insert(0, (process.item, process.tries + (process.process is not None)))
            return None
        code = process.process.exitcode or 0
        if process.hung:
            return Failure(
                "died", f"its worker process hung {TRIES} times (no progress for {self._stall:g} s)"
            )
        what = f"its worker process ended {TRIES} times"
        if code == -signal.SIGKILL:  # what a system sends when memory runs out
            return Failure("memory", f"{what} (signal 9, perhaps for want of memory)")
        return Failure("died", f"{what} ({f'signal {-code}' if code < 0 else f'exit code {code}'})")


def usable_cores() -> int:
    """The cores this process may use: its affinity, limited by a container's quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


def default_workers(device: str | None) -> int:
    """One process per core on a CPU; one process on a GPU."""
    on_cpu = device == "cpu" if device else not torch.cuda.is_available()
    return usable_cores() if on_cpu else 1


def _device(device: str | None, index: int) -> str | None:
    """One of several GPUs in turn, unless a device is named."""
    if device is None and torch.cuda.device_count() > 1:
        return f"cuda:{index % torch.cuda.device_count()}"
    return device


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block interrupts in children that start now: Ctrl-C reaches every process, only the parent acts."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, setup: Setup) -> None:
    """A worker process: do the work that comes until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    serve(connection, setup.worker())


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
