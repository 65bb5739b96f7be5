"""Where pieces of work are done: one small interface, and the simplest executor, this process.

Another place is a class with the methods of ``Executor``: registered in ``EXECUTORS``, or named by its
import path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import torch

from softstart.backbone.devices import forget_peak, out_of_memory, prefer_device
from softstart.errors import Damaged, Diverged, SoftstartError
from softstart.progress import Progress
from softstart.registry import Registry
from softstart.study.declare.spec import Study
from softstart.study.plan.inputs import Inputs
from softstart.study.run.resources import Resources
from softstart.study.run.work import Done, Worker, WorkItem

Report = Callable[[WorkItem, float, str], None]
"""Receives the item, the share of it just done (0 to 1) and a note."""


@dataclass(frozen=True)
class Failure:
    """Why a piece of work has no result: it diverged, met bad input, ran out of memory (or was killed as if
    it had), or its worker died.
    """

    kind: Literal["diverged", "error", "memory", "died"]
    reason: str


class Executor(Protocol):
    """Does pieces of work, each as a whole in one place, and hands back their outcomes."""

    local: ClassVar[bool]
    """Whether the work is done on this machine, so that its memory bounds the packs."""

    @classmethod
    def of(cls, order: Order) -> Executor:
        """The executor for a study.

        Raises:
            SoftstartError: it cannot be started.
        """

    @property
    def slots(self) -> int:
        """How many pieces it can do at a time."""

    def submit(self, item: WorkItem) -> None:
        """Start a piece; called while fewer than ``slots`` are running."""

    def collect(self, report: Report) -> tuple[WorkItem, Done | Failure] | None:
        """Wait until any running piece ends; ``report`` receives progress in the meantime.

        Returns:
            The very object that was submitted and its outcome; None when there is room for more pieces
            before one has ended.
        """

    def close(self) -> None:
        """Stop what is running and release everything."""


@dataclass(frozen=True)
class Setup:
    """What a worker is made of, as plain data that can be sent to another process."""

    studies: Mapping[str, Study]
    device: str | None
    checkpoints: Path
    inputs: Inputs | None = None
    processes: int = 1
    """How many workers share a machine's memory."""

    def worker(self, resources: Resources | None = None) -> Worker:
        """The worker; what it needs is loaded when first asked for."""
        resources = resources or Resources(self.studies, self.device, self.inputs, processes=self.processes)
        return Worker(resources, self.checkpoints)


@dataclass(frozen=True)
class Order:
    """What a study asks an executor for.

    Args:
        setup: what a worker is made of.
        resources: the backbone and the tasks, as this process has loaded them.
        folder: the study folder.
        workers: the most pieces of work at a time on this machine.
        address: of a cluster.
        stall: seconds without progress after which a worker counts as hung; None: never.
    """

    setup: Setup
    resources: Resources
    folder: Path
    workers: int = 1
    address: str | None = None
    stall: float | None = None


def attempt(worker: Worker, item: WorkItem, progress: Progress) -> Done | Failure:
    """Do a piece of work; an error that concerns this piece alone becomes a ``Failure``."""
    try:
        forget_peak(prefer_device(worker.resources.device))
        return item.perform(worker, progress)
    except Diverged as problem:
        return Failure("diverged", str(problem))
    except Damaged as problem:
        # Without a checkpoint the work starts again; a damaged one is no better.
        file = Path(problem.where or "")
        if file.parent != worker.checkpoints or not file.is_file():
            return Failure("error", str(problem))
        file.unlink()
        return attempt(worker, item, progress)
    except SoftstartError as problem:
        return Failure("error", str(problem))
    except (MemoryError, RuntimeError) as problem:
        if not out_of_memory(problem):
            raise
        reason = (str(problem).splitlines() or [""])[0]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return Failure("memory", f"out of memory ({reason})")


class InProcess:
    """One piece at a time, in the process that runs the study, with all its threads."""

    local: ClassVar[bool] = True
    slots = 1

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.item: WorkItem | None = None

    @classmethod
    def of(cls, order: Order) -> InProcess:
        """The executor of a study, with the resources that are already loaded."""
        return cls(order.setup.worker(order.resources))

    def submit(self, item: WorkItem) -> None:
        """Keep it for ``collect``, which does it."""
        self.item = item

    def collect(self, report: Report) -> tuple[WorkItem, Done | Failure]:
        """Do the piece that was submitted."""
        item = self.item
        assert item is not None
        return item, attempt(self.worker, item, lambda share, note="": report(item, share, note))

    def close(self) -> None:
        """Nothing to stop."""


EXECUTORS: Registry[type[Executor]] = Registry(
    "executor", accepts=lambda thing: isinstance(thing, type) and hasattr(thing, "of")
)
"""Where the work of a study can be done, by name; those of the package are added in ``run``."""
