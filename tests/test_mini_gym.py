"""The mini gym: enough tasks, disjoint and balanced splits, the same everywhere, apart from pretraining."""

import re
import subprocess
import sys
from collections import Counter

import pytest

from softstart.errors import SoftstartError
from softstart.gym.mini import MINI_SETTINGS, MiniGym
from softstart.gym.mini.spec import TASKS
from softstart.gym.task import Task
from softstart.tiny import corpus
from softstart.tiny.world import FIELDS, world

GYM = MiniGym()


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return [GYM.load(name) for name in GYM.tasks()]


def rows(task):
    return [e for s in task.samples.values() for e in (*s.train, *s.dev)] + list(task.test)


def test_many_tasks_in_many_families(tasks):
    assert len(tasks) >= 60
    assert len({task.category for task in tasks}) >= 10
    assert list(GYM.tasks()) == sorted(GYM.tasks())
    assert {task.metric for task in tasks} == {"Classification-F1", "ACC", "EM", "QA-F1"}


def test_sizes_balance_and_disjoint_inputs(tasks):
    for task in tasks:
        assert list(task.samples) == [13, 21, 42, 87, 100]
        assert 100 <= len(task.test) <= 150
        test = {e.input for e in task.test}
        assert len(test) == len(task.test)
        for sample in task.samples.values():
            train, dev = ({e.input for e in part} for part in (sample.train, sample.dev))
            assert len(train) == len(sample.train) == len(sample.dev) == len(dev)
            assert not train & dev
            assert not (train | dev) & test
            if task.kind == "classification":
                for part in (sample.train, sample.dev):
                    assert Counter(e.outputs[0] for e in part) == dict.fromkeys(task.labels, 16)
            else:
                assert len(train) == 32
        if task.kind == "classification":
            assert len(set(Counter(e.outputs[0] for e in task.test).values())) == 1
            assert set(task.labels) == set(TASKS[task.name].labels.values())


def test_samples_differ(tasks):
    for task in tasks:
        assert len({sample.train for sample in task.samples.values()}) == 5


def test_the_same_in_another_process(tasks):
    names = list(GYM.tasks())[::9]
    code = (
        f"from softstart.gym.mini import MiniGym\nprint(*(MiniGym().load(name).digest for name in {names!r}))"
    )
    for seed in ("1", "2"):
        env = {"PYTHONHASHSEED": seed}
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
        )
        assert out.stdout.split() == [GYM.load(name).digest for name in names]


def test_settings_keep_sources_and_targets_apart():
    assert {"cls2cls", "nocls2cls", "both2cls", "cls2nocls", "random"} <= set(MINI_SETTINGS)
    known = set(GYM.tasks())
    targets = {name for setting in MINI_SETTINGS.values() for name in setting["target"]}
    for setting in MINI_SETTINGS.values():
        source, target = setting["source"], setting["target"]
        assert len(source) == len(set(source)) >= 24
        assert 8 <= len(target) == len(set(target)) <= 10
        assert not set(source) & targets
        assert set(source) | set(target) <= known
    kinds = {GYM.load(name).category.split("/")[0] for name in MINI_SETTINGS["random"]["target"]}
    assert kinds == {"classification", "qa", "other"}
    assert all(GYM.load(name).kind == "classification" for name in MINI_SETTINGS["cls2cls"]["source"])
    assert not any(GYM.load(name).kind == "classification" for name in MINI_SETTINGS["nocls2cls"]["source"])


def test_targets_are_made_of_held_back_entities(tasks):
    w = world(0)
    held, seen = w.held.entities - w.seen.entities, w.seen.entities - w.held.entities
    shared = {*w.colors, *w.months, *w.days, *w.numbers, *w.places, *w.reviewed, *w.plain, *w.neutral}
    shared |= {word for events in w.all.events.values() for event in events for word in event.split()}
    shared |= {home for _, home, _ in w.all.animals.values()}  # "river" is also a noun with a plural
    for task in tasks:
        words = {word for e in rows(task) for word in re.findall(r"\w+", f"{e.input} {e.outputs[0]}")}
        wrong = words & (seen if TASKS[task.name].target else held)
        fixed = set(TASKS[task.name].labels.values())
        assert wrong - shared - fixed <= FRAMES, (task.name, wrong - shared - fixed)


#: Seen words that are part of a template of a target task.
FRAMES = {"find", "found", "city"}


def test_pretraining_contains_no_gym_input(tasks):
    """Neither an input, nor its fields, nor an input without field names followed by its output."""
    inputs = {e.input for task in tasks for e in rows(task)}
    marked = re.compile(rf"^({'|'.join(FIELDS)}): ")
    assert all(marked.match(text) for text in inputs)
    names = re.compile(rf"\b({'|'.join(FIELDS)}): ?")
    answered = {names.sub("", f"{e.input} {e.outputs[0]}") for task in tasks for e in rows(task)}
    for text in corpus.stream(world(0), 11, 30_000):
        assert text not in inputs
        assert text.rstrip(".") not in answered
        assert not names.search(text)


def test_unknown_task_is_named():
    with pytest.raises(SoftstartError, match="unknown task 'moon'"):
        GYM.load("moon")
