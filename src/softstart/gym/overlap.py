"""What source and target tasks share: the same task, the same dataset under two names, the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import product
from typing import Any, Literal, get_args

import yaml

from softstart.gym.catalog import crossfit_catalog
from softstart.gym.setting import Setting
from softstart.gym.task import Gym, Task

Degree = Literal["task", "dataset", "examples", "rows", "texts"]
"""From worst to mildest: the same task on both sides; the same splits of one dataset; another name for the
same examples; equal inputs found in the gym; passages or sentences in common."""


@dataclass(frozen=True)
class Overlap:
    """A source and a target task that are not independent."""

    source: str
    target: str
    degree: Degree
    why: str


def overlaps(setting: Setting, gym: Gym | None = None) -> list[Overlap]:
    """Every pair of a source and a target task that share data, worst first.

    Without a gym, these are the pairs that the catalog knows of; with one, tasks are also compared input by
    input.
    """
    pairs = [
        overlap
        for source, target in product(setting.source, setting.target)
        if (overlap := _known(source, target)) is not None
    ]
    if gym is not None:
        known = {(overlap.source, overlap.target) for overlap in pairs}
        pairs += [
            overlap for overlap in _equal_rows(setting, gym) if (overlap.source, overlap.target) not in known
        ]
    order = get_args(Degree)
    return sorted(pairs, key=lambda overlap: (order.index(overlap.degree), overlap.source, overlap.target))


def _known(source: str, target: str) -> Overlap | None:
    if source == target:
        return Overlap(source, target, "task", "the same task")
    catalog = crossfit_catalog()
    a, b = catalog.get(source), catalog.get(target)
    if a is None or b is None:
        return None
    data_a, data_b = ((e.dataset.id, e.dataset.config, set(e.splits.names)) for e in (a, b))
    if data_a[0] and data_a[:2] == data_b[:2] and data_a[2] & data_b[2]:
        return Overlap(source, target, "dataset", f"the same rows of {a.dataset.id}")
    for kin in _kin():
        one, other = kin["tasks"], kin.get("with", kin["tasks"])
        if (source in one and target in other) or (source in other and target in one):
            return Overlap(source, target, kin["share"], kin["why"])
    return None


def _equal_rows(setting: Setting, gym: Gym) -> list[Overlap]:
    sources = {name: _learned(gym.load(name)) for name in setting.source}
    pairs = []
    for target in setting.target:
        task = gym.load(target)
        inputs = _learned(task) | {row.input for row in task.test}
        for source, learned in sources.items():
            if source != target and (n := len(learned & inputs)):
                pairs.append(Overlap(source, target, "rows", f"{n} equal input{'s' * (n > 1)} in both"))
    return pairs


def _learned(task: Task) -> set[str]:
    return {row.input for s in task.samples.values() for row in (*s.train, *s.dev)}


@cache
def _kin() -> list[Mapping[str, Any]]:
    text = (resources.files("softstart.gym.catalog") / "kin.yaml").read_text(encoding="utf-8")
    groups: list[Mapping[str, Any]] = yaml.safe_load(text)
    return groups
