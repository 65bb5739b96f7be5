"""What an algorithm is: a trajectory of prompts and a reduction of it to a meta-gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, ClassVar, Literal, Protocol, cast

from torch import Tensor

Logs = dict[str, float]
Data = Literal["episodes", "mixture"]
THETA = "theta"
"""The name of the start among the meta-parameters."""
LOG_RATES = "log_rates"
"""Logarithms of the rows' learning rates [P, 1], relative to each other (Meta-SGD)."""


@dataclass(frozen=True)
class Episodes:
    """One meta-batch: the episodes of M source tasks, row i of every batch pointing at its task in 0..M-1.

    ``support`` holds one batch for each of the K inner steps; ``query`` is the batch of the outer loop, None
    for algorithms that use none.
    """

    tasks: int
    support: Sequence[Any]
    query: Any | None


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


def further(algorithm: Algorithm, theta: Tensor) -> dict[str, Tensor]:
    """The initial values of what an algorithm learns besides the start θ [P, d]: mostly nothing."""
    values: dict[str, Tensor] = getattr(algorithm, "further", lambda _: {})(theta)
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
    """Gradients of all meta-parameters [P, ·] by name, the start's under ``THETA``, and losses to log."""
    rest = {name: value for name, value in values.items() if name != THETA}
    gradients, logs = cast(Any, algorithm).meta_gradient(loss, values[THETA], episodes, **rest)
    return (gradients if rest else {THETA: gradients}), logs


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
