"""The gate of all methods: what a method is, and how it learns a start.

A *baseline* starts from scratch: plain prompt tuning, whose runs pack with those of learned starts, or a
class of ``softstart.training.baselines`` that trains something else or nothing. A *learner* uses source
tasks: an algorithm of ``softstart.algorithms`` from episodes or mixtures, in the outer loop of
``meta_train``; a ``TaskLearner`` such as SPoT from whole tasks, in its own way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

from torch import Tensor

from softstart.algorithms import ALGORITHMS, Algorithm, is_algorithm
from softstart.backbone import Backbone
from softstart.errors import SoftstartError, did_you_mean
from softstart.progress import Progress, silent
from softstart.registry import Registry
from softstart.training.baselines.base import DEV, SOURCES, TRAIN, Baseline, Unpacked, is_baseline
from softstart.training.baselines.features import FrozenFeatures
from softstart.training.baselines.in_context import InContext
from softstart.training.baselines.prompt_tuning import PromptTuning
from softstart.training.baselines.weights import FineTuning, LoRA, WeightTuning
from softstart.training.baselines.zero_shot import ZeroShot
from softstart.training.budgets import LIMITS
from softstart.training.configs import MetaConfig, PromptSpec
from softstart.training.declared import checked, field_types
from softstart.training.encoding import EncodedTask
from softstart.training.episodes import Context
from softstart.training.meta_training import MetaTrained, meta_train
from softstart.training.ranges import check_ranges
from softstart.training.source_mixture import SourceMixture
from softstart.training.spot import Near, SPoT

BASELINES: Registry[type[Baseline]] = Registry("baseline", is_baseline)
"""Methods that learn nothing from source tasks."""

BASELINES.add("pt", PromptTuning)
BASELINES.add("ft", FineTuning)
BASELINES.add("zero_shot", ZeroShot)
BASELINES.add("in_context", InContext)
BASELINES.add("features", FrozenFeatures)
BASELINES.add("lora", LoRA)

ALGORITHMS.add("spot", SPoT)
ALGORITHMS.add("source_mixture", SourceMixture)

LEARNERS = ALGORITHMS
"""Methods that learn from source tasks: the registry of algorithms, now with those that use whole tasks."""


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

ELSEWHERE: Registry[type[Any]] = Registry("method", lambda thing: is_algorithm(thing) or is_baseline(thing))
"""Methods that are named by their import path."""


@dataclass(frozen=True)
class Method:
    """A method with every value resolved: a baseline, or an ``algorithm`` with its outer loop ``meta``."""

    name: str
    kind: str
    algorithm: Learner | None = None
    meta: MetaConfig | None = None
    baseline: Baseline | None = None

    @property
    def unpacked(self) -> Unpacked | None:
        """The baseline, if its runs are pieces of work of their own; None: they tune prompts in packs."""
        return self.baseline if isinstance(self.baseline, Unpacked) else None

    def begins(self, spec: PromptSpec) -> PromptSpec:
        """The prompts of a study's runs, with the unlearned rows that this method begins with."""
        if isinstance(self.baseline, PromptTuning):
            return self.baseline.begins(spec)
        if self.meta is None or self.meta.demonstrations is None:
            return spec
        return spec.model_copy(update={"demonstrations": self.meta.demonstrations})

    @property
    def has_own_rows(self) -> bool:
        """Whether the prompts of its runs may have other rows than those of other methods with its start."""
        if isinstance(self.baseline, PromptTuning):
            return self.baseline != PromptTuning()
        return self.meta is not None and self.meta.demonstrations is not None

    def context(self, spec: PromptSpec) -> int:
        """How many rows of the prompts of its episodes are demonstrations; 0: its episodes have none.

        Raises:
            SoftstartError: it has no episodes, or no number of rows for them.
        """
        if self.meta is None or self.meta.demonstrated == "target":
            return 0
        if self.algorithm is None or self.algorithm.data != "episodes":
            raise SoftstartError(
                f"'{self.kind}' does not learn from episodes, so they hold no demonstrations",
                fix="Set demonstrated: target, or use a method with episodes such as maml.",
            )
        rows = self.begins(spec).demonstrations
        if rows is None or rows == "all":
            raise SoftstartError(
                "demonstrated: episodes needs a number of rows, the same for all episodes",
                fix="Set demonstrations: 40, or another number.",
            )
        return rows

    @property
    def uses(self) -> tuple[str, ...]:
        """What it may use: source tasks, and train and dev rows of the target task."""
        return (SOURCES, TRAIN, DEV) if self.baseline is None else self.baseline.uses

    @property
    def trains(self) -> str:
        """What it trains, in a few words."""
        return PromptTuning.trains if self.baseline is None else self.baseline.trains

    @property
    def label(self) -> str:
        """How reports write it: by the label of its kind, or by the name that a study gives to a variant.

        A class that is named by its import path keeps its label under any name.
        """
        if self.name != self.kind and "." not in self.kind:
            return self.name
        return str(getattr(self.baseline or self.algorithm, "label", self.name))

    @property
    def color(self) -> str | None:
        """The color of its kind in reports, a hex code; None: a spare one."""
        return getattr(self.baseline or self.algorithm, "color", None)


