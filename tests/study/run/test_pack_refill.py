"""Packs whose runs give their places to others: the same results, whatever interrupts them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from helpers import rows
from helpers.toy_study import STUDY, command, contents, toy
from softstart.cli import app as cli
from softstart.study import run_study
from softstart.study.run import run, work_graph
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


def test_a_pack_that_is_too_large_gets_fewer_places_and_then_fewer_runs():
    for changes, sizes_in_turn in (
        ({}, [(8, 4), (8, 2), (8, 1), (4, 1), (2, 1), (1, 1)]),
        ({"adaptation": {"rungs": [5]}}, [(8, 4), (8, 2), (4, 2), (2, 2)]),  # a cell of two rivals
        ({"pack_refill": 1, "pack_size": 8}, [(8, 8), (8, 4), (8, 2), (8, 1), (4, 1), (2, 1), (1, 1)]),
    ):
        graph, packs = units(**{"pack_refill": 2, "pack_size": 4, **changes})
        packs, seen = packs[:1], []
        while packs:
            (size,) = sizes(packs)
            seen.append(size)
            before, packs = packs, [part for pack in packs for part in graph.smaller(pack)]
            if packs == before:
                break
            assert [run for pack in packs for run in pack.runs] == [run for p in before for run in p.runs]
            # A pack of the same runs goes on from the same checkpoint.
            assert (packs[0].key == before[0].key) == (len(packs) == len(before))
        assert seen == sizes_in_turn


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


@pytest.mark.parametrize("late", [0, 5])
def test_packs_that_do_not_fit_any_more_go_on_with_fewer_places(world, tmp_path, monkeypatch, late):
    """A device that has room for three runs at a time, at once or after some steps."""
    exact, sizes = adaptation.run_gradients, []

    def short(backbone, prompts, *rest, **options):
        if len(prompts) > 3 and len(sizes) >= late:
            tries.append(len(prompts))
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(prompts))
        return exact(backbone, prompts, *rest, **options)

    tries = []
    study = toy(world, **EARLY, pack_size=4, pack_refill=2)
    assert not run_study(study, tmp_path / "whole").failures
    monkeypatch.setattr(adaptation, "run_gradients", short)
    monkeypatch.setattr(run, "fitting_packs", lambda *_: {})  # which tries some steps
    outcome = run_study(study, tmp_path / "cut")
    assert not outcome.failures
    pd.testing.assert_frame_equal(table(tmp_path / "cut"), table(tmp_path / "whole"))
    assert tries == [4]
    again = sum(sizes) - table(tmp_path / "cut")["steps"].sum()
    # Two of four runs go on from the evaluation after four steps, if they had not ended by then.
    assert again == 0 if not late else 0 < again <= 4 + 2 * 4


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
