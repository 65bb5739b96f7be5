"""The rule that splits the mini gym's tasks into the settings of a version, fixed before any meta-training.

Sources are the tasks made of seen entities. Among the candidates, which are made of held-back entities by
templates of their own, the rule takes those on which plain prompt tuning (60 steps, measured on samples that
no study uses, see ``facts.py``) lies at least ``MARGIN`` above chance and as much below the oracle. A setting
takes targets from its families in turn, each in an order drawn from a seed, up to a maximum. So no score of
a learned start can move a task.

The shapes follow Qin et al. (2023): settings with the same targets have equally many sources (two thirds as
many for question answering), and half of the sources of ``both`` are of each kind.

The rule shuffles all names it is given, so one more task can change every setting. That is why a version
keeps what the rule made of the tasks of its time (``versions.py``).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from softstart.gym.mini.facts import facts
from softstart.gym.mini.spec import MiniTask
from softstart.gym.mini.tasks import TASKS
from softstart.gym.setting import Setting

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


def split(names: Iterable[str]) -> dict[str, Setting]:
    """The settings that the rule makes of the tasks of these names; those without a target are left out."""
    tasks = [TASKS[name] for name in sorted(names)]
    sources, targets = partial(_sources, tasks), partial(_targets, tasks)
    size = min(len(sources(_is_class)), len(sources(_is_other)))
    cls, nocls = sources(_is_class, size), sources(_is_other, size)
    both = sorted(sources(_is_class, (size + 1) // 2) + sources(_is_other, size // 2))
    qa = sources(_is_qa)
    to_cls, to_nocls, to_qa = targets(_is_class), targets(_is_other), targets(_is_qa)
    sides = {
        "mini-random": (sources(_is_any), targets(_is_any)),
        "mini-cls2cls": (cls, to_cls),
        "mini-nocls2cls": (nocls, to_cls),
        "mini-both2cls": (both, to_cls),
        "mini-cls2nocls": (cls, to_nocls),
        "mini-nocls2nocls": (nocls, to_nocls),
        "mini-qa2qa": (qa, to_qa),
        "mini-noqa2qa": (sources(_is_not_qa, len(qa) * 3 // 2), to_qa),
        "mini-nonpara2para": (sources(_is_other_class), targets(_is_paraphrase, FAMILY_TARGETS)),
    }
    return {
        name: Setting(name, tuple(source), tuple(target))
        for name, (source, target) in sides.items()
        if target
    }


def _shuffled(names: Iterable[str], purpose: str) -> list[str]:
    names = sorted(names)
    random.Random(f"mini split {purpose}").shuffle(names)
    return names


def _targets(tasks: Sequence[MiniTask], chosen: Chooser, most: int = TARGETS) -> list[str]:
    """Eligible candidates, one family after the other and round again, in the order drawn."""
    eligible = [task for task in tasks if chosen(task) and standing(task.name) == "eligible"]
    families = _shuffled({task.category for task in eligible}, "families")
    queues = [
        _shuffled((task.name for task in eligible if task.category == family), family) for family in families
    ]
    rounds = [queue[i] for i in range(len(eligible)) for queue in queues if i < len(queue)]
    return sorted(rounds[:most])


def _sources(tasks: Sequence[MiniTask], chosen: Chooser, most: int | None = None) -> list[str]:
    """Source tasks, at most the first ``most`` in the order drawn."""
    names = (task.name for task in tasks if chosen(task) and not task.candidate)
    return sorted(_shuffled(names, "sources")[:most])


def _is_any(task: MiniTask) -> bool:
    return True


def _is_class(task: MiniTask) -> bool:
    return task.kind == "classification"


def _is_other(task: MiniTask) -> bool:
    return not _is_class(task)


def _is_qa(task: MiniTask) -> bool:
    return task.category.startswith("qa/")


def _is_not_qa(task: MiniTask) -> bool:
    return not _is_qa(task)


def _is_paraphrase(task: MiniTask) -> bool:
    return task.category == "classification/paraphrase"


def _is_other_class(task: MiniTask) -> bool:
    return _is_class(task) and not _is_paraphrase(task)
