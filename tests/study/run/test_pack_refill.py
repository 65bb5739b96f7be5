"""Packs whose runs give their places to others: the same results, whatever interrupts them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from helpers import rows
from helpers.toy_study import STUDY, command, contents, toy
from softstart.backbone import T5Backbone
from softstart.cli import app as cli
from softstart.study import run_study
from softstart.study.run import work_graph
from softstart.study.run.work_graph import StoredRows, WorkGraph
from softstart.training import adaptation

EARLY = {
    "dtype": "float64",
    "methods": {"pt": {}},
    "adaptation": {"steps": 8, "eval_every": 2, "patience": 1, "eval_start": False},
}


def units(**changes):
    """The packs of prompt-tuned runs: how many runs each has, and how many train at once."""
    plan = rows.plan(
        {"adaptation": {"patience": 2}, "pack_size": 2, **changes}, fits=changes.pop("fits", None)
    )
    graph = WorkGraph(plan, None, StoredRows({}, {}, {}, {}), Path())
    return graph, [unit for unit in graph.units if unit.runs]


def sizes(units):
    return {(len(unit.runs), unit.places) for unit in units}


def test_a_piece_of_work_holds_several_packs_where_runs_can_end_early():
    assert sizes(units(pack_refill=3)[1]) == {(6, 2), (2, 2)}
    for early in ({"rungs": [5]}, {"epochs": 3}):
        assert sizes(units(pack_refill=4, adaptation=early)[1]) == {(8, 2)}
    packs = {(2, 2)}
    assert sizes(units()[1]) == packs
    for same in ({}, {"patience": 2, "dropout": True}):
        assert sizes(units(pack_refill=4, adaptation=same)[1]) == packs


def test_a_start_that_is_chosen_under_dropout_is_chosen_for_one_pack():
    methods = {"pt": {}, "spot": {"dropout": True}}
    _, packs = units(pack_refill=4, methods=methods)
    assert {(u.runs[0].method.name, len(u.runs), u.places) for u in packs} == {("pt", 8, 2), ("spot", 2, 2)}


def test_halves_have_half_the_places_until_there_is_one_or_the_rivals_of_a_cell():
    for changes, least in (({}, 1), ({"adaptation": {"rungs": [5]}}, 2)):
        graph, (unit, *_) = units(pack_refill=2, pack_size=4, **changes)
        assert (len(unit.runs), unit.places) == (8, 4)
        parts = graph.halves(unit)
        assert sizes(parts) == {(4, 2)}
        assert [run for part in parts for run in part.runs] == list(unit.runs)
        smaller = [half for part in parts for half in graph.halves(part)]
        assert sizes(smaller) == ({(2, 1)} if least == 1 else {(4, 2)})
        assert all(graph.halves(half) == [half] for half in smaller)


def table(folder, name="runs"):
    kept = ["method", "task", "sample", "lr", "dev", "best_step", "steps", "status"]
    rows = pd.read_csv(folder / f"{name}.csv").sort_values(kept[:4]).reset_index(drop=True)
    return rows[kept if name == "runs" else [*kept[:3], "lr", "dev", "test", "run"]]


def test_a_study_with_refilled_packs_is_killed_and_resumed_and_has_the_same_results(
    world, tmp_path, monkeypatch, capsys
):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({**STUDY, **EARLY, "pack_size": 3, "pack_refill": 2}))

    def softstart(out, *more):
        arguments = command(world, tmp_path / out, *more)[1:]
        return cli._main([arguments[0], str(file), *arguments[2:]], debug=False)

    assert softstart("plain", "--set", "pack_refill=1") == 0
    assert softstart("refilled") == 0
    exact, saved = adaptation.save_tensors, []

    def kill(path, *rest):
        exact(path, *rest)
        saved.append(path)
        raise KeyboardInterrupt

    interrupted = 0
    while True:
        # Every checkpoint is the last thing that a process does.
        monkeypatch.setattr(adaptation, "save_tensors", kill if interrupted < 4 else exact)
        if (code := softstart("killed")) == 0:
            break
        assert code == 130
        interrupted += 1
    assert interrupted == 4
    assert len(set(saved)) < 4  # the same piece of work more than once
    assert contents(tmp_path / "killed") == contents(tmp_path / "refilled")
    for name in ("runs", "results"):
        pd.testing.assert_frame_equal(table(tmp_path / "refilled", name), table(tmp_path / "plain", name))
    steps = table(tmp_path / "plain")["steps"]
    assert steps.min() < 8  # otherwise no place is given away


def test_refilled_packs_that_do_not_fit_are_cut_to_fewer_places(world, tmp_path, monkeypatch):
    """A device that has room for three runs at a time."""
    real, sizes = T5Backbone.nll, []

    def nll(self, prompts, *rest, **options):
        sizes.append(len(prompts))
        if len(prompts) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, prompts, *rest, **options)

    study = toy(world, **EARLY, pack_size=4, pack_refill=2)
    assert not run_study(study, tmp_path / "whole").failures
    monkeypatch.setattr(T5Backbone, "nll", nll)
    outcome = run_study(study, tmp_path / "cut")
    assert not outcome.failures
    assert [size for size in sizes if size > 2] == [4]
    pd.testing.assert_frame_equal(table(tmp_path / "cut"), table(tmp_path / "whole"))


def test_the_progress_of_a_refilled_pack_ends_at_the_whole(world, tmp_path):
    from softstart.study.declare.study_file import variants_of
    from softstart.study.plan.plan import make_plan
    from softstart.study.run.resources import Resources
    from softstart.study.run.work import Adaptation, Worker

    study = toy(world, **EARLY, pack_size=3, pack_refill=4)
    resources, shares = Resources(variants_of(study), "cpu"), []
    (runs,) = work_graph.packs(make_plan(study, resources.inputs()))
    item = Adaptation("pack", runs, {}, places=3)
    item.perform(Worker(resources, tmp_path), lambda share, note="": shares.append(share))
    assert sum(shares) == pytest.approx(1.0)
    assert max(shares) < 0.5


def test_with_interacting_rows_the_runs_of_a_cell_train_one_after_another(world, tmp_path):
    study = toy(
        world, methods={"pt": {}}, samples=[13], pack_size=1,
        prompt={"length": 3, "placement": "after_padding"}, adaptation={"steps": 2, "eval_every": 1},
    )  # fmt: skip
    outcome = run_study(study, tmp_path)
    assert not outcome.failures
    assert set(pd.read_csv(tmp_path / "runs.csv")["lr"]) == {0.5, 0.2}
