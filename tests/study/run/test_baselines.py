"""Every baseline in one study: to the tables and the report, on a random backbone."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers.declared import SETTING, facts, study
from helpers.toy_study import toy
from softstart.study import report_study, run_study
from softstart.study.plan.inputs import Inputs
from softstart.study.plan.plan import make_plan
from softstart.study.results.report_files import write_report_files
from softstart.study.results.stores import open_store
from softstart.study.run.work_graph import StoredRows, WorkGraph

METHODS = {
    "pt": {},
    "context": {"algorithm": "pt", "init": "demonstrations"},
    "zero_shot": {},
    "written": {"algorithm": "zero_shot", "scoring": "generate"},
    "in_context": {"draws": 2, "demonstrations": 3},
    "features": {},
    "lora": {"rank": 2, "learning_rates": [0.01]},
    "ft": {},
}


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("baselines") / "study"
    one = {"name": "one", "source": ["toy-a"], "target": ["toy-c"]}
    changes = {"methods": METHODS, "meta_seeds": [42, 43], "learning_rates": [0.2], "setting": one}
    declared = toy(world, **changes, finetuning={"steps": 4, "eval_every": 2, "budgets": [2, 4]})
    outcome = run_study(declared, folder, device="cpu")
    assert (outcome.failures, outcome.missing) == ([], 0)
    return declared, folder


def test_every_baseline_has_a_tested_result_for_every_cell(done):
    _, folder = done
    rows = pd.read_csv(folder / "results.csv")
    assert rows["test"].between(0, 1).all()
    cells = rows.groupby("method").size() / (2 * 2)  # samples, seeds
    assert cells.to_dict() == {**dict.fromkeys(METHODS, 1), "lora": 2, "ft": 2}
    budgets = rows.groupby("method")["budget"].unique().map(sorted).to_dict()
    assert budgets == {
        "pt": [8], "context": [8],
        **{name: [0] for name in ("zero_shot", "written", "in_context", "features")},
        "lora": [2, 4], "ft": [2, 4],
    }  # fmt: skip


def test_what_depends_on_no_seed_is_computed_once(done):
    _, folder = done
    rows = pd.read_csv(folder / "results.csv").groupby("method")["run"].nunique().to_dict()
    assert {name: rows[name] for name in ("zero_shot", "features")} == {"zero_shot": 2, "features": 2}
    assert rows["in_context"] == 4


def test_each_says_how_it_predicts_what_it_trains_and_what_is_stored(done):
    _, folder = done
    runs = pd.read_csv(folder / "runs.csv").drop_duplicates("method").set_index("method")
    assert runs["protocol"].str.split(";").str[0].to_dict() == {
        **dict.fromkeys(METHODS, "likeliest label"), "written": "generated",
    }  # fmt: skip
    assert runs["trained"].to_dict() == {
        "pt": 4 * 16, "context": 4 * 16, "zero_shot": 0, "written": 0, "in_context": 0, "features": 2 * 17,
        "lora": 2 * 2 * 3 * 2 * 28, "ft": runs.loc["ft", "stored"] / 4,
    }  # fmt: skip
    assert runs.loc["pt", "stored"] == 4 * 4 * 16
    assert (runs.loc[["in_context", "features"], "stored"] > 0).all()
    assert (runs.loc[["pt", "features", "lora", "ft"], "flops"] > 0).all()
    assert (runs.loc[["zero_shot", "in_context"], "flops"] == 0).all()


def test_nothing_is_left_to_compute(done):
    declared, folder = done
    with open_store(folder, readonly=True) as store:
        inputs, state = Inputs.from_json(store.inputs()), StoredRows.of(store)
    assert WorkGraph(make_plan(declared, inputs), inputs, state, folder).units == []


@pytest.mark.parametrize(
    ("name", "values", "same"),
    [
        ("zero_shot", {"scoring": "rank"}, False),
        ("in_context", {"draws": 5}, False),
        ("in_context", {"separator": " "}, False),
        ("features", {"inverse_strengths": [1.0]}, False),
        ("lora", {"rank": 4}, False),
        ("lora", {"learning_rates": [3e-3, 1e-3, 3e-4, 1e-2]}, True),
    ],
)
def test_a_key_follows_the_settings_of_its_baseline(name, values, same):
    inputs = facts(("s1", "s2", "t1", "t2"))
    old, new = (
        {run.key for run in make_plan(study(setting=SETTING, methods={"pt": {}, name: of}), inputs).runs
         if run.method.kind == name}
        for of in ({}, values)
    )  # fmt: skip
    assert (old <= new) if same else not old & new


def test_a_start_of_its_own_changes_the_keys_of_its_method_alone():
    inputs = facts(("s1", "s2", "t1", "t2"))

    def keys(**methods):
        runs = list(make_plan(study(setting=SETTING, methods={"pt": {}, **methods}), inputs).runs)
        return {name: {run.key for run in runs if run.method.name == name} for name in ("pt", "own")}

    alone, labels, same = (
        keys(),
        *(keys(own={"algorithm": "pt", "init": init}) for init in ("labels", "vocabulary")),
    )
    assert alone["pt"] == labels["pt"]
    assert labels["own"]
    assert not labels["own"] & labels["pt"]
    assert same["own"] == set()  # the same runs as those of pt


def test_the_report_says_how_probabilities_hold_and_what_each_may_use(done):
    _, folder = done
    rows = pd.read_csv(folder / "results.csv").set_index("method")
    assert rows.loc["written", "ece"].isna().all()
    ranked = rows.drop(index="written")
    for column in ("ece", "accuracy", "accuracy_at_half"):
        assert ranked[column].between(0, 1).all()
    assert (ranked["accuracy"] == ranked["test"]).all()  # the metric of the toy tasks
    outcome = report_study(folder)
    write_report_files(outcome, ["softstart report"])
    stands = outcome.footing.set_index("method")
    assert stands["uses"].to_dict() == {
        **dict.fromkeys(("pt", "context", "features", "lora", "ft"), "train rows and dev rows"),
        **dict.fromkeys(("zero_shot", "written"), "nothing"), "in_context": "train rows",
    }  # fmt: skip
    assert stands.loc["ft", "trained"] > stands.loc["lora", "trained"] > stands.loc["pt", "trained"] > 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    for title in ("Do the probabilities hold?", "On equal footing?"):
        assert title in page
        assert f"## {title}" in text
    for name in ("calibration", "footing"):
        assert {f"{name}.csv", f"{name}.tex"} <= {file.name for file in (folder / "report").iterdir()}
