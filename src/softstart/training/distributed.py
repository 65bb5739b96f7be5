"""Several processes, one result: which process does which share of the work, and how shares are combined.

``torchrun`` and ``accelerate launch`` start them. Each holds a copy of the frozen backbone and all draw the
same meta-batch, so only what is learned from it is sent: one sum in float64 for each step, 800 KB for a
prompt of 100 x 1024. It travels by gloo, between GPUs too: NCCL would save a millisecond, but cannot tell a
lost process from a slow one. An existing process group is used as it is.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from softstart.algorithms import Algorithm, Episodes, Logs, meta_gradients
from softstart.backbone import Batch
from softstart.errors import SoftstartError
from softstart.storage.tensors import digest_of
from softstart.training.gradients import TOKEN_MEAN
from softstart.training.losses import RowLoss
from softstart.training.objective import PromptObjective

PATIENCE = timedelta(minutes=30)
"""How long a process waits for one that is alive but silent; one that ended is noticed at once."""

Piece = TypeVar("Piece")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """This process among those of its job."""

    rank: int = 0
    world: int = 1

    @property
    def lead(self) -> bool:
        """Whether this one writes files and reports for all."""
        return self.rank == 0

    def share(
        self, episodes: Episodes, *, mixture: bool = False, loss: RowLoss = TOKEN_MEAN
    ) -> tuple[Episodes, float]:
        """This process's part of a meta-batch and its weight in the mean over all of it.

        Episode i belongs to process i modulo their number. The rows of a mixture, which is one task, are
        dealt out instead; the weight of a share is its part of the loss's divisor. A process that is left
        without a share does the first one again, with weight 0: it would only wait.
        """
        if self.world == 1:
            return episodes, 1.0
        count = len(episodes.query) if mixture and episodes.query else episodes.tasks
        idle = self.rank >= count
        first = 0 if idle else self.rank

        def part(batch: Batch) -> Batch:
            number = torch.arange(len(batch), device=batch.run.device) if mixture else batch.run
            rows = batch.select((number % self.world == first).nonzero().squeeze(1))
            # Other processes draw other dropout masks; those of the first are those of a process alone.
            seed = None if batch.seed is None else batch.seed + (self.rank << 32)
            return replace(rows, run=rows.run if mixture else rows.run // self.world, seed=seed)

        tasks = 1 if mixture else len(range(first, count, self.world))
        query = None if episodes.query is None else part(episodes.query)
        context = None if episodes.context is None else episodes.context[first :: self.world]
        sources = None if episodes.sources is None else episodes.sources[first :: self.world]
        mine = Episodes(tasks, [part(batch) for batch in episodes.support], query, context, sources)
        weight = float(loss.counts(query).sum()) if mixture and query else float(tasks)
        return mine, 0.0 if idle else weight

    def agree(self, *facts: object) -> None:
        """Wait for all processes and make sure that they agree.

        Raises:
            SoftstartError: they hold different facts, or one of them is gone.
        """
        if self.world == 1:
            return
        number = int(digest_of(*facts)[:14], 16)
        ends = torch.tensor([number, -number])
        _all_reduce(ends, dist.ReduceOp.MAX)
        if bool(ends[0] != -ends[1]):
            raise SoftstartError(
                "the processes of this job do not begin alike: their tasks, settings or checkpoints differ",
                fix="Give all of them the same arguments, and files that all machines see (--out).",
            )

    def spread(
        self, parts: Sequence[Sequence[Piece]], do: Callable[[list[Piece]], Sequence[Result]]
    ) -> list[Result]:
        """Deal out pieces of work, do each share in its process and give all results to every process.

        Args:
            parts: pieces that stay together.
            do: does a list of pieces; not called without any.
        """
        share = [piece for part in parts[self.rank :: self.world] for piece in part]
        done = list(do(share)) if share else []
        gathered: list[Any] = [None] * self.world
        with _explaining_loss():
            # Pickled and read by processes of one job, as between a study and its workers.
            dist.all_gather_object(gathered, done)
        return [result for results in gathered for result in results]


def this_job() -> Processes:
    """The processes this one belongs to; those of a launcher are joined at the first call, until the end.

    Raises:
        SoftstartError: the others cannot be reached, or the launcher wants the weights sharded.
    """
    if dist.is_available() and dist.is_initialized():
        return Processes(dist.get_rank(), dist.get_world_size())
    if launched() == 1:
        return Processes()
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true"):
        raise SoftstartError(
            "FSDP cannot be used: it has no second derivative, and weights that are not trained have no "
            "gradients or optimizer states to shard",
            fix="Use plain data parallelism, and device_map for a model larger than one GPU.",
        )
    with _explaining_loss("the other processes of this job cannot be reached"):
        dist.init_process_group("gloo", timeout=PATIENCE)
    atexit.register(_leave)
    return Processes(dist.get_rank(), dist.get_world_size())


def launched() -> int:
    """The number of processes that a launcher announces: 1 without a launcher."""
    needed = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return int(os.environ["WORLD_SIZE"]) if all(os.environ.get(name) for name in needed) else 1


def shared_gradient(
    processes: Processes,
    algorithm: Algorithm,
    loss: PromptObjective,
    values: Mapping[str, Tensor],
    episodes: Episodes,
) -> tuple[dict[str, Tensor], Logs]:
    """``meta_gradients`` and logs over all of a meta-batch, from every process's share of it.

    Sums are in float64, so that their order does not matter. ``loss.work`` counts the work of all processes.

    Raises:
        SoftstartError: a process is gone.
    """
    if processes.world == 1 and not (dist.is_available() and dist.is_initialized()):
        return meta_gradients(algorithm, loss, values, episodes)
    work, before = loss.work, vars(loss.work).copy()
    mine, weight = processes.share(episodes, mixture=algorithm.data == "mixture", loss=loss.loss)
    gradients, logs = meta_gradients(algorithm, loss, values, mine)
    counted = [(n - before[name]) * (weight > 0) for name, n in vars(work).items()]
    parts = list(gradients.values())
    losses = torch.tensor([*logs.values()], dtype=torch.float64)
    weighed = [weight * part.detach().double().cpu().flatten() for part in (*parts, losses)]
    flat = torch.cat([*weighed, torch.tensor([weight, *counted], dtype=torch.float64)])
    _all_reduce(flat, dist.ReduceOp.SUM)
    *sums, tail = flat.split([*(part.numel() for part in weighed), 1 + len(counted)])
    total, *counted = tail.tolist()
    for name, more in zip(before, counted, strict=True):
        setattr(work, name, before[name] + type(before[name])(more))
    *means, losses = (part / total for part in sums)
    shaped = [mean.view_as(part).to(part) for mean, part in zip(means, parts, strict=True)]
    return dict(zip(gradients, shaped, strict=True)), dict(zip(logs, losses.tolist(), strict=True))


def _all_reduce(tensor: Tensor, operation: Any) -> None:
    """In place, by the backend of the group."""
    with _explaining_loss():
        if "gloo" in str(dist.get_backend()):
            dist.all_reduce(tensor, operation)
            return
        moved = tensor.cuda()
        dist.all_reduce(moved, operation)
        tensor.copy_(moved)


@contextmanager
def _explaining_loss(
    what: str = "another process of this job has ended, and this one cannot go on without it",
) -> Iterator[None]:
    try:
        yield
    except RuntimeError as problem:
        raise SoftstartError(
            f"{what} ({str(problem).strip().splitlines()[0]})",
            fix="Start the job again: it goes on from its last checkpoint, with any number of processes.",
        ) from problem


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
