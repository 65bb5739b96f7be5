"""Studies as they ship and as they lie on disk: plans, variants, status, failures, migration, full disks."""

from __future__ import annotations

import json
import resource
import sqlite3
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml

import softstart.study
from softstart import cli
from softstart.console import Quiet
from softstart.errors import SoftstartError
from softstart.study import run_study
from softstart.study.estimate import nominal_inputs
from softstart.study.executors import Failure, InProcess, Setup
from softstart.study.plan import make_plan
from softstart.study.prepare import Resources, some_sources
from softstart.study.schedule import StudyRun
from softstart.study.spec import load_study, parse_study, variants_of
from softstart.study.status import read_status
from softstart.study.store import Store
from toy_study import STUDY, command, contents, toy

STUDIES = Path(__file__).parent.parent / "studies"


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore:setting")
def test_every_shipped_study_can_be_planned(path):
    study = load_study(path)
    plan = make_plan(study, nominal_inputs(study))
    tasks = {(cell.part.setting, cell.task) for cell in plan.cells if cell.part.variant == "main"}
    learned = [method for method in study.methods if method not in ("pt", "ft")]
    main = [cell for cell in plan.cells if cell.part.variant == "main"]
    seeds, samples = len(study.meta_seeds), len(study.samples)
    assert len(main) == len(tasks) * len(study.methods) * samples * seeds
    targets = {task for _, task in tasks}
    rates = len(study.learning_rates)
    baseline = samples * len(study.baseline_seeds or study.meta_seeds)
    runs = {run.key: run for cell in main for run in cell.runs}.values()
    # Baselines once a task, however many settings it is in; learned starts once a setting.
    assert sum(run.method.kind == "pt" for run in runs) == len(targets) * baseline * rates
    assert sum(run.start is not None for run in runs) == len(tasks) * samples * seeds * rates * len(learned)


@pytest.mark.filterwarnings("ignore:setting")
def test_the_papers_main_table_shares_what_its_settings_share():
    study = load_study(STUDIES / "paper-main.yaml")
    plan = make_plan(study, nominal_inputs(study))
    # Eleven settings, but cls2cls and cls2nocls (and so on) learn from the same sources.
    assert len(plan.metas) == 8 * 4
    assert 10_000 < len(list(plan.runs)) < 20_000


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


def test_fewer_source_tasks_are_a_subset_of_more():
    names = [f"t{i}" for i in range(20)]
    assert some_sources(names, None) == some_sources(names, 20) == tuple(names)
    for fewer, more in ((3, 7), (7, 12)):
        assert len(some_sources(names, fewer)) == fewer
        assert set(some_sources(names, fewer)) < set(some_sources(names, more))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {"x": {"backbone": "y"}}}, "variants.x: 'backbone' is shared by all variants"),
        ({"variants": {"x": {"prompt.lenght": 5}}}, "variants.x: prompt.lenght: Extra inputs"),
        ({"settings": ["mini-cls2cls"]}, "one setting under 'setting' or several under 'settings'"),
        (
            {"adaptation": {"steps": 8, "budgets": [4, 9]}},
            "budgets must ascend from 1 to at most 8",
        ),
        ({"finetuning": {"steps": 8, "budgets": [4, 2]}}, "FineTuneConfig.budgets must ascend"),
    ],
)
def test_a_wrong_axis_is_one_line_with_its_key(changes, message):
    with pytest.raises(SoftstartError, match=message):
        parse_study(yaml.safe_dump({**STUDY, **changes}), "study.yaml")


