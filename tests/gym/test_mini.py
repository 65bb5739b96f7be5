"""The mini gym: enough tasks, disjoint and balanced splits, the same everywhere, apart from pretraining."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

import softstart
from helpers.gym_cli import gym
from softstart.backbone import TINY, load_backbone
from softstart.errors import SoftstartError
from softstart.gym import load_setting, open_gym
from softstart.gym.mini import MiniGym, mini_settings, new_version
from softstart.gym.mini.facts import facts, levels, read
from softstart.gym.mini.ngrams import mask, ngrams, sharing
from softstart.gym.mini.split import split
from softstart.gym.mini.tasks import TASKS
from softstart.gym.mini.versions import file_of, load_version, role, versions
from softstart.gym.task import Task
from softstart.tiny import corpus
from softstart.tiny.world import FIELDS, world

GYM = MiniGym()
SETTINGS = mini_settings()
TARGETS = {name for setting in SETTINGS.values() for name in setting.target}
USED = TARGETS | {name for setting in SETTINGS.values() for name in setting.source}


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return [GYM.load(name) for name in GYM.tasks()]


def rows(task):
    return [e for s in task.samples.values() for e in (*s.train, *s.dev)] + list(task.test)


def test_many_tasks_in_many_families(tasks):
    assert len(USED) >= 48
    assert len({GYM.load(name).category for name in USED}) >= 12
    assert len({GYM.load(name).category for name in TARGETS}) >= 8
    assert list(GYM.tasks()) == sorted(GYM.tasks())
    assert {task.metric for task in tasks} == {"Classification-F1", "ACC", "EM", "QA-F1", "Rouge-L"}


def test_sizes_balance_and_disjoint_inputs(tasks):
    for task in tasks:
        assert list(task.samples) == [13, 21, 42, 87, 100]
        assert 200 <= len(task.test) <= 210
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


def test_other_samples_leave_the_test_set_alone():
    name = GYM.tasks()[0]
    other, usual = MiniGym((1001,)).load(name), GYM.load(name)
    assert list(other.samples) == [1001]
    assert other.test == usual.test
    assert other.samples[1001].train not in {sample.train for sample in usual.samples.values()}


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


def test_every_task_is_byte_for_byte_the_one_that_was_measured(tasks):
    assert {task.name: task.digest for task in tasks} == {name: fact.digest for name, fact in facts().items()}
    assert read()["backbone"] == load_backbone(TINY, device="cpu").digest, "run benchmarks/gym_facts"


def test_levels_that_need_no_model():
    for name in list(GYM.tasks())[::3]:
        known = facts()[name]
        measured = levels(GYM.load(name))
        assert measured == {"chance": known.chance, "majority": known.majority, "oracle": known.oracle}
    assert facts()["animal_class"].chance == 1 / 5
    assert facts()["animal_class"].majority == pytest.approx(2 / (1 + 5) / 5, abs=1e-4)  # F1 of one class
    assert facts()["choose_kind"].chance == 1 / 4
    swapped = Counter(e.outputs[0] for e in GYM.load("swap_words").test).most_common(1)[0][1] / 200
    assert facts()["swap_words"].chance == facts()["swap_words"].majority == swapped
    assert {fact.oracle for fact in facts().values()} == {1.0}


def test_the_oracle_pays_for_contradictions(monkeypatch):
    task = GYM.load("entail_place")
    first = task.test[0]
    (other,) = set(task.labels) - {first.outputs[0]}
    contrary = replace(
        TASKS["entail_place"], labels={"yes": other, "no": other}, make=lambda draw, key: first.input
    )
    assert levels(task)["oracle"] == 1
    monkeypatch.setitem(TASKS._entries, "entail_place", contrary)
    assert levels(task)["oracle"] == 1 - 1 / len(task.test)


def test_settings_keep_sources_and_targets_apart():
    names = {"random", "cls2cls", "both2cls", "nocls2cls", "cls2nocls", "nocls2nocls", "qa2qa", "noqa2qa"}
    assert set(SETTINGS) == {f"mini-{name}" for name in names | {"nonpara2para"}}
    s = {name.removeprefix("mini-"): setting for name, setting in SETTINGS.items()}
    for name, setting in s.items():
        source, target = setting.source, setting.target
        assert len(source) == len(set(source)) >= 12, name
        assert 2 <= len(target) == len(set(target)) <= 10, name
        assert not set(source) & TARGETS
        assert set(source) | set(target) <= set(GYM.tasks())
    kinds = {GYM.load(name).category.split("/")[0] for name in s["random"].target}
    assert kinds >= {"classification", "qa", "other"}
    for left, right in (("cls2cls", "nocls2cls"), ("cls2cls", "both2cls"), ("qa2qa", "noqa2qa")):
        assert s[left].target == s[right].target
    assert s["cls2nocls"].target == s["nocls2nocls"].target
    assert len(s["cls2cls"].source) == len(s["nocls2cls"].source) == len(s["both2cls"].source)

    def classes(name, side="source"):
        return [GYM.load(task).kind == "classification" for task in getattr(s[name], side)]

    assert all(classes("cls2cls") + classes("cls2cls", "target") + classes("nonpara2para"))
    assert not any(classes("nocls2cls") + classes("nocls2nocls", "target"))
    assert abs(2 * sum(classes("both2cls")) - len(s["both2cls"].source)) <= 1
    categories = {
        side: {GYM.load(x).category for x in getattr(s["qa2qa"], side)} for side in ("source", "target")
    }
    assert all(category.startswith("qa/") for side in categories.values() for category in side)
    assert not any(GYM.load(x).category.startswith("qa/") for x in s["noqa2qa"].source)
    assert {GYM.load(x).category for x in s["nonpara2para"].target} == {"classification/paraphrase"}
    assert not any("paraphrase" in GYM.load(x).category for x in s["nonpara2para"].source)


def test_the_rule_of_the_split_read_from_the_scores_alone():
    """Targets leave plain prompt tuning ten points on both sides; every candidate has its reason."""
    for name, task in TASKS.items():
        fact = read()["tasks"][name]
        above, below = fact["pt"] - fact["chance"], fact["oracle"] - fact["pt"]
        room = above >= 0.1 and below >= 0.1
        expected = (
            {"source"} if not task.candidate else {"target", "not drawn"} if room
            else {"at chance"} if above < 0.1 else {"saturated"}
        )  # fmt: skip
        assert role(name) in expected, name
        assert (role(name) == "target") == (name in TARGETS)
        assert fact["zero_shot"] is not None
        assert fact["ft"] is not None or name not in TARGETS
    dropped = [name for name in TASKS if role(name) == "not drawn"]
    for name in dropped:  # their families were represented before them
        assert any(TASKS[target].category == TASKS[name].category for target in TARGETS)


NEW_SOURCE = """

