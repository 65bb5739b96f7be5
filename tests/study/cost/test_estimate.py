"""Dry runs: what is left of a study, with or without its weights and data."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from helpers.paths import ROOT
from helpers.toy_study import command, toy
from softstart.backbone import load_backbone
from softstart.cli import app as cli
from softstart.study.cost.estimate import Rows, _few_enough, estimate
from softstart.study.declare.study_file import variants_of
from softstart.study.plan.inputs import Inputs
from softstart.study.plan.plan import EVALUATION_COST, make_plan, run_cost
from softstart.study.results.folder import DATABASE
from softstart.study.results.stores import open_store
from softstart.study.run.pack_sizes import _with_dev
from softstart.study.run.resources import Resources

LARGE = SimpleNamespace(numel=lambda: 10**9)


def test_a_dry_run_tells_what_is_left_and_writes_nothing(world, finished, tmp_path, capsys):
    arguments = command(world, tmp_path / "new", "--dry-run")[1:]
    assert cli._main(arguments, debug=False) == 0
    printed = capsys.readouterr().out
    assert printed.split()[:8] == ["planned", "done", "meta-trainings", "4", "0", "adaptations", "40", "0"]
    assert "time with 1 worker" in printed
    assert not (tmp_path / "new").exists()
    before = {file: file.stat().st_mtime_ns for file in finished[0].rglob("*")}
    assert cli._main(command(world, finished[0], "--dry-run")[1:], debug=False) == 0
    assert "adaptations     40       40" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in finished[0].rglob("*.csv")}.items() <= before.items()


@pytest.mark.parametrize("name", ["paper-main", "paper-gpt2"])
def test_a_dry_run_needs_no_weights_and_no_data(name, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert cli._main(["run", str(ROOT / "studies" / f"{name}.yaml"), "--dry-run"], debug=False) == 0
    printed = capfd.readouterr()
    assert not printed.err
    assert re.search(r"adaptations +[\d,]+ +0 *\n", printed.out)
    assert re.search(r"tokens to process: about [\d.]+e\+\d\d\n", printed.out)
    assert "planned from the settings alone, with tasks of usual size (backbone" in printed.out
    assert not list(tmp_path.iterdir())


def test_tasks_that_the_gym_does_not_have_are_refused_and_not_planned_around(world, tmp_path, capsys):
    arguments = command(world, tmp_path / "new", "--dry-run", "--set", "setting.target=[toy-e]")[1:]
    assert cli._main(arguments, debug=False) == 1
    assert "names tasks that gym" in capsys.readouterr().err


def test_a_plan_counts_the_flops_that_are_then_computed(world, finished, tmp_path):
    study = toy(world)
    needed = estimate(study, tmp_path / "new", "cpu")
    (left,) = needed.work.values()
    row = needed.flops / left.count
    assert (finished[0] / DATABASE).exists()
    with open_store(finished[0], readonly=True) as store:
        plan = make_plan(study, Inputs.from_json(store.inputs()))
        metas, runs = store.metas(), store.runs()
    for node in plan.metas:
        # MAML's products are taken at 2.1 gradients; they are more of such a small model.
        few = 0.15 if node.method.name == "maml" else 0.05
        assert node.cost * row == pytest.approx(metas[node.key]["flops"], rel=few), node.method.name
    trained, counted = 0.0, 0.0
    tasks = {run.key: cell.part.tasks[run.task] for cell in plan.cells for run in cell.runs}
    for run in plan.runs:
        if run.method.kind != "ft":
            evaluated = tasks[run.key].dev * 3 * EVALUATION_COST
            trained += (run_cost(run, study, tasks[run.key]) - evaluated) * row
            counted += runs[run.key]["flops"]
    # A mean row is that of the first sample.
    assert trained == pytest.approx(counted, rel=0.1)


def test_plans_count_the_epochs_that_end_a_run(world, tmp_path):
    """Eight train rows in batches of eight: an epoch is a step."""
    whole = estimate(toy(world, methods={"pt": {}}), tmp_path / "new", "cpu")
    cut = {"steps": 8, "eval_every": 4, "epochs": 4}
    half = estimate(toy(world, methods={"pt": {}}, adaptation=cut), tmp_path / "new", "cpu")
    runs, batch, dev, tests = 2 * 2 * 2, 8, 8, 2 * 2 * 12 * EVALUATION_COST

    def rows(steps):
        return runs * (steps * batch + dev * (steps / 4 + 1) * EVALUATION_COST) + tests

    assert whole.work["main"].count == pytest.approx(rows(8))
    assert half.work["main"].count == pytest.approx(rows(4))
    assert isinstance(half.work["main"], Rows)
    # As published, 32 rows in batches of 16 end after 1,000 epochs, at 2,000 of 3,000 steps.
    from softstart.study import load_study

    paper = load_study(ROOT / "studies" / "paper-base.yaml")
    unlimited = load_study(ROOT / "studies" / "paper-base.yaml", ["adaptation.epochs=null"])
    counts = [estimate(s, tmp_path / "new", "cpu").work["main"].count for s in (paper, unlimited)]
    assert 0.75 < counts[0] / counts[1] < 0.85  # tasks with more than two labels have more rows


def test_a_probe_of_a_large_model_is_a_few_rows(world):
    """A dry run of SmolLM2 once adapted a pack of 60 runs and scored every dev row of theirs."""
    study, backbone = toy(world), load_backbone(str(world / "model"), device="cpu")
    assert _few_enough(backbone, study) >= study.pack_size
    large = SimpleNamespace(device=backbone.device, model=SimpleNamespace(parameters=lambda: [LARGE]))
    assert _few_enough(large, study) == 1
    resources = Resources(variants_of(study), "cpu")
    (task,) = (_with_dev(resources.encoded("main", name), 1) for name in ("toy-c",))
    assert [len(rows.inputs) for rows in task.dev.values()] == [1, 1]
    assert task.train == resources.encoded("main", "toy-c").train