class Looker(Quiet):
    """Reads the study folder again and again while it is computed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, []

    def stage(self, name: str) -> None:
        if (self.folder / "progress.json").exists():
            self.seen.append(read_status(self.folder))


def test_status_is_live(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("softstart.study.status.EVERY", 0.0)
    looker = Looker(tmp_path)
    run_study(toy(world), tmp_path, display=looker)
    assert len(looker.seen) > 5
    assert all(status.pulse.alive for status in looker.seen)
    missing = [status.missing for status in looker.seen]
    assert missing == sorted(missing, reverse=True)
    assert 0 < looker.seen[5].counts["meta-trainings"][1] <= 4
    assert not (tmp_path / "progress.json").exists()
    cli._main(["status", str(tmp_path)], debug=False)
    assert "0 runs missing, 24 results, 24 of them tested" in capsys.readouterr().out


def test_rows_come_out_in_three_formats(finished, tmp_path, capsys):
    reference = pd.read_csv(finished[0] / "results.csv")
    assert cli._main(["results", str(finished[0])], debug=False) == 0
    assert capsys.readouterr().out == (finished[0] / "results.csv").read_text()
    for how, read in (("parquet", pd.read_parquet), ("json", pd.read_json), ("csv", pd.read_csv)):
        out = tmp_path / f"rows.{how}"
        assert cli._main(["results", str(finished[0]), "--format", how, "--out", str(out)], debug=False) == 0
        got = read(out).astype(reference.dtypes)
        pd.testing.assert_frame_equal(got, reference, check_exact=how != "json")


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


def test_what_diverged_is_recorded_and_tried_again_only_on_request(world, tmp_path):
    study = toy(
        world,
        methods={"pt": {}, "maml": {"inner_lr": 0.1, "lr": float("inf")}},
        learning_rates=[float("inf"), 0.2],
    )
    first = run_study(study, tmp_path)
    assert len(first.failures) == 1
    assert "meta-training maml: meta-training diverged: the loss is not finite" in first.failures[0]
    runs = pd.read_csv(tmp_path / "runs.csv").groupby("lr")["status"].unique().map(list)
    assert runs.to_dict() == {0.2: ["done"], float("inf"): ["diverged"]}
    assert any("diverged after step" in reason for reason in read_status(tmp_path).failures.values())
    before = contents(tmp_path)
    second = run_study(study, tmp_path)
    assert "in an earlier call" in second.failures[0]
    third = run_study(study, tmp_path, retry_failed=True)
    assert third.failures == first.failures
    assert contents(tmp_path) == before


def test_tensorboard_gets_every_curve(world, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    study = toy(world, methods={"pt": {}, "ft": {}, "reptile": {"inner_lr": 0.1}})
    assert not run_study(study, tmp_path, tracker="tensorboard").failures
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    names = events.Tags()["scalars"]
    curves = pd.read_csv(tmp_path / "curves.csv")
    assert sum(name.startswith("dev/") for name in names) == curves["run"].nunique() == 20
    row = curves[(curves["method"] == "pt") & (curves["step"] == 8)].iloc[0]
    name = f"dev/{row.task}/pt/sample {row['sample']}/lr {row.lr:g}/seed {row.seed}"
    assert events.Scalars(name)[-1].value == pytest.approx(row.dev)
    assert [e.step for e in events.Scalars("meta-training/reptile/seed 42/adapted")] == list(range(6))
    with pytest.raises(SoftstartError, match=r"unknown tracker 'paper'\. Use one of tensorboard, wandb"):
        run_study(study, tmp_path, tracker="paper")


class Small(InProcess):
    """A device that has room for four runs at a time."""

    def collect(self, report):
        if len(getattr(self.item, "runs", ())) > 4:
            return self.item, Failure("memory", "out of memory")
        return super().collect(report)


def test_a_pack_that_does_not_fit_is_parted(world, finished, tmp_path):
    study = toy(world)
    studies = variants_of(study)
    resources = Resources(studies)
    inputs = resources.inputs()
    with Store(tmp_path) as store:
        store.set_inputs(inputs.to_json())
        run = StudyRun(inputs, make_plan(study, inputs), store)
        run.execute(Small(Setup(studies, None, tmp_path / "checkpoints").worker(resources)))
        assert not run.failures
        tested = store.tests()
    # The same runs are tested; packs of another size may differ in last bits, not in what is chosen here.
    with Store(finished[0], readonly=True) as store:
        assert tested == store.tests()


def test_a_database_of_the_first_schema_is_taken_over(tmp_path):
    with sqlite3.connect(tmp_path / "study.db") as db:
        db.executescript(
            """
            CREATE TABLE inputs (id INTEGER PRIMARY KEY CHECK (id = 1), data TEXT);
            CREATE TABLE meta_trainings (
                key TEXT PRIMARY KEY, method TEXT, seed INTEGER, seconds REAL, prompt TEXT, curve TEXT,
                environment TEXT
            );
            CREATE TABLE runs (
                key TEXT PRIMARY KEY, method TEXT, task TEXT, sample INTEGER, lr REAL, seed INTEGER,
                start TEXT, dev REAL, best_step INTEGER, steps INTEGER, status TEXT, seconds REAL,
                prompt TEXT, curve TEXT, test REAL, companions TEXT, environment TEXT
            );
            INSERT INTO runs VALUES ('a', 'pt', 't', 13, 0.5, 1, NULL, 0.5, 4, 8, 'done', 1, NULL, '[]', 0.25,
                                     '{"outside": 0}', '{}');
            PRAGMA user_version=1;
            """
        )
    for _ in range(2):
        with Store(tmp_path) as store:
            assert store.runs()["a"]["dev"] == 0.5
            test = store.tests()["a", 4]
            assert (test["test"], json.loads(test["companions"])) == (0.25, {"outside": 0})


def test_data_that_change_under_a_running_study_are_refused(world, tmp_path):
    subprocess.run(["cp", "-r", world / "gym", tmp_path / "gym"], check=True)
    study = toy(world, gym=str(tmp_path / "gym"))
    inputs = Resources(variants_of(study)).inputs()
    file = tmp_path / "gym" / "toy-c" / "toy-c_test.tsv"
    file.write_text("\n".join(file.read_text().splitlines()[1:]) + "\n")
    later = Resources(variants_of(study), None, inputs)
    later.task("main", "toy-d")
    with pytest.raises(SoftstartError, match="task 'toy-c' has changed since the study began"):
        later.task("main", "toy-c")


def test_a_disk_without_room_is_one_clear_line(world, tmp_path):
    done = subprocess.run(
        command(world, tmp_path / "o"),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000)),
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    assert "study.db" in lines[0]
    assert "Check free space" in lines[0]


def test_a_plan_reads_the_same_from_the_folder(finished):
    tables = softstart.study.study_tables(finished[0])
    assert {name: len(table) for name, table in tables.items()} == {"results": 24, "runs": 44, "curves": 128}
