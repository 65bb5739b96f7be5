"""Which graphs of inner gradients are kept for Hessian-vector products, and which are computed again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from softstart.backbone.devices import device_memory
from softstart.errors import SoftstartError

# What torch says of kernels without a second derivative, of torch.compile, and of kernels that cut the graph.
_REFUSALS = (
    "differentiate twice",
    "double backward",
    "derivative for",
    "does not require grad",
    "not have been used",
)


@dataclass
class Graph:
    """A gradient that can still be differentiated.

    ``parts`` holds (prompts, gradient), both [R, P, d], of every micro-batch; ``bytes`` is what autograd
    keeps for them in addition to the weights.
    """

    prompts: Tensor
    batch: Any
    parts: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    bytes: int = 0

    def hvp(self, vectors: Tensor) -> Tensor:
        """Hessian-vector products [R, P, d]; frees the graphs."""
        product = torch.zeros_like(vectors)
        while self.parts:
            leaf, gradient = self.parts.pop()
            with explaining_refusals():
                product += torch.autograd.grad((gradient * vectors).sum(), leaf)[0]
        return product

    @contextlib.contextmanager
    def measured(self, weights: set[int]) -> Iterator[None]:
        """Count the bytes of every tensor that autograd saves meanwhile, apart from ``weights``."""
        sizes = dict.fromkeys(weights, 0)

        # Autograd keeps its hooks: one that held this graph would never let it go.
        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            sizes.setdefault(storage.data_ptr() or storage._cdata, storage.nbytes())
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            yield
        self.bytes = sum(sizes.values())


@dataclass
class KeptGraphs:
    """The last graphs of an inner loop, as many as a budget holds.

    What is kept depends only on the budget and the batches, so a run repeats to the bit.

    Args:
        device: where the graphs live.
        budget: bytes of graphs kept in addition to the one that a Hessian-vector product always needs; 0
            keeps none. None keeps at most the last one, if it fits into an eighth of the device's memory.
        memory: bytes of memory of a device that is only planned for; None: of ``device``.
    """

    device: torch.device
    budget: int | None = None
    memory: int | None = None
    kept: list[Graph] = field(default_factory=list)
    expected: list[Any] = field(default_factory=list)
    """The batches still to come."""
    steps: int = 0
    """Inner steps since ``expect``."""
    reused: int = 0
    """How many of them had a graph that was kept until it was used."""
    _rate: float = 0.0  # bytes per token of the graph filled last

    def expect(self, batches: Sequence[Any]) -> None:
        """Begin an inner loop over these batches; what was kept before is dropped."""
        self.kept, self.expected = [], list(batches)
        self.steps, self.reused, self._rate = len(batches), 0, 0.0

    def awaits(self, batch: Any) -> bool:
        """Whether the batch is the next one expected."""
        return bool(self.expected) and self.expected[0] is batch

    def begin(self, prompts: Tensor, batch: Any) -> Graph | None:
        """The graph to fill for the gradient at ``prompts``; None if it would not be kept."""
        rest = sum(_tokens(prompts, later) for later in self.expected)
        self.expected.pop(0)
        if self.budget is None:
            return None if self.expected else Graph(prompts, batch)
        return Graph(prompts, batch) if self.budget and self._rate * rest <= self.budget else None

    def keep(self, graph: Graph) -> None:
        """Keep a filled graph; the oldest ones are dropped until all fit."""
        self.kept.append(graph)
        self._rate = graph.bytes / _tokens(graph.prompts, graph.batch)
        most = device_memory(self.device) if self.memory is None else self.memory
        limit = most // 8 if self.budget is None else self.budget
        while self.kept and sum(g.bytes for g in self.kept) > limit:
            self.kept.pop(0)

    def take(self, prompts: Tensor, batch: Any) -> Graph | None:
        """The graph kept for this gradient, if there is one; it is removed."""
        if not (self.kept and self.kept[-1].prompts is prompts and self.kept[-1].batch is batch):
            return None
        self.reused += 1
        return self.kept.pop()


@contextlib.contextmanager
def explaining_refusals() -> Iterator[None]:
    """Replace torch's errors about networks that cannot be differentiated twice by one that says so.

    Raises:
        SoftstartError: a kernel of the network has no second derivative.
    """
    try:
        yield
    except RuntimeError as problem:
        if not any(words in str(problem) for words in _REFUSALS):
            raise
        raise SoftstartError(
            f"this backbone cannot be differentiated twice ({str(problem).splitlines()[0]})",
            fix="Use a first-order method (fomaml, reptile), or a model with plain attention, not compiled.",
        ) from problem


def _tokens(prompts: Tensor, batch: Any) -> int:
    return int(batch.input_ids.numel()) + prompts.shape[1] * len(batch)
