"""Keys: they change exactly when a number could, and keys of old results stay."""

from __future__ import annotations

import hashlib

import pytest

from helpers.declared import facts, study
from helpers.paths import ROOT
from helpers.rows import DIGESTS, keys, plan
from softstart.study import load_study
from softstart.study.cost.estimate import nominal_inputs
from softstart.study.plan.plan import make_plan


@pytest.mark.parametrize(
    ("changes", "metas", "runs"),
    [
        ({"name": "renamed"}, "same", "same"),
        ({"pack_size": 3}, "same", "same"),
        ({"pack_refill": 3}, "same", "same"),
        ({"text_cache": 3}, "same", "same"),
        ({"adaptation": {"max_tokens": 99}}, "same", "same"),
        ({"meta": {"checkpoint_every": 2}}, "same", "same"),
        ({"adaptation": {"steps": 99}}, "same", "prompt runs"),
        ({"finetuning": {"steps": 99}}, "same", "ft runs"),
        ({"evaluation": {"scoring": "rank"}}, "same", "all"),
        ({"meta": {"steps": 77}}, "some", "some"),
        ({"prompt": {"length": 7}}, "all", "prompt runs"),
        ({"text": {"template": "{input}"}}, "all", "all"),
        ({"meta_seeds": [1]}, "all", "all"),
    ],
)
def test_a_key_changes_exactly_when_its_number_could(changes, metas, runs):
    old, new = plan(), plan(changes)
    (old_metas, _), (new_metas, _) = keys(old), keys(new)
    shared = old_metas & new_metas
    assert {"same": shared == old_metas, "all": not shared, "some": 0 < len(shared) < len(old_metas)}[metas]
    for a, b in zip(old.runs, new.runs, strict=True):
        tuned = a.method.kind == "ft"
        uses = {"same": False, "all": True, "prompt runs": not tuned, "ft runs": tuned}
        changed = uses.get(runs, a.method.name == "maml")
        assert (a.key != b.key) == changed, (a.method.name, changes)


DROPOUT = {"adaptation": {"dropout": True}, "meta": {"dropout": True}}


@pytest.mark.parametrize(
    ("changes", "metas", "runs"),
    [
        ({"adaptation": {"dropout": True, "max_tokens": 256}}, "same", "prompt runs"),
        ({"pack_size": 2}, "same", "prompt runs"),
        ({"pack_refill": 2}, "same", "same"),
        ({"meta": {"dropout": True, "max_tokens": 256}}, "all", "maml"),
        ({"meta": {"dropout": True, "memory_budget": 1.0}}, "same", "same"),
        ({"evaluation": {"max_tokens": 256}}, "same", "same"),
    ],
)
def test_under_dropout_a_key_follows_what_cuts_the_batches(changes, metas, runs):
    old, new = plan(DROPOUT), plan({**DROPOUT, **changes})
    assert {"same": keys(old)[0] == keys(new)[0], "all": not keys(old)[0] & keys(new)[0]}[metas]
    for a, b in zip(old.runs, new.runs, strict=True):
        learned = a.method.kind == "maml"
        uses = {"same": False, "prompt runs": a.method.kind != "ft", "maml": learned}
        assert (a.key != b.key) == uses[runs], (a.method.name, changes)


def test_under_dropout_packs_that_had_to_be_smaller_have_other_keys():
    whole, cut = plan(DROPOUT), plan(DROPOUT, fits={"main": 3})
    assert [a.key == b.key for a, b in zip(whole.runs, cut.runs, strict=True)] == [
        run.method.kind == "ft" for run in whole.runs
    ]
    assert keys(plan()) == keys(plan(fits={"main": 3}))


def test_a_start_chosen_under_dropout_depends_on_the_packs():
    methods = {"pt": {}, "spot": {}}
    changes = [{"methods": methods, "meta": {"steps": 3, "dropout": True}, "pack_size": n} for n in (16, 2)]
    old, new = map(plan, changes)
    assert keys(old)[0] == keys(new)[0]
    for a, b in zip(old.runs, new.runs, strict=True):
        assert (a.key != b.key) == (a.method.name == "spot")


def test_results_under_dropout_and_the_defaults_are_still_found():
    every = " ".join(sorted([*keys(plan(DROPOUT))[0], *keys(plan(DROPOUT))[1]]))
    # As version 0.1 made them, whatever the pack size and bounds on tokens were: those were the defaults.
    assert hashlib.md5(every.encode()).hexdigest() == "6a8432f33db842e2246ed18b243fc6f1"


def test_keys_follow_data_and_weights():
    old = keys(plan())
    changed = keys(plan(digests={**DIGESTS, "s1": "other"}))
    assert not old[0] & changed[0]
    assert {r.key for r in plan().runs if r.start is None} <= changed[1]
    target = plan(digests={**DIGESTS, "t1": "other"})
    assert keys(target)[0] == old[0]
    for a, b in zip(plan().runs, target.runs, strict=True):
        assert (a.key != b.key) == (a.task == "t1")
    assert not old[1] & keys(plan(backbone="c"))[1]


def test_options_added_later_leave_the_keys_of_old_results():
    demo = load_study(ROOT / "src/softstart/study/demo.yaml")
    # As it was then.
    second = {"inner_lr": 3.0, "inner_steps": 2, "support_size": 4, "query_size": 8}
    demo = demo.model_copy(update={"methods": {**demo.methods, "maml": second, "fomaml": second}})
    plan = make_plan(demo, nominal_inputs(demo))
    keys = " ".join(sorted([*(m.key for m in plan.metas), *(r.key for r in plan.runs)]))
    # Of protocol 2; a new protocol has new keys.
    assert hashlib.md5(keys.encode()).hexdigest() == "f6b6028f257c30b03c7ec4cd594423e9"


@pytest.mark.parametrize(
    ("changes", "which"),
    [
        ({"prompt": {"draw_per": "seed"}}, "prompts"),
        ({"prompt": {"draw_per": "run"}}, "prompts"),
        ({"prompt": {"frequent": "c4"}}, "prompts"),
        ({"adaptation": {"epochs": 7}}, "adapted"),
        ({"adaptation": {"reshuffle": False}}, "adapted"),
        ({"adaptation": {"batch_parts": 2}}, "adapted"),
        ({"finetuning": {"epochs": 7}}, "tuned"),
        ({"finetuning": {"batch_parts": 2}}, "tuned"),
        ({"finetuning_backbone": "other"}, "tuned"),
        ({"evaluation": {"f1_labels": "gold"}}, "runs"),
        ({"evaluation": {"bounded": False}}, "runs"),
        ({"meta": {"reduction": "sum"}}, "learned"),
        ({"meta": {"inner_lr_unit": "start"}}, "learned"),
        ({"meta": {"max_output_tokens": 9}}, "learned"),
        ({"meta": {"reshuffle": False}}, "learned"),
    ],
)
def test_every_option_changes_the_keys_of_what_it_changes(changes, which):
    inputs = facts(("s1", "s2", "t1", "t2"))
    old, new = (make_plan(study(**c), inputs) for c in ({}, changes))
    metas = {m.key for m in old.metas} & {m.key for m in new.metas}
    assert bool(metas) == (which not in ("prompts", "learned"))
    for a, b in zip(old.runs, new.runs, strict=True):
        tuned, learned = a.method.kind == "ft", a.start is not None
        touched = {"prompts": not tuned, "adapted": not tuned, "tuned": tuned, "learned": learned}
        assert (a.key != b.key) == touched.get(which, True)
