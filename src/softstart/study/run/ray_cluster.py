"""Workers on a Ray cluster: many machines, each worker an actor that loads the backbone once.

Ray places the actors, notices dead ones and transports the data. Needs the extra ``softstart[ray]``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from softstart.errors import SoftstartError
from softstart.gym.task import Task
from softstart.study.run.executors import Failure, Order, Report, Setup, attempt
from softstart.study.run.processes import TRIES
from softstart.study.run.resources import Resources
from softstart.study.run.serving import REPORT_SECONDS
from softstart.study.run.work import Done, WorkItem

LOCAL = "local"
"""The address that starts a cluster on this machine."""


@dataclass
class _Actor:
    handle: Any
    item: WorkItem | None = None
    call: Any = None


class RayCluster:
    """Actors on a Ray cluster: one per CPU, or one per GPU if the cluster has any.

    The work of a dead worker or node starts again elsewhere, from its checkpoint where the machines share the
    study's folder, up to three times in all.

    Args:
        setup: what a worker is made of.
        tasks: every task by digest; each is sent to a machine once.
        address: of the cluster (``auto``, ``host:port``), or ``local`` to start one here.

    Raises:
        SoftstartError: Ray is not installed, or there is no such cluster.
    """

    local: ClassVar[bool] = False

    def __init__(self, setup: Setup, tasks: Mapping[str, Task], address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as problem:
            raise SoftstartError("Ray is not installed", fix="pip install 'softstart[ray]'.") from problem
        self.ray: Any = ray
        self._mine = not ray.is_initialized()
        if self._mine:
            try:
                ray.init(
                    address=None if address == LOCAL else address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except (ConnectionError, ValueError, RuntimeError) as problem:
                reason = str(problem).splitlines()[0]
                raise SoftstartError(
                    f"no Ray cluster answers ({reason})",
                    where=address,
                    fix="Start one (ray start --head), or give --ray local.",
                ) from problem
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self._board: Any = self.ray.remote(_Board).options(num_cpus=0, scheduling_strategy=here).remote()
        self._setup = ray.put(setup)
        self._tasks = {digest: ray.put(task) for digest, task in tasks.items()}
        self._actors: list[_Actor] = []
        self._again: list[WorkItem] = []
        self._tries: dict[int, int] = {}
        self._items: dict[int, WorkItem] = {}
        self._kind = "GPU" if ray.cluster_resources().get("GPU") else "CPU"

    @classmethod
    def of(cls, order: Order) -> RayCluster:
        """The executor of a study."""
        return cls(order.setup, order.resources.tasks(), order.address or LOCAL)

    @property
    def slots(self) -> int:
        """The CPUs or GPUs of the machines that are alive."""
        return max(1, int(self.ray.cluster_resources().get(self._kind, 0)))

    def submit(self, item: WorkItem) -> None:
        """Give it to an idle actor, or to a new one."""
        self._tries[id(item)] = 1
        self._items[id(item)] = item
        self._again.append(item)
        self._assign()

    def collect(self, report: Report) -> tuple[WorkItem, Done | Failure]:
        """Wait until a piece of work ends."""
        while True:
            self._assign()
            self._shed()
            busy = {actor.call: actor for actor in self._actors if actor.item is not None}
            ended, _ = self.ray.wait(list(busy), num_returns=1, timeout=1.0)
            for key, share, note in self.ray.get(self._board.take.remote()):
                if key in self._items:
                    report(self._items[key], share, note)
            for call in ended:
                actor = busy[call]
                item, actor.item = actor.item, None
                assert item is not None
                outcome = self._outcome(actor, item, call)
                if outcome is not None:
                    del self._items[id(item)], self._tries[id(item)]
                    return item, outcome

    def close(self) -> None:
        """End the actors, and the cluster if this started it."""
        for actor in self._actors:
            self.ray.kill(actor.handle)
        self.ray.kill(self._board)
        self._actors.clear()
        if self._mine:
            self.ray.shutdown()

    def _assign(self) -> None:
        while self._again:
            idle = [actor for actor in self._actors if actor.item is None]
            if not idle and len(self._actors) >= self.slots:
                return
            actor = idle[0] if idle else self._start()
            actor.item = self._again.pop(0)
            actor.call = actor.handle.perform.remote(actor.item, id(actor.item))

    def _shed(self) -> None:
        """End idle actors that the cluster has no room for since it lost a machine.

        An actor that was starting there waits for room elsewhere; an idle actor would never make it.
        """
        surplus = len(self._actors) - self.slots
        for actor in [actor for actor in self._actors if actor.item is None][: max(0, surplus)]:
            self.ray.kill(actor.handle)
            self._actors.remove(actor)

    def _start(self) -> _Actor:
        needs = {"num_gpus": 1} if self._kind == "GPU" else {"num_cpus": 1}
        handle = self.ray.remote(_Worker).options(**needs).remote([self._setup], self._tasks, self._board)
        self._actors.append(_Actor(handle))
        return self._actors[-1]

    def _outcome(self, actor: _Actor, item: WorkItem, call: Any) -> Done | Failure | None:
        errors = self.ray.exceptions
        try:
            outcome: Done | Failure = self.ray.get(call)
            return outcome
        except errors.RayTaskError as problem:
            raise RuntimeError(f"a worker failed at {item.name}\n{problem}") from problem
        except errors.RayError as problem:
            self._actors.remove(actor)
            self._tries[id(item)] += 1
            if self._tries[id(item)] <= TRIES:
                self._again.append(item)
                return None
            short = isinstance(problem, errors.OutOfMemoryError)
            reason = f"its worker ended {TRIES} times ({type(problem).__name__})"
            return Failure("memory" if short else "died", reason)


class _Board:
    """Where workers leave their progress for the study to fetch."""

    def __init__(self) -> None:
        self.notes: list[tuple[int, float, str]] = []

    def put(self, key: int, share: float, note: str) -> None:
        self.notes.append((key, share, note))

    def take(self) -> list[tuple[int, float, str]]:
        notes, self.notes = self.notes, []
        return notes


class _Worker:
    """The actor."""

    def __init__(self, setup: list[Any], tasks: Mapping[str, Any], board: Any) -> None:
        import ray

        self.board = board
        shared: Setup = ray.get(setup[0])
        if not torch.cuda.is_available():
            torch.set_num_threads(1)
        resources = Resources(
            shared.studies, shared.device, shared.inputs, fetch=lambda digest: ray.get(tasks[digest])
        )
        self.worker = shared.worker(resources)

    def perform(self, item: WorkItem, key: int) -> Done | Failure:
        share, last = 0.0, time.monotonic()

        def progress(done: float, note: str = "") -> None:
            nonlocal share, last
            share += done
            if time.monotonic() - last >= 5 * REPORT_SECONDS:
                self.board.put.remote(key, share, note)
                share, last = 0.0, time.monotonic()

        return attempt(self.worker, item, progress)
