"""The settings of the mini gym: a rule, fixed before any meta-training, splits the tasks.

Sources are the tasks made of seen entities. Among the candidates, which are made of held-back entities by
templates of their own, the rule takes those on which plain prompt tuning (60 steps, measured on samples that
no study uses, see ``facts.py``) lies at least ``MARGIN`` above chance and as much below the oracle. A setting
goes round its families and takes from each the next one in an order drawn from a seed, up to a number. So no
score of a learned start can move a task, and what is not a target is listed with the reason (``role``).

The shapes follow Qin et al. (2023): settings with the same targets have equally many sources (two thirds as
many for question answering), and half of ``both`` are of each kind.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import cache

from softstart.gym.mini.facts import facts
from softstart.gym.mini.spec import TASKS, MiniTask

#: Room that plain prompt tuning must leave on both sides (fractions of the metric).
MARGIN = 0.10
#: Most targets of a setting, and of one about a single family.
TARGETS, FAMILY_TARGETS = 8, 4

Chooser = Callable[[MiniTask], bool]


def standing(name: str) -> str:
    """A task by the rule: "source", "eligible", "at chance", "saturated" or "not measured"."""
    if not TASKS[name].candidate:
        return "source"
    known = facts().get(name)
    if known is None or known.pt is None:
        return "not measured"
    if known.pt < known.chance + MARGIN:
        return "at chance"
    return "saturated" if known.pt > known.oracle - MARGIN else "eligible"


def role(name: str) -> str:
    """As ``standing``, but eligible tasks are "target" if a setting uses them, else "not drawn"."""
    place = standing(name)
    if place != "eligible":
        return place
    return "target" if any(name in setting["target"] for setting in MINI_SETTINGS.values()) else "not drawn"


def _shuffled(names: Iterable[str], purpose: str) -> list[str]:
    names = sorted(names)
    random.Random(f"mini split {purpose}").shuffle(names)
    return names


def _targets(chosen: Chooser, most: int = TARGETS) -> list[str]:
    """Eligible candidates in turn from every family, in the order drawn."""
    names = [x for x, task in TASKS.items() if chosen(task) and standing(x) == "eligible"]
    families = _shuffled({TASKS[x].category for x in names}, "families")
    queues = [_shuffled((x for x in names if TASKS[x].category == family), family) for family in families]
    turns = [queue[turn] for turn in range(len(names)) for queue in queues if turn < len(queue)]
    return sorted(turns[:most])


def _sources(chosen: Chooser, most: int | None = None) -> list[str]:
    """Source tasks, or so many of them as drawn."""
    return sorted(
        _shuffled((x for x, task in TASKS.items() if chosen(task) and not task.candidate), "sources")[:most]
    )


def _is_class(task: MiniTask) -> bool:
    return task.kind == "classification"


def _is_other(task: MiniTask) -> bool:
    return not _is_class(task)


def _is_qa(task: MiniTask) -> bool:
    return task.category.startswith("qa/")


def _is_paraphrase(task: MiniTask) -> bool:
    return task.category == "classification/paraphrase"


@cache
def _settings() -> dict[str, dict[str, list[str]]]:
    size = min(len(_sources(_is_class)), len(_sources(_is_other)))
    cls, nocls = _sources(_is_class, size), _sources(_is_other, size)
    both = sorted(_sources(_is_class, (size + 1) // 2) + _sources(_is_other, size // 2))
    qa = _sources(_is_qa)
    to_cls, to_nocls, to_qa = _targets(_is_class), _targets(_is_other), _targets(_is_qa)
    settings = {
        "mini-random": {"source": _sources(lambda _: True), "target": _targets(lambda _: True)},
        "mini-cls2cls": {"source": cls, "target": to_cls},
        "mini-nocls2cls": {"source": nocls, "target": to_cls},
        "mini-both2cls": {"source": both, "target": to_cls},
        "mini-cls2nocls": {"source": cls, "target": to_nocls},
        "mini-nocls2nocls": {"source": nocls, "target": to_nocls},
        "mini-qa2qa": {"source": qa, "target": to_qa},
        "mini-noqa2qa": {
            "source": _sources(lambda task: not _is_qa(task), len(qa) * 3 // 2),
            "target": to_qa,
        },
        "mini-nonpara2para": {
            "source": _sources(lambda task: _is_class(task) and not _is_paraphrase(task)),
            "target": _targets(_is_paraphrase, FAMILY_TARGETS),
        },
    }
    return {name: setting for name, setting in settings.items() if setting["target"]}


#: Setting → its source and target tasks.
MINI_SETTINGS: dict[str, dict[str, list[str]]] = _settings()
