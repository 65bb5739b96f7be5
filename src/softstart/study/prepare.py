"""From a declared study to one that can run: load the backbone, read and encode the tasks, make the plan."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from softstart.backbone import load_backbone
from softstart.console import Display
from softstart.encoding import encode_task
from softstart.errors import SoftstartError
from softstart.gym.settings import Setting
from softstart.gym.task import Gym, Task
from softstart.study.plan import Inputs, TaskFacts, make_plan
from softstart.study.run import StudyRun
from softstart.study.spec import Study
from softstart.study.store import Store


def prepare(
    study: Study, setting: Setting, gym: Gym, store: Store, display: Display, device: str | None = None
) -> StudyRun:
    """Load the backbone and the tasks and make the plan.

    Raises:
        SoftstartError: an unknown task or sample, a broken file, a backbone that cannot be loaded.
    """
    display.stage("loading the backbone")
    backbone = load_backbone(
        study.backbone,
        dtype=study.dtype,
        device=device,
        revision=study.revision,
        placement=study.prompt.placement,
    )
    display.stage("reading tasks")
    names = list(dict.fromkeys((*setting.source, *setting.target)))
    loaded = {name: gym.load(name) for name in names}
    loaded = {name: replace(task, test=task.test[: study.test_rows]) for name, task in loaded.items()}
    for name, task in loaded.items():
        needed = set(study.samples) if name in setting.target else set()
        needed |= set(study.source_samples or study.samples) if name in setting.source else set()
        if missing := sorted(needed - set(task.samples)):
            raise SoftstartError(
                f"task '{name}' has no sample {missing[0]}",
                where=gym.name,
                mend=f"It has {', '.join(map(str, sorted(task.samples)))}: set samples.",
            )
    facts = {name: TaskFacts(task.digest, task.metric, shots_of(task)) for name, task in loaded.items()}
    inputs = Inputs(backbone.digest, setting.name, setting.source, setting.target, facts)
    store.set_inputs(inputs.to_json())
    tasks = {name: encode_task(task, backbone.tokenizer, study.text) for name, task in loaded.items()}
    return StudyRun(study, inputs, backbone, tasks, make_plan(study, inputs), store, display)


def shots_of(task: Task) -> int:
    """k of a task's samples: examples a label, or all of them for text-to-text tasks."""
    train = next(iter(task.samples.values())).train
    if task.kind != "classification":
        return len(train)
    return max(Counter(e.outputs[0] for e in train if e.outputs).values(), default=0)