def find_method(kind: str, where: str | None = None) -> type[Any]:
    """The class of a baseline or a learner by its name or its import path.

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
    if "." in kind:
        return ELSEWHERE.find(kind, where)
    return BASELINES[kind] if kind in BASELINES else LEARNERS.find(kind, where)


def trains_weights(kind: Any) -> bool:
    """Whether what a study calls ``kind`` is a registered baseline that trains weights of the backbone."""
    return isinstance(kind, str) and kind in BASELINES and issubclass(BASELINES[kind], WeightTuning)


def resolve_method(
    name: str, values: Mapping[str, Any], meta: MetaConfig, where: str, study: Any = None
) -> Method:
    """A method from what a study declares of it.

    Args:
        name: its name in the study; ``values["algorithm"]`` names what it is if its name does not.
        values: overrides of fields of the algorithm and of ``meta``.
        meta: the outer loop of all methods; the result's is of the same type.
        where: the option, or the file and the key, for messages.
        study: has what baselines find ``elsewhere``; None: their defaults.

    Raises:
        SoftstartError: an unknown method, an override that is not a field of its algorithm or of ``meta``,
            or a number out of range.
    """
    values = dict(values)
    kind = values.pop("algorithm", name)
    algorithm = find_method(kind, where)
    if is_baseline(algorithm):
        return Method(name, kind, baseline=_baseline(algorithm, kind, values, where, study))
    settings, outer = field_types(algorithm), field_types(type(meta))
    fitting = checked(settings | outer, values, kind, where, strict=True)
    check_ranges(values, where)
    # As written, so that keys stay: a key holds 1 and 1.0 as different texts.
    values = {key: fitting[key] if isinstance(value, Mapping) else value for key, value in values.items()}
    if not LIMITS.isdisjoint(values):
        values = {**{key: None for key in LIMITS - {"steps"} if key in outer}, **values}
    try:
        method = Method(
            name,
            kind,
            algorithm(**{k: v for k, v in values.items() if k in settings}),
            replace(meta, **{k: v for k, v in values.items() if k in outer}),
        )
        if study is not None:
            method.context(study.prompt)
    except ValueError as problem:
        raise SoftstartError(str(problem), where=where) from problem
    except SoftstartError as problem:
        raise SoftstartError(problem.what, where=where, fix=problem.fix) from problem
    return method


def _baseline(made: type[Baseline], kind: str, values: Mapping[str, Any], where: str, study: Any) -> Baseline:
    """A baseline with the settings that its method and its study declare."""
    own = {name: of for name, of in field_types(made).items() if name not in made.elsewhere}
    if values and not own:
        raise SoftstartError(f"'{kind}' takes no overrides", where=where)
    check_ranges(values, where)
    tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    given = {} if study is None else {name: getattr(study, of) for name, of in made.elsewhere.items()}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    try:
        return made(**given, **checked(own, tuples, kind, where, strict=True))
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
    context: Context | None = None,
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
        context: demonstrations in the prompts of episodes, for methods that have them.
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
        samples=samples, context=context, checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
