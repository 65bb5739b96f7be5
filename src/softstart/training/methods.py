"""The gate of all methods: what a method is, and how it learns a start.

A *baseline* starts from scratch (plain prompt tuning, full fine-tuning). A *learner* uses source tasks:
an algorithm of ``softstart.algorithms`` from episodes or mixtures, in the outer loop of ``meta_train``; a
``TaskLearner`` such as SPoT from whole tasks, in its own way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

from torch import Tensor

from softstart.algorithms import ALGORITHMS, Algorithm
from softstart.backbone import Backbone
from softstart.errors import SoftstartError, did_you_mean
from softstart.progress import Progress, silent
from softstart.training.budgets import LIMITS
from softstart.training.configs import MetaConfig
from softstart.training.declared import checked, field_types
from softstart.training.encoding import EncodedTask
from softstart.training.meta_training import MetaTrained, meta_train
from softstart.training.ranges import check_ranges
from softstart.training.spot import Near, SPoT


@dataclass(frozen=True)
class Baseline:
    """A method that learns nothing from source tasks: how reports write it, and its color as a hex code."""

    label: str
    color: str


BASELINES = {
    "pt": Baseline("PT", "#8f9298"),
    "ft": Baseline("FT", "#70285b"),
}
"""Plain prompt tuning and full fine-tuning."""

ALGORITHMS.add("spot", SPoT)

LEARNERS = ALGORITHMS
"""Methods that learn from source tasks: the registry of algorithms, now with SPoT."""


@runtime_checkable
class TaskLearner(Protocol):
    """Learns from whole source tasks instead of episodes, and chooses the start of every target from them."""

    data: ClassVar[str]
    """``tasks``."""

    @property
    def inner_steps(self) -> int:
        """0."""

    @property
    def support_size(self) -> int:
        """0."""

    @property
    def query_size(self) -> int:
        """Rows of one task in a step."""

    def learn(
        self,
        backbone: Backbone,
        tasks: Sequence[EncodedTask],
        start: Tensor,
        config: MetaConfig,
        *,
        samples: Sequence[int] | None = None,
        checkpoint: Path | None = None,
        progress: Progress = silent,
    ) -> MetaTrained:
        """Arguments as ``learn``: start [P, d]. What ``nearest`` needs goes into ``further``."""

    def nearest(
        self,
        backbone: Backbone,
        library: Mapping[str, Tensor],
        cells: Sequence[tuple[EncodedTask, int, int]],
        config: MetaConfig,
    ) -> list[Near]:
        """The start [P, d] of every target (task, sample, seed), from what ``learn`` left in ``further``."""


Learner = Algorithm | TaskLearner


@dataclass(frozen=True)
class Method:
    """A method with every value resolved; ``algorithm`` and ``meta`` are None for the baselines."""

    name: str
    kind: str
    algorithm: Learner | None = None
    meta: MetaConfig | None = None

    @property
    def label(self) -> str:
        """How reports write it: by the label of its kind, or by the name that a study gives to a variant.

        A class that is named by its import path keeps its label under any name.
        """
        if self.name != self.kind and "." not in self.kind:
            return self.name
        declared = BASELINES[self.kind] if self.kind in BASELINES else type(self.algorithm)
        return str(getattr(declared, "label", self.name))

    @property
    def color(self) -> str | None:
        """The color of its kind in reports, a hex code; None: a spare one."""
        declared = BASELINES[self.kind] if self.kind in BASELINES else type(self.algorithm)
        return getattr(declared, "color", None)


def find_method(kind: str, where: str | None = None) -> Baseline | type[Any]:
    """A baseline's entry, or the class of a learner by its name or its import path.

    >>> find_method("maml").label
    'MAML'

    Raises:
        SoftstartError: there is none.
    """
    known = (*BASELINES, *LEARNERS)
    if not isinstance(kind, str) or (kind not in known and "." not in kind):
        kind = str(kind)
        fix = did_you_mean(kind, known) or f"Use one of {', '.join(known)}."
        raise SoftstartError(f"unknown method '{kind}'", where=where, fix=fix)
    return BASELINES[kind] if kind in BASELINES else LEARNERS.find(kind, where)


def resolve_method(name: str, values: Mapping[str, Any], meta: MetaConfig, where: str) -> Method:
    """A method from what a study declares of it.

    Args:
        name: its name in the study; ``values["algorithm"]`` names what it is if its name does not.
        values: overrides of fields of the algorithm and of ``meta``.
        meta: the outer loop of all methods; the result's is of the same type.
        where: the option, or the file and the key, for messages.

    Raises:
        SoftstartError: an unknown method, an override that is not a field of its algorithm or of ``meta``,
            or a number out of range.
    """
    values = dict(values)
    kind = values.pop("algorithm", name)
    algorithm = find_method(kind, where)
    if isinstance(algorithm, Baseline):
        if values:
            raise SoftstartError(f"'{kind}' takes no overrides", where=where)
        return Method(name, kind)
    settings, outer = field_types(algorithm), field_types(type(meta))
    fitting = checked(settings | outer, values, kind, where, strict=True)
    check_ranges(values, where)
    # As written, so that keys stay: a key holds 1 and 1.0 as different texts.
    values = {key: fitting[key] if isinstance(value, Mapping) else value for key, value in values.items()}
    if not LIMITS.isdisjoint(values):
        values = {**{key: None for key in LIMITS - {"steps"} if key in outer}, **values}
    try:
        return Method(
            name,
            kind,
            algorithm(**{k: v for k, v in values.items() if k in settings}),
            replace(meta, **{k: v for k, v in values.items() if k in outer}),
        )
    except ValueError as problem:
        raise SoftstartError(str(problem), where=where) from problem


def learn(
    backbone: Backbone,
    algorithm: Learner,
    tasks: Sequence[EncodedTask],
    start: Tensor,
    config: MetaConfig,
    *,
    samples: Sequence[int] | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> MetaTrained:
    """Learn a start [P, d] from source tasks by any method that learns: ``meta_train``, or SPoT's own way.

    Args:
        backbone: the frozen model.
        algorithm: how to learn.
        tasks: the source tasks.
        start: where learning begins [P, d].
        config: the outer loop.
        samples: seeds of the k-shot samples used; all of a task's samples by default.
        checkpoint: a file to resume from and to save to.
        progress: receives every outer step.

    Raises:
        SoftstartError: as ``meta_train``, or nothing to learn from.

    >>> from softstart import Backbone, MetaConfig, TextFormat, encode_task
    >>> from softstart.gym import load_task
    >>> backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    >>> sources = [load_task("animal_class"), load_task("film_review")]
    >>> tasks = [encode_task(task, backbone, TextFormat("{input}")) for task in sources]
    >>> start = backbone.vocabulary[300:305].clone()  # [P, d]
    >>> spot = resolve_method("spot", {"embedding_steps": 1}, MetaConfig(steps=2, lr=0.3), "example")
    >>> learned = learn(backbone, spot.algorithm, tasks, start, spot.meta)
    >>> tuple(learned.prompt.shape), tuple(learned.further["sources"].shape)
    ((5, 128), (2, 5, 128))
    """
    if algorithm.data == "tasks":
        return cast(TaskLearner, algorithm).learn(
            backbone, tasks, start, config, samples=samples, checkpoint=checkpoint, progress=progress
        )
    return meta_train(
        backbone, cast(Algorithm, algorithm), tasks, start, config,
        samples=samples, checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
