"""What is known about every mini task: levels that need no model, and the scores in ``facts.json``.

``facts.json`` is written by ``benchmarks/gym_facts``, which measures plain prompt tuning and
fine-tuning of the embedded model on samples that no study uses. Whether a candidate becomes a target is read
from it (``split.py``), so a new model needs new facts. No learned start has any part in them.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from softstart.gym.metrics import score
from softstart.gym.mini.spec import MiniTask, draw_for
from softstart.gym.mini.tasks import TASKS
from softstart.gym.task import Task

FILE = Path(str(resources.files("softstart.gym.mini") / "facts.json"))


@dataclass(frozen=True)
class Facts:
    """Scores of one task on its test set, as fractions of its metric; None where not measured.

    ``chance`` is what blind guessing scores, ``majority`` the best constant answer, ``zero_shot`` the model
    without a prompt, ``pt`` and ``ft`` plain prompt tuning and full fine-tuning after 60 steps, ``oracle``
    the most that any answer to the inputs can score. ``digest`` is that of the task with its five samples.
    """

    digest: str
    chance: float
    majority: float
    oracle: float
    zero_shot: float | None = None
    pt: float | None = None
    ft: float | None = None


@cache
def facts() -> dict[str, Facts]:
    """The committed facts by task; a task declared since they were measured is not among them."""
    return {name: Facts(**values) for name, values in read()["tasks"].items() if name in TASKS}


def read() -> dict[str, Any]:
    """The content of the facts file: how it was measured, the backbone's digest, the tasks."""
    if not FILE.is_file():
        return {"tasks": {}}
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def levels(task: Task, samples: int = 1000) -> dict[str, float]:
    """``chance``, ``majority`` and ``oracle`` of a task, which need no model.

    Majority is the best score of one answer for the whole test set, of its twenty most frequent ones.
    Chance is one in the number of classes, or of answers of the right sort that an input offers
    (``MiniTask.options``: for a reader who knows what kind of answer is wanted, but not which), or the
    majority if that is more. The oracle answers every test input with its most frequent output among
    ``samples`` new examples and the test set itself: 1 where no input has two outputs.
    """
    declared = TASKS[task.name]
    references = [e.outputs for e in task.test]
    frequent = [x for x, _ in Counter(outputs[0] for outputs in references).most_common(20)]
    majority = max(score(task.metric, [x] * len(references), references) for x in frequent)
    options = len(task.labels) or declared.options
    best = _best_answers(declared, task, samples)
    return {
        "chance": round(max(majority, 1 / options if options else 0.0), 4),
        "majority": round(majority, 4),
        "oracle": round(score(task.metric, [best[e.input] for e in task.test], references), 4),
    }


def _best_answers(declared: MiniTask, task: Task, samples: int) -> dict[str, str]:
    seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for example in task.test:
        seen[example.input][example.outputs[0]] += 1
    draw, keys = draw_for(declared, "oracle"), tuple(declared.labels) or (None,)
    for i in range(samples):
        text, output = declared.example(draw, keys[i % len(keys)])
        if text in seen:
            seen[text][output] += 1
    return {text: outputs.most_common(1)[0][0] for text, outputs in seen.items()}
