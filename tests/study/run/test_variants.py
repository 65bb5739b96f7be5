"""Variants, settings, budgets and seeds of one study."""

from __future__ import annotations

import sqlite3

import pandas as pd
import pytest

from helpers.toy_study import contents, toy
from softstart.backbone import TINY, load_backbone
from softstart.prompt import SoftPrompt
from softstart.study import run_study
from softstart.study.results.folder import prompt_path


def test_variants_change_what_they_name_and_share_the_rest(world, tmp_path):
    study = toy(
        world,
        methods={"pt": {}, "reptile": {"inner_lr": 0.1}},
        variants={
            "short": {"prompt.length": 2},
            "after": {"prompt.placement": "suffix"},
            "one source": {"source_tasks": 1},
            "only pt": {"methods": {"pt": {}}, "learning_rates": [0.1]},
        },
    )
    assert not run_study(study, tmp_path).failures
    rows = pd.read_csv(tmp_path / "results.csv")
    sizes = rows.groupby(["variant", "method"]).size().to_dict()
    names = ("main", "short", "after", "one source")
    assert sizes == {(v, m): 4 for v in names for m in ("pt", "reptile")} | {("only pt", "pt"): 4}
    assert set(rows[rows["variant"] == "short"]["prompt_length"]) == {2}
    runs = pd.read_csv(tmp_path / "runs.csv")
    of = {key: set(group["run"]) for key, group in runs.groupby(["variant", "method"])}
    assert of["one source", "pt"] == of["main", "pt"]
    for variant, method in (("short", "pt"), ("after", "pt"), ("one source", "reptile"), ("only pt", "pt")):
        assert not of[variant, method] & of["main", method]
    # Each is the study one would get by declaring it alone.
    alone = toy(world, methods=study.methods, prompt={"length": 4, "placement": "suffix"})
    assert not run_study(alone, tmp_path / "alone").failures
    columns = ["method", "task", "sample", "lr", "dev", "test", "run"]
    got = rows[rows["variant"] == "after"][columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(got, pd.read_csv(tmp_path / "alone" / "results.csv")[columns])


@pytest.mark.slow
def test_variants_may_have_another_backbone(world, tmp_path):
    methods = {"pt": {}, "reptile": {"inner_lr": 0.1}}
    variants = {"tiny": {"backbone": TINY}, "half": {"dtype": "bfloat16"}}
    study = toy(world, methods=methods, variants=variants, samples=[13])
    assert not run_study(study, tmp_path).failures
    rows = pd.read_csv(tmp_path / "results.csv")
    assert rows.groupby("variant")["backbone"].unique().map(list).to_dict() == {
        "main": [str(world / "model")], "half": [str(world / "model")], "tiny": [TINY],
    }  # fmt: skip
    assert rows["run"].is_unique
    widths = {
        variant: {SoftPrompt.load(prompt_path(tmp_path, run)).tensor.shape[1] for run in of["run"]}
        for variant, of in rows.groupby("variant")
    }
    assert widths == {"main": {16}, "half": {16}, "tiny": {load_backbone(TINY).width}}
    alone = toy(world, methods=methods, backbone=TINY, samples=[13])
    assert not run_study(alone, tmp_path / "alone").failures
    columns = ["method", "task", "sample", "lr", "dev", "test", "run"]
    got = rows[rows["variant"] == "tiny"][columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(got, pd.read_csv(tmp_path / "alone" / "results.csv")[columns])
    before = contents(tmp_path)
    with sqlite3.connect(tmp_path / "study.db") as db:
        db.execute("DELETE FROM runs WHERE method = 'reptile'")
    assert not run_study(study, tmp_path).failures
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_settings_budgets_and_seeds_are_one_study(world, tmp_path):
    """Two settings with the same targets, and three meta seeds on one baseline, at three budgets."""
    changes = {
        "settings": [
            {"name": "two", "source": ["toy-a", "toy-b"], "target": ["toy-c", "toy-d"]},
            {"name": "one", "source": ["toy-a"], "target": ["toy-c", "toy-d"]},
        ],
        "setting": None,
        "methods": {"pt": {}, "ft": {}, "reptile": {"inner_lr": 0.1}},
        "meta_seeds": [1, 2],
        "baseline_seeds": [7],
        "adaptation": {"steps": 8, "eval_every": 4, "budgets": [2, 4, 8]},
        "finetuning": {"steps": 8, "eval_every": 4, "budgets": [2, 8]},
    }
    study = toy(world, **changes)
    assert not run_study(study, tmp_path / "o").failures
    rows = pd.read_csv(tmp_path / "o" / "results.csv")
    counts = rows.groupby(["setting", "method", "budget"]).size()
    cells = 2 * 2 * 2  # tasks x samples x meta seeds
    assert counts.to_dict() == {
        (setting, method, budget): cells
        for setting in ("one", "two")
        for method, budgets in (("pt", (2, 4, 8)), ("ft", (2, 8)), ("reptile", (2, 4, 8)))
        for budget in budgets
    }
    # Shared: the baselines of both settings and all meta seeds; not shared: what is learned.
    runs = pd.read_csv(tmp_path / "o" / "runs.csv")
    assert runs.groupby("method")["run"].nunique().to_dict() == {"pt": 8, "ft": 4, "reptile": 32}
    both = [
        set(runs[(runs["setting"] == name) & (runs["method"] != "reptile")]["run"]) for name in ("one", "two")
    ]
    assert both[0] == both[1]
    # What a smaller budget chose and tested is what a study of that many steps would have.
    short = toy(world, **{**changes, "adaptation": {"steps": 4, "eval_every": 2, "budgets": [2, 4]}})
    assert not run_study(short, tmp_path / "short").failures
    names = ["setting", "method", "task", "sample", "seed", "budget"]
    columns = [*names, "lr", "dev", "best_step", "test"]
    few, many = (
        table[(table["method"] != "ft") & (table["budget"] <= 4)][columns].sort_values(names)
        for table in (pd.read_csv(tmp_path / "short" / "results.csv"), rows)
    )
    pd.testing.assert_frame_equal(few.reset_index(drop=True), many.reset_index(drop=True))
