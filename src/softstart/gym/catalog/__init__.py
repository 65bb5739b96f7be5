"""What is known about published few-shot tasks before any file is read: kind, metric, category, shots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

import yaml

from softstart.gym.task import Kind


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """The facts that a folder of rows does not tell.

    ``shots`` is the published number of training rows: per label for classification, in total for
    text-to-text. ``category`` is a path in the task ontology, broad to narrow ("classification/emotion").
    """

    kind: Kind
    metric: str
    category: str
    shots: int


@cache
def crossfit_catalog() -> Mapping[str, TaskFacts]:
    """The 160 tasks of the NLP Few-shot Gym (CrossFit, Ye et al. 2021), by name."""
    text = (resources.files(__name__) / "crossfit.yaml").read_text(encoding="utf-8")
    return MappingProxyType({name: TaskFacts(**facts) for name, facts in yaml.safe_load(text).items()})