@classification("sentiment", ("good", "bad"))
def a_new_source(d: Draw, key: str) -> str:
    return f"review: {d.one(d.p.people)} calls it {key}."
"""
NEW_TARGET = """

@word()
def a_new_target(d: Draw) -> tuple[str, str]:
    x = d.one(d.p.verbs)
    return f"word: {x}", x
"""
PRINT_SETTINGS = """
import json
from softstart.gym import load_setting
from softstart.gym.mini.split import split
from softstart.gym.mini.tasks import TASKS
from softstart.gym.mini.versions import role
named = {name: load_setting(name) for name in json.loads(input())}
made = [{name: [s.source, s.target] for name, s in settings.items()} for settings in (named, split(TASKS))]
print(json.dumps([*made, role("a_new_source"), role("a_new_target")]))
"""


def test_a_new_task_leaves_every_setting_as_it_was(tmp_path):
    package = Path(softstart.__file__).parent
    copy = shutil.copytree(package, tmp_path / "softstart", ignore=shutil.ignore_patterns("weights"))
    mini = copy / "gym" / "mini"
    for file, more in (("classes.py", NEW_SOURCE), ("held_words.py", NEW_TARGET)):
        (mini / file).write_text((mini / file).read_text() + more)
    measured = json.loads((mini / "facts.json").read_text())
    measured["tasks"]["a_new_target"] = measured["tasks"]["pick_animal"]
    (mini / "facts.json").write_text(json.dumps(measured))
    done = subprocess.run(
        [sys.executable, "-c", PRINT_SETTINGS], env={**os.environ, "PYTHONPATH": str(tmp_path)},
        input=json.dumps(list(SETTINGS)), capture_output=True, text=True, check=True,
    )  # fmt: skip
    named, by_rule, *roles = json.loads(done.stdout)
    before = {name: [list(s.source), list(s.target)] for name, s in SETTINGS.items()}
    assert named == before
    assert len(before) == 9
    assert sum(by_rule[name] != before[name] for name in before) >= 8, "the tasks are not new to the rule"
    assert roles == ["new", "new"]


def test_the_last_version_is_what_the_rule_makes_of_its_tasks():
    last = load_version(max(versions()))
    assert split(last.tasks) == dict(last.settings)
    assert last.tasks <= set(TASKS)
    assert file_of(max(versions())).read_text() == new_version.text(max(versions()), last.tasks)


def test_versions():
    assert (GYM.version, open_gym("mini", version=1).version) == (1, 1)
    assert load_setting("mini-qa2qa", MiniGym(version=1)) == SETTINGS["mini-qa2qa"]
    for ask in (lambda: MiniGym(version=99), lambda: open_gym(version=99), lambda: mini_settings(0)):
        with pytest.raises(SoftstartError, match=r"no version (99|0) of the mini gym. Use one of 1"):
            ask()


def test_candidates_share_no_template_with_sources(tasks):
    users = defaultdict(set)
    for task in tasks:
        for line in {mask(e.input) for e in rows(task)}:
            users[line].add(task.name)
    for line, names in users.items():
        assert len({TASKS[name].candidate for name in names}) == 1, (" ".join(line), names)


def test_candidates_are_made_of_held_back_entities(tasks):
    w = world(0)
    held, seen = w.held.entities - w.seen.entities, w.seen.entities - w.held.entities
    shared = {*w.colors, *w.months, *w.days, *w.numbers, *w.places, *w.reviewed, *w.plain, *w.neutral}
    shared |= {word for events in w.all.events.values() for event in events for word in event.split()}
    # What is said of animals and foods is shared; "river" and "bird" are also nouns with a plural.
    shared |= {value for facts in (*w.all.animals.values(), *w.all.foods.values()) for value in facts}
    for task in tasks:
        words = {word for e in rows(task) for word in re.findall(r"\w+", f"{e.input} {e.outputs[0]}")}
        wrong = words & (seen if TASKS[task.name].candidate else held)
        fixed = set(TASKS[task.name].labels.values())
        assert wrong - shared - fixed <= FRAMES, (task.name, wrong - shared - fixed)


#: Seen words that are part of a template of a candidate.
FRAMES = {"city", "leaves", "speak"}


def test_pretraining_contains_no_gym_input(tasks):
    """Neither an input, nor an input without field names followed by its output, nor much of a template.

    A larger sample is in experiments/tiny/gym_overlap.md.
    """
    inputs = {e.input for task in tasks for e in rows(task)}
    marked = re.compile(rf"^({'|'.join(FIELDS)}): ")
    assert all(marked.match(text) for text in inputs)
    names = re.compile(rf"\b({'|'.join(FIELDS)}): ?")
    answered = {names.sub("", f"{e.input} {e.outputs[0]}") for task in tasks for e in rows(task)}
    seen = set()
    for text in corpus.stream(world(0), 11, 30_000):
        assert text not in inputs
        assert text.rstrip(".") not in answered
        assert not names.search(text)
        seen |= ngrams(mask(text), 8)
    assert sharing({mask(text) for text in inputs}, seen, 8) < 0.01


def test_listed_with_role_and_levels():
    listed = json.loads(gym("list", "--gym", "mini", "--json").stdout)
    assert [row["name"] for row in listed] == list(GYM.tasks())
    for row in listed:
        assert row["role"] == role(row["name"])
        assert row["pt"] == facts()[row["name"]].pt
    shown = gym("list", "--gym", "mini", "--category", "paraphrase").stdout.splitlines()
    assert shown[0].split()[-6:] == ["chance", "majority", "zero_shot", "pt", "ft", "oracle"]
    cells = {line.split()[0]: line.split()[-6:] for line in shown[1:-1]}
    assert cells["same_word"][0] == "50.0"
    assert float(cells["same_word"][3]) == pytest.approx(100 * facts()["same_word"].pt, abs=0.051)


def test_unknown_task_is_named():
    with pytest.raises(SoftstartError, match="unknown task 'moon'"):
        GYM.load("moon")
