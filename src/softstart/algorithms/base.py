"""What an algorithm is: a trajectory of prompts and a reduction of it to a meta-gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, cast

from torch import Tensor, nn

Logs = dict[str, float]
Data = Literal["episodes", "mixture"]
THETA = "theta"
"""The name of the start among the meta-parameters."""
LOG_RATES = "log_rates"
"""Logarithms of the rows' learning rates [P, 1], relative to each other (Meta-SGD)."""
SHARED, COLUMNS, ROWS = "shared", "columns", "rows"
"""The prompt that N source tasks share [P, d], and the factors of their matrices, [N P, rank] and [N rank, d]
(multitask prompt tuning)."""


@dataclass(frozen=True)
class Episodes:
    """One meta-batch: the episodes of M source tasks, row i of every batch pointing at its task in 0..M-1.

    ``support`` holds one batch for each of the K inner steps; ``query`` is the batch of the outer loop, None
    for algorithms that use none. ``context`` [M, D, d] are the demonstrations of each task, rows that its
    prompts begin with after those of the start; None: none.
    """

    tasks: int
    support: Sequence[Any]
    query: Any | None
    context: Tensor | None = None
    sources: Tensor | None = None
    """[M] the number of each task among the source tasks; None: the tasks are all of them, in order."""


class Loss(Protocol):
    """The loss of M tasks at once, each under its own prompt (``PromptObjective``, or a toy in tests)."""

    def expect(self, batches: Sequence[Any]) -> None:
        """Announce that ``hvp`` will follow for the next gradients, those on ``batches``, in reverse."""

    def gradient(self, prompts: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
        """Prompts [M, P, d] → (losses [M], gradients [M, P, d])."""

    def hvp(self, prompts: Tensor, batch: Any, vectors: Tensor) -> Tensor:
        """Hessian-vector product of each task's loss: [M, P, d]."""


@dataclass(frozen=True)
class StepWork:
    """What an outer step computes on the support batches of one task; the query batch takes one gradient."""

    gradients: int
    """Gradients of a support batch."""
    hvps: int = 0
    """Hessian-vector products of a support batch, each with the gradient that it differentiates."""
    keepable: int = 0
    """How many of these products differentiate one of ``gradients``, whose graph can be kept for it."""


class Algorithm(Protocol):
    """Maps a start θ and a meta-batch to a meta-gradient: a pure function, no hidden state.

    It is a frozen dataclass whose fields are its settings. What else it may declare:

    - ``label``, ``color``: how reports write and draw it (a hex code); by default the name in the study and a
      spare color.
    - ``work``: a property, the ``StepWork`` of an outer step; by default that of a first-order method, one
      gradient for each inner step.
    - ``further(theta)``: meta-parameters [P, ·] besides the start, by name, with their values before
      learning, and ``further_lr``, their outer learning rate relative to the start's. ``meta_gradient`` then
      takes them as keyword arguments and returns the gradients of all by name, the start's under ``THETA``.
      ``meta_gradients`` calls either kind.
    - ``sourced``: ``further`` takes the number of source tasks as well, for what each of them has.
    - ``begin(values)``: what is kept in the end of the meta-parameters: the start under ``THETA``, and more.
    """

    data: ClassVar[Data]
    """``episodes``: support and query batches of whole tasks; ``mixture``: rows of all tasks shuffled."""

    @property
    def inner_steps(self) -> int:
        """K, the number of inner steps."""

    @property
    def support_size(self) -> int:
        """Rows of a task in one inner step."""

    @property
    def query_size(self) -> int:
        """Rows of a task in the query set; 0 for none."""

    def meta_gradient(self, loss: Loss, theta: Tensor, episodes: Episodes) -> tuple[Tensor, Logs]:
        """Theta [P, d] → (meta-gradient [P, d], losses to log in nats)."""


def further(algorithm: Algorithm, theta: Tensor, sources: int = 1) -> dict[str, Tensor]:
    """The initial values of what an algorithm learns besides the start θ [P, d]: mostly nothing.

    ``sources`` is the number of source tasks, for algorithms that learn something for each of them.
    """
    more = (sources,) if getattr(algorithm, "sourced", False) else ()
    values: dict[str, Tensor] = getattr(algorithm, "further", lambda _: {})(theta, *more)
    return values


def work_of(algorithm: Any) -> StepWork:
    """The work of an outer step as the algorithm declares it, or that of a first-order method."""
    work: StepWork = getattr(algorithm, "work", StepWork(algorithm.inner_steps))
    return work


def is_algorithm(thing: Any) -> bool:
    """Whether an object is the class of a method that learns from source tasks.

    >>> from softstart.algorithms import MAML
    >>> is_algorithm(MAML), is_algorithm(MAML())
    (True, False)
    """
    learns = callable(getattr(thing, "meta_gradient", None)) or getattr(thing, "data", None) == "tasks"
    return isinstance(thing, type) and is_dataclass(thing) and learns


def meta_gradients(
    algorithm: Algorithm, loss: Loss, values: Mapping[str, Tensor], episodes: Episodes
) -> tuple[dict[str, Tensor], Logs]:
    """Gradients of all meta-parameters [P, ·] by name, the start's under ``THETA``, and losses to log.

    With demonstrations, the prompts of task m begin as [θ | context_m]. All rows adapt in the inner loop.
    """
    if episodes.context is not None:
        # SGD moves φ - c as it moves φ, so for the algorithm all tasks begin at [θ | 0], whatever their c.
        length, more = len(values[THETA]), episodes.context.shape[1]
        loss = Shifted(loss, nn.functional.pad(episodes.context, (0, 0, length, 0)))
        values = {name: nn.functional.pad(value, (0, 0, 0, more)) for name, value in values.items()}
        gradients, logs = meta_gradients(algorithm, loss, values, replace(episodes, context=None))
        return {name: gradient[:length] for name, gradient in gradients.items()}, logs
    rest = {name: value for name, value in values.items() if name != THETA}
    gradients, logs = cast(Any, algorithm).meta_gradient(loss, values[THETA], episodes, **rest)
    return (gradients if rest else {THETA: gradients}), logs


@dataclass
class Shifted:
    """A loss of prompts that all lie by a constant ``shift`` [M, P, d] from those that are given."""

    loss: Loss
    shift: Tensor
    _moved: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def expect(self, batches: Sequence[Any]) -> None:
        """As ``Loss.expect``."""
        self.loss.expect(batches)

    def at(self, prompts: Tensor) -> Tensor:
        """The prompts [M, P, d] that the loss sees, the same object for the same prompts: graphs are kept
        by it.
        """
        for given, moved in self._moved:
            if given is prompts:
                return moved
        self._moved.append((prompts, prompts + self.shift))
        return self._moved[-1][1]

    def gradient(self, prompts: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
        """As ``Loss.gradient``: (losses [M], gradients [M, P, d])."""
        return self.loss.gradient(self.at(prompts), batch)

    def hvp(self, prompts: Tensor, batch: Any, vectors: Tensor) -> Tensor:
        """As ``Loss.hvp``: [M, P, d]."""
        return self.loss.hvp(self.at(prompts), batch, vectors)


@dataclass(frozen=True)
class Trajectory:
    """The inner loop of M tasks: prompts φ_0 … φ_K and the gradients between them [M, P, d], losses [M]."""

    prompts: list[Tensor]
    gradients: list[Tensor]
    losses: list[Tensor]


def inner_loop(loss: Loss, theta: Tensor, episodes: Episodes, lr: float | Tensor) -> Trajectory:
    """SGD of all tasks from one start: φ_0 = θ, φ_{k+1} = φ_k - α ∇L_support,k(φ_k); no graph is kept.

    Args:
        loss: the losses of the tasks.
        theta: [P, d].
        episodes: the meta-batch; one step for each support batch.
        lr: α, one number, or one for each row [P, 1].
    """
    phi = theta.expand(episodes.tasks, *theta.shape).clone()
    path = Trajectory([phi], [], [])
    for batch in episodes.support:
        value, gradient = loss.gradient(phi, batch)
        phi = phi - lr * gradient
        path.prompts.append(phi)
        path.gradients.append(gradient)
        path.losses.append(value)
    return path
