"""The training objective: what algorithms ask for of many runs, and the work that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from torch import Tensor

from softstart.backbone import Backbone, Batch
from softstart.backbone.flops import Flops
from softstart.training.gradients import TOKEN_MEAN, run_gradients
from softstart.training.hessian_products import run_hvps
from softstart.training.kept_graphs import Graph, KeptGraphs, explaining_refusals
from softstart.training.losses import RowLoss


class Worked(Protocol):
    """What counts the work of a run, see ``Work``."""

    tokens: int
    flops: float
    computed_tokens: int
    computed_flops: float


@dataclass
class Work:
    """The work of training so far: tokens (prompt, text and output) and model FLOPs."""

    tokens: int = 0
    flops: float = 0.0
    """As if every row were read whole: the same for every placement, kernel and machine."""
    computed_tokens: int = 0
    computed_flops: float = 0.0
    """Without what was read once for many rows, see ``Backbone.computed_rows``."""

    def add(self, tokens: int, flops: float, computed_tokens: int = 0, computed_flops: float = 0.0) -> None:
        """Count more."""
        self.tokens, self.flops = self.tokens + tokens, self.flops + flops
        self.computed_tokens += computed_tokens
        self.computed_flops += computed_flops

    @classmethod
    def of(cls, counters: Sequence[Worked]) -> Work:
        """The sum of several counters."""
        total = cls()
        for one in counters:
            total.add(one.tokens, one.flops, one.computed_tokens, one.computed_flops)
        return total


@contextmanager
def counting(
    of_run: Callable[[int], Worked],
    backbone: Backbone,
    batch: Batch,
    prompt_length: int,
    price: Callable[[Flops], float] = lambda flops: flops.gradient,
    *,
    read: bool = True,
) -> Iterator[None]:
    """Count the work of every row of a batch for its run, once the block has done it.

    Texts that were read in the block to be kept went forward only, whatever the price; every row counts an
    equal share of them.

    Args:
        of_run: what counts the work of a run, by the run's number.
        backbone: the model.
        batch: rows of all runs.
        prompt_length: P.
        price: what of a row's FLOPs was computed: by default a gradient by the prompt.
        read: count tokens too; False where they were counted with an earlier pass.
    """
    before = backbone.text_tokens_read
    yield
    kept, rows = backbone.text_tokens_read - before, len(batch)
    whole, computed = (
        of_rows(batch, prompt_length) for of_rows in (backbone.whole_rows, backbone.computed_rows)
    )
    for row, run in enumerate(batch.run.tolist()):
        (tokens, flops), (fewer, fewer_flops) = whole[row], computed[row]
        share = kept * (row + 1) // rows - kept * row // rows  # whole numbers whose sum is ``kept``
        counter = of_run(run)
        counter.tokens += tokens if read else 0
        counter.flops += price(flops)
        counter.computed_tokens += share + (fewer if read else 0)
        counter.computed_flops += price(fewer_flops) + (backbone.row_flops(share, 0).forward if share else 0)


@dataclass
class PromptObjective:
    """The losses that an algorithm sees: a backbone, what is minimized, and bounds on memory.

    ``work`` counts what the algorithm asks for. ``memory_budget``, in bytes, is for the graphs of inner
    gradients; it saves recomputation and changes no number beyond rounding (see ``KeptGraphs``).
    """

    backbone: Backbone
    max_tokens: int | None = None
    memory_budget: int | None = None
    loss: RowLoss = TOKEN_MEAN
    work: Work = field(default_factory=Work)
    graphs: KeptGraphs = field(init=False)

    def __post_init__(self) -> None:
        self.graphs = KeptGraphs(self.backbone.device, self.memory_budget)

    def expect(self, batches: Sequence[Batch]) -> None:
        """Announce that ``hvp`` will follow for the next gradients, those on ``batches``, in reverse."""
        self.graphs.expect(batches)

    def gradient(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(losses [R], gradients [R, P, d]); see ``run_gradients``."""
        with self._counting(prompts, batch):
            return self._counted_gradient(prompts, batch)

    def _counted_gradient(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        if not self.graphs.awaits(batch):
            return self._gradient(prompts, batch)
        graph = self.graphs.begin(prompts, batch)
        if graph is None:
            # Other kernels draw other dropout masks: those of this pass must be those of its recomputation.
            return self._gradient(prompts, batch, twice=batch.seed is not None)
        with graph.measured(self._weights), explaining_refusals():
            losses, gradient = self._gradient(prompts, batch, graph=graph)
        self.graphs.keep(graph)
        return losses, gradient

    def hvp(self, prompts: Tensor, batch: Batch, vectors: Tensor) -> Tensor:
        """Hessian-vector products [R, P, d]; see ``run_hvps``."""
        graph = self.graphs.take(prompts, batch)
        if graph is None:
            with self._counting(prompts, batch, lambda flops: flops.hvp):
                return run_hvps(self.backbone, prompts, batch, vectors, self.max_tokens, loss=self.loss)
        # The gradient whose graph was kept was counted when it was asked for.
        with self._counting(prompts, batch, lambda flops: flops.hvp - flops.gradient, read=False):
            return graph.hvp(vectors)

    def _counting(
        self,
        prompts: Tensor,
        batch: Batch,
        price: Callable[[Flops], float] = lambda flops: flops.gradient,
        *,
        read: bool = True,
    ) -> AbstractContextManager[None]:
        return counting(lambda run: self.work, self.backbone, batch, prompts.shape[1], price, read=read)

    def _gradient(
        self, prompts: Tensor, batch: Batch, *, twice: bool = False, graph: Graph | None = None
    ) -> tuple[Tensor, Tensor]:
        return run_gradients(
            self.backbone, prompts, batch, self.max_tokens, loss=self.loss, twice=twice, graph=graph
        )

    @cached_property
    def _weights(self) -> set[int]:
        storages = [p.untyped_storage() for p in self.backbone.model.parameters()]
        return {storage.data_ptr() or storage._cdata for storage in storages}
