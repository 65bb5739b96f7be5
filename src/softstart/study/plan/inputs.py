"""What a study's numbers depend on besides its declaration: facts of its tasks and its backbones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from softstart.errors import SoftstartError
from softstart.gym.blind import blind
from softstart.gym.task import Task
from softstart.training.budgets import HVP_COST

FIRST = 1
"""The version of the mini gym that older studies used: it is no part of keys."""


@dataclass(frozen=True)
class TaskFacts:
    """What planning and reporting need of a task: its ``Task.digest``, metric and k, and the numbers of rows
    of its test set and of a sample's dev and train sets.
    """

    digest: str
    metric: str
    shots: int
    dev: int = 0
    test: int = 0
    train: int = field(default=0, compare=False)
    """Those with an answer; 0: not known, in folders of older versions."""
    chance: float | None = field(default=None, compare=False)
    majority: float | None = field(default=None, compare=False)
    """Test scores of classes without reading the input (``gym.blind``); None: not known, or no classes."""
    published: tuple[str, ...] = ()
    """The versions of the published gym that its files equal; see ``Task.published``."""


@dataclass(frozen=True)
class Part:
    """One comparison of a study: a variant under a setting.

    ``tasks`` holds every source and target task, ``source_digests`` the ``Task.digest`` of each source task:
    the same task may have another k as a target.
    """

    variant: str
    setting: str
    source: tuple[str, ...]
    target: tuple[str, ...]
    tasks: Mapping[str, TaskFacts]
    source_digests: tuple[str, ...] = ()
    source_rows: int = 0
    """Train and dev rows of all samples of all source tasks; 0: not known."""
    hvp_cost: float = HVP_COST
    """A Hessian-vector product of a source row, in gradients; computed from the data if a budget needs it."""
    gym_version: int | None = None
    """The version of the mini gym's settings; None: the first, or another gym."""


@dataclass(frozen=True)
class BackboneFacts:
    """A backbone as prompts describe it: its digest, their width (d), and what else a ``SoftPrompt`` records.

    ``kind`` is ``PromptKind.facts`` of prompts; None: they are embeddings.
    """

    digest: str
    width: int
    made_on: Mapping[str, str] = field(default_factory=dict)
    kind: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Inputs:
    """What the results of a study depend on besides its declaration; stored with them.

    ``backbone_digest`` is ``Backbone.digest``, ``width`` that of prompts (d); ``made_on`` is whatever else a
    ``SoftPrompt`` records of its backbone (empty in older folders). ``fits`` holds the size of packs by
    variant, where memory was too short for ``pack_size`` when the study began: in other packs, last bits
    would differ.
    """

    backbone_digest: str
    width: int
    parts: tuple[Part, ...]
    made_on: Mapping[str, str] = field(default_factory=dict)
    fits: Mapping[str, int] = field(default_factory=dict)
    tuned: Mapping[str, str] = field(default_factory=dict)
    """Digests of other backbones that fine-tuning starts from, by name (``Study.finetuning_backbone``)."""
    others: Mapping[str, BackboneFacts] = field(default_factory=dict)
    """The backbones of variants whose backbone, or kind of prompts, is not that of the study."""
    kind: Mapping[str, Any] | None = None
    """The kind of the study's prompts, as in ``BackboneFacts``."""

    def of(self, variant: str) -> BackboneFacts:
        """The backbone of a variant."""
        main = BackboneFacts(self.backbone_digest, self.width, self.made_on, self.kind)
        return self.others.get(variant, main)

    def to_json(self) -> str:
        """The text that is stored."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Inputs:
        """Read what ``to_json`` wrote.

        Raises:
            SoftstartError: another version of Softstart wrote it.
        """
        try:
            data = json.loads(text)
            parts = tuple(map(_part, data["parts"]))
            more = {name: data.get(name, {}) for name in ("made_on", "fits", "tuned")}
            others = {name: BackboneFacts(**facts) for name, facts in data.get("others", {}).items()}
            digest, width = data["backbone_digest"], data["width"]
            return cls(digest, width, parts, **more, others=others, kind=data.get("kind"))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as problem:
            raise SoftstartError(
                f"the study was run with another version of Softstart and cannot be read ({problem!r})",
                fix="Run the study again, or use the version that made it.",
            ) from problem


def _part(data: Mapping[str, Any]) -> Part:
    tasks = {
        name: TaskFacts(**{**facts, "published": tuple(facts.get("published", ()))})
        for name, facts in data["tasks"].items()
    }
    lists = {name: tuple(data[name]) for name in ("source", "target", "source_digests")}
    part = Part(data["variant"], data["setting"], tasks=tasks, **lists)  # type: ignore[arg-type]
    return replace(
        part, **{name: data[name] for name in ("source_rows", "hvp_cost", "gym_version") if name in data}
    )


def facts_of(task: Task, *, target: bool = False) -> TaskFacts:
    """The facts of a loaded task; what only a target task needs, of those alone."""
    dev = max(len(sample.dev) for sample in task.samples.values())
    train = max(sum(bool(row.outputs) for row in sample.train) for sample in task.samples.values())
    known = blind(task) if target and task.labels and task.test else None
    return TaskFacts(
        task.digest, task.metric, task.shots, dev, len(task.test), train,
        chance=known.chance if known else None, majority=known.majority if known else None,
        published=task.published,
    )  # fmt: skip
