"""Declaring and planning: strict files, keys that change exactly when a number could."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3

import pytest
import yaml

from helpers.rows import SOURCE, STUDY, TARGET, run_row
from softstart.errors import SoftstartError
from softstart.study.declare.spec import resolve_methods
from softstart.study.declare.study_file import parse_study
from softstart.study.plan.inputs import Inputs, Part, TaskFacts
from softstart.study.plan.plan import make_plan
from softstart.study.results.folder import prompt_path
from softstart.study.results.stores import open_store
from softstart.training.evaluation import Assessment

DIGESTS = {name: name * 2 for name in (*SOURCE, *TARGET)}


def plan(changes=None, digests=DIGESTS, backbone="b", fits=None):
    study = parse_study(yaml.safe_dump({**STUDY, **(changes or {})}), "study.yaml")
    facts = {name: TaskFacts(digest, "ACC", 16) for name, digest in digests.items()}
    sources = tuple(digests[name] for name in SOURCE)
    part = Part("main", "x", tuple(SOURCE), tuple(TARGET), facts, sources)
    inputs = Inputs(backbone, 8, (part,), fits=fits or {})
    assert Inputs.from_json(inputs.to_json()) == inputs
    return make_plan(study, inputs)


def keys(plan):
    return {n.key for n in plan.metas}, {r.key for r in plan.runs}


def test_a_plan_is_the_product_of_its_axes():
    p = plan({"meta_seeds": [1, 2]})
    assert len(p.metas) == 2 * 2
    assert len(p.cells) == 4 * 2 * 2 * 2  # methods x tasks x samples x seeds
    assert {len(c.runs) for c in p.cells if c.method.kind == "ft"} == {4}
    assert {len(c.runs) for c in p.cells if c.method.kind != "ft"} == {2}
    assert len(keys(p)[1]) == len(list(p.runs))
    starts = {m.key for m in p.metas}
    assert all((r.start in starts) == (r.method.kind == "maml") for r in p.runs)


@pytest.mark.parametrize(
    ("changes", "metas", "runs"),
    [
        ({"name": "renamed"}, "same", "same"),
        ({"pack_size": 3}, "same", "same"),
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metod": {}}, "study.yaml: metod: Extra inputs are not permitted"),
        (
            {"methods": {"mmaml": {}}},
            "methods.mmaml: unknown method 'mmaml'. Did you mean maml or",
        ),
        ({"methods": {"maml": {"inner_rate": 1}}}, "'inner_rate' is not a field of maml. Known: .*inner_lr"),
        ({"methods": {"pt": {"lr": 1}}}, "'pt' takes no overrides"),
        ({"methods": {}}, "methods: Dictionary should have at least 1 item"),
        ({"learning_rates": [0]}, "learning_rates.0: Input should be greater than 0"),
        ({"adaptation": {"stepz": 1}}, "adaptation.stepz: Unexpected keyword argument"),
        ({"adaptation": {"steps": 0}}, "AdaptConfig.steps must be greater than 0"),
        ({"prompt": {"placement": "middle"}}, "prompt.placement: unknown placement 'middle'"),
    ],
)
def test_a_mistake_is_one_line_with_its_key(changes, message):
    with pytest.raises(SoftstartError, match=message) as caught:
        parse_study(yaml.safe_dump({**STUDY, **changes}), "study.yaml")
    assert "\n" not in str(caught.value)


def test_broken_yaml_and_tags_are_refused():
    for text in ("a: [1", "- 1", "a: !!python/object/apply:os.system [ls]"):
        with pytest.raises(SoftstartError, match=r"study\.yaml: "):
            parse_study(text, "study.yaml")


def test_overrides_reach_nested_keys_and_methods():
    text = yaml.safe_dump(STUDY)
    study = parse_study(text, "s", ["meta.steps=7", "methods.maml.inner_lr=0.25", "samples=[42]"])
    maml = next(m for m in resolve_methods(study) if m.name == "maml")
    assert (maml.meta.steps, maml.algorithm.inner_lr, maml.algorithm.inner_steps) == (7, 0.25, 3)
    assert study.samples == [42]
    for bad in ("meta", "name.x=1"):
        with pytest.raises(SoftstartError, match="override"):
            parse_study(text, "s", [bad])


def test_the_store_keeps_rows_across_processes_and_all_or_nothing(tmp_path):
    with open_store(tmp_path) as store:
        store.add(runs=[run_row("a"), run_row("b", dev=float("nan")), run_row("gone", prompt="p")])
        with pytest.raises(SoftstartError):
            store.add(runs=[run_row("c"), {"key": "d", "nonsense": 1}])
        store.add(tests={("a", 1): Assessment(0.75, {"outside": 0.5})})
    with open_store(tmp_path) as store:
        runs, tests = store.runs(), store.tests()
    assert runs.keys() == {"a", "b"}
    assert runs["b"]["dev"] is None
    assert runs["a"]["curve"] == [[0, 0.1, None]]
    assert json.loads(runs["a"]["environment"]) == {}
    assert {of: row["test"] for of, row in tests.items()} == {("a", 1): 0.75}
    assert json.loads(tests["a", 1]["companions"]) == {"outside": 0.5}


def test_a_meta_training_without_its_prompt_counts_as_missing(tmp_path):
    with open_store(tmp_path) as store:
        row = {"key": "m", "method": "maml", "seed": 1, "seconds": 1.0, "prompt": "p", "curve": []}
        store.add(metas=[{**row, "environment": {}}])
        assert store.metas() == {}
        prompt_path(store.folder, "m").write_bytes(b"x")
        assert store.metas().keys() == {"m"}


def test_a_second_writer_a_newer_schema_and_a_damaged_file_are_refused(tmp_path):
    with (
        open_store(tmp_path),
        pytest.raises(SoftstartError, match=rf"another process .* \(pid {os.getpid()}\)"),
    ):
        open_store(tmp_path)
    with sqlite3.connect(tmp_path / "study.db") as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(SoftstartError, match=r"schema 99, this Softstart knows 3\. Update Softstart"):
        open_store(tmp_path)
    (tmp_path / "study.db").write_bytes(b"not a database, but long enough to look at" * 50)
    for name in ("study.db-wal", "study.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(SoftstartError, match="move it away and run again"):
        open_store(tmp_path)
