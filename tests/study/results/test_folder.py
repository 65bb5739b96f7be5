"""Studies as they ship and as they lie on disk: plans, variants, status, failures, migration, full disks."""

from __future__ import annotations

import importlib
import json
import platform
import re
import resource
import sqlite3
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml

import softstart.study
from helpers.paths import ROOT
from helpers.toy_study import STUDY, command, contents, toy
from softstart.backbone import TINY, T5Backbone, devices, load_backbone
from softstart.backbone.devices import device_memory
from softstart.cli import app as cli
from softstart.errors import SoftstartError
from softstart.progress import Quiet, silent
from softstart.prompt import SoftPrompt
from softstart.study import run_study
from softstart.study.cost.estimate import nominal_inputs
from softstart.study.declare.study_file import load_study, parse_study, variants_of
from softstart.study.declare.task_lists import some_sources
from softstart.study.plan.inputs import Inputs
from softstart.study.plan.plan import make_plan
from softstart.study.results.folder import prompt_path
from softstart.study.results.stores import open_store
from softstart.study.run import clock, pack_sizes, work, work_graph
from softstart.study.run.executors import attempt
from softstart.study.run.resources import Resources
from softstart.study.run.status import read_status

STUDIES = ROOT / "studies"


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


def test_variants_may_have_another_backbone(world, tmp_path):
    methods = {"pt": {}, "reptile": {"inner_lr": 0.1}}
    variants = {"tiny": {"backbone": TINY}, "half": {"dtype": "bfloat16"}}
    study = toy(world, methods=methods, variants=variants)
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
    alone = toy(world, methods=methods, backbone=TINY)
    assert not run_study(alone, tmp_path / "alone").failures
    columns = ["method", "task", "sample", "lr", "dev", "test", "run"]
    got = rows[rows["variant"] == "tiny"][columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(got, pd.read_csv(tmp_path / "alone" / "results.csv")[columns])
    before = contents(tmp_path)
    with sqlite3.connect(tmp_path / "study.db") as db:
        db.execute("DELETE FROM runs WHERE method = 'reptile'")
    assert not run_study(study, tmp_path).failures
    assert contents(tmp_path) == before


def test_fewer_source_tasks_are_a_subset_of_more():
    names = [f"t{i}" for i in range(20)]
    assert some_sources(names, None) == some_sources(names, 20) == tuple(names)
    for fewer, more in ((3, 7), (7, 12)):
        assert len(some_sources(names, fewer)) == fewer
        assert set(some_sources(names, fewer)) < set(some_sources(names, more))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {"x": {"name": "y"}}}, "variants.x: 'name' is shared by all variants"),
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
    monkeypatch.setattr("softstart.study.run.status.EVERY", 0.0)
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


def test_every_run_says_what_it_took_and_what_it_was_made_with(finished, tmp_path):
    out = tmp_path / "runs.parquet"
    arguments = ["results", str(finished[0]), "--rows", "runs", "--format", "parquet", "--out", str(out)]
    assert cli._main(arguments, debug=False) == 0
    runs = pd.read_parquet(out)
    assert len(runs) == runs["run"].nunique() == 44
    for name in ("tokens", "flops", "seconds", "memory"):
        assert (runs[name] > 0).all(), name
    # What training reads follows from the rows alone; twice the steps would be twice the tokens.
    assert set(runs[runs["method"] != "ft"].groupby(["task", "sample"])["tokens"].nunique()) == {1}
    assert runs["flops_per_second"].tolist() == (runs["flops"] / runs["seconds"]).tolist()
    assert 2**26 < runs["memory"].min() < device_memory(torch.device("cpu"))
    assert set(runs["device"]) == {platform.machine()}
    assert set(runs["threads"]) == {"1"}
    for name in ("softstart", "torch", "transformers"):
        assert set(runs[name]) == {importlib.import_module(name).__version__}, name
    if (STUDIES.parent / ".git").exists():
        assert runs["git"].str.fullmatch(r"[0-9a-f]{12}\+?").all()
    with open_store(finished[0], readonly=True) as store:
        metas, stored = store.metas(), store.runs()
    assert len(metas) == 4
    assert all(row[name] > 0 for row in metas.values() for name in ("tokens", "flops", "seconds", "memory"))
    assert all(json.loads(row["environment"])["torch"] for row in metas.values())
    assert all(len(row["curve"]) == 6 for row in metas.values())
    assert all([step for step, *_ in row["curve"]][-2:] == [4, 8] for row in stored.values())


@pytest.mark.parametrize("name", ["paper-main", "paper-gpt2"])
def test_a_dry_run_needs_no_weights_and_no_data(name, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert cli._main(["run", str(STUDIES / f"{name}.yaml"), "--dry-run"], debug=False) == 0
    printed = capfd.readouterr()
    assert not printed.err
    assert re.search(r"adaptations +[\d,]+ +0 *\n", printed.out)
    assert re.search(r"tokens to process: about [\d.]+e\+\d\d\n", printed.out)
    assert "planned from the settings alone, with tasks of usual size (backbone" in printed.out
    assert not list(tmp_path.iterdir())


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
    assert "in an earlier run" in second.failures[0]
    third = run_study(study, tmp_path, retry_failed=True)
    assert third.failures == first.failures
    assert contents(tmp_path) == before


@pytest.mark.parametrize("problem", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_pack_that_does_not_fit_is_parted_and_nothing_is_lost(
    world, finished, tmp_path, monkeypatch, problem
):
    """A device that has room for six runs at a time."""
    real, packs = T5Backbone.nll, []

    def nll(self, prompts, *rest, **options):
        packs.append(len(prompts))
        if len(prompts) > 6:
            raise problem
        return real(self, prompts, *rest, **options)

    monkeypatch.setattr(T5Backbone, "nll", nll)
    with open_store(finished[0], readonly=True) as store:
        done, tested = store.runs(), store.tests()
    study = toy(world, methods={"pt": {}, "reptile": STUDY["methods"]["reptile"]})
    # One run, and so its place in a pack, is there already.
    kept = next(run for run in make_plan(study, Resources(variants_of(study)).inputs()).runs if not run.start)
    with open_store(tmp_path) as store:
        store.add(runs=[{**done[kept.key], "environment": {"kept": "as it was"}}])
        subprocess.run(["cp", finished[0] / done[kept.key]["prompt"], tmp_path / "prompts"], check=True)
    outcome = run_study(study, tmp_path)
    assert not outcome.failures
    # The pack of eight runs (pt: seven) is tried once; what is like it is parted before it is tried.
    assert [n for n in packs if n > 6] in ([7], [8])
    with open_store(tmp_path) as store:
        runs = store.runs()
        # The same runs are chosen; packs of another size may differ in last bits.
        assert store.tests() == {of: row for of, row in tested.items() if of[0] in runs}
    assert json.loads(runs[kept.key]["environment"]) == {"kept": "as it was"}


def test_one_run_that_does_not_fit_fails_alone_and_says_what_to_change(world, tmp_path, monkeypatch):
    def nll(self, prompts, *rest, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(T5Backbone, "nll", nll)
    outcome = run_study(toy(world, methods={"pt": {}}, samples=[13], learning_rates=[0.1]), tmp_path)
    assert outcome.failures == [
        f"adaptation of {task}: out of memory (CUDA out of memory); "
        "a smaller max_tokens computes less at a time"
        for task in ("toy-c", "toy-d")
    ]


def test_packs_are_cut_to_the_memory_there_is_when_a_study_begins(world, finished, tmp_path, monkeypatch):
    peaks = {1: 1000, 2: 1300}
    assert [pack_sizes.fitting(peaks.get, room) for room in (900, 1100, 1300, 2000)] == [1, 1, 2, 4]
    assert pack_sizes.fitting({1: None}.get, 9e9) == pack_sizes.fitting({1: 10, 2: None}.get, 9e9) == 1
    assert pack_sizes.fitting({1: 10, 2: 10}.get, 100) > 10**9
    with monkeypatch.context() as short:
        short.setattr(pack_sizes, "free_memory", lambda device: 1)
        study = toy(world, methods={"pt": {}})
        plan = make_plan(study, _inputs(run_study(study, tmp_path)))
    assert [len(pack) for pack in work_graph.packs(plan)] == [2] * 4  # cells stay whole
    # More memory later does not change how the rest is cut.
    assert _inputs(run_study(study, tmp_path)).fits == {"main": 1}
    with open_store(finished[0], readonly=True) as store:
        assert json.loads(store.inputs())["fits"] == {}


def _inputs(outcome):
    with open_store(outcome.folder, readonly=True) as store:
        return Inputs.from_json(store.inputs())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is told by Linux alone")
def test_the_memory_of_a_step_is_measured(world, monkeypatch):
    resources = Resources(variants_of(toy(world)))
    run = next(make_plan(toy(world), resources.inputs()).runs)
    taken = []
    # Pages count once they are written to.
    monkeypatch.setattr(pack_sizes, "try_out", lambda *_: taken.append(torch.ones(len(taken) << 26).sum()))
    none, first, second = (pack_sizes._peak(resources, [run], 1) for _ in range(3))
    assert 0.9 * 2**28 < first - none < 1.2 * 2**28
    assert 0.9 * 2**28 < second - first < 1.2 * 2**28
    assert second < pack_sizes.free_memory(torch.device("cpu")) <= 2 * device_memory(torch.device("cpu"))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is told by Linux alone")
def test_every_piece_of_work_has_a_peak_of_its_own(world, tmp_path):
    worker = work.Worker(Resources(variants_of(toy(world)), "cpu"), tmp_path)

    class Work:
        name = "work"

        def __init__(self, size):
            self.size = size

        def perform(self, worker, progress):
            float(torch.ones(self.size).sum())
            return work.Done(metas=[{"memory": devices.peak_memory(torch.device("cpu"))}])

    large, small = (attempt(worker, Work(n), silent).metas[0]["memory"] for n in (1 << 27, 1))
    assert 0.9 * 2**29 < large - small < 1.2 * 2**29


def test_tests_are_no_part_of_what_a_fine_tuning_took(world, tmp_path, monkeypatch):
    resources = Resources(variants_of(toy(world)), "cpu")
    run = next(run for run in make_plan(toy(world), resources.inputs()).runs if run.method.kind == "ft")
    now, score = [0.0], work.score_finetuned

    def slow(*arguments):
        now[0] += 1000.0
        return score(*arguments)

    monkeypatch.setattr(work, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(work, "score_finetuned", slow)
    done = work.FineTuning(run).perform(work.Worker(resources, tmp_path))
    assert (len(done.tests), now[0], done.runs[0]["seconds"]) == (1, 1000.0, 0.0)


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_device_has_the_memory_that_its_container_may_use(tmp_path, monkeypatch, file):
    here = torch.device("cpu")
    monkeypatch.setattr(devices, "_GROUPS", tmp_path)
    whole = devices.device_memory(here)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    for text, limit in (("max", whole), (str(1 << 62), whole), (f"{whole // 3}\n", whole // 3)):
        (tmp_path / file).write_text(text)
        assert devices.device_memory(here) == limit


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
    before = (tmp_path / "study.db").read_bytes()
    for how in ({"readonly": True}, {}, {}):
        with open_store(tmp_path, **how) as store:
            # Who only looks leaves the file to the version that may be at work on it.
            assert ((tmp_path / "study.db").read_bytes() == before) == bool(how)
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


def test_a_prompt_that_cannot_be_written_ends_the_study_and_loses_nothing(world, tmp_path):
    study = toy(world, methods={"pt": {}})
    key = next(make_plan(study, Resources(variants_of(study)).inputs()).runs).key
    obstacle = tmp_path / "prompts" / f"{key}.safetensors"
    obstacle.mkdir(parents=True)
    (tmp_path / "study.lock").touch()
    with pytest.raises(SoftstartError, match=r"safetensors: cannot write .* Choose a writable folder"):
        run_study(study, tmp_path)
    with open_store(tmp_path, readonly=True) as store:
        assert not store.runs()
    assert list((tmp_path / "checkpoints").iterdir())
    obstacle.rmdir()
    outcome = run_study(study, tmp_path)
    assert not outcome.failures
    assert not outcome.missing
    assert not list((tmp_path / "checkpoints").iterdir())


class Interrupted(Quiet):
    """Ends the study when a piece of work has a checkpoint and a note of its seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def advance(self, units: float, note: str = "") -> None:
        if list(self.folder.glob("checkpoints/*.seconds")):
            raise KeyboardInterrupt


def test_the_seconds_before_an_interruption_count(world, tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "EVERY", 0.0)
    study = toy(world, methods={"pt": {}, "reptile": STUDY["methods"]["reptile"]})
    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path, display=Interrupted(tmp_path))
    (note,) = (tmp_path / "checkpoints").glob("*.seconds")
    assert 0 <= float(note.read_text()) < 100
    note.write_text("1000.0")
    assert not run_study(study, tmp_path).failures
    with open_store(tmp_path, readonly=True) as store:
        (meta,), runs = store.metas().values(), store.runs().values()
    seconds = [meta["seconds"], *(row["seconds"] for row in runs)]
    # Those of a pack are shared among its runs.
    assert 1000 < sum(seconds) < 1100
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.skipif(not Path("/sys").exists(), reason="no folder that nobody can write")
def test_a_folder_that_nobody_can_write_is_one_clear_line(world, capsys):
    assert cli._main(command(world, "/sys/study")[1:], debug=False) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "/sys/study: cannot write (" in line
    assert "Choose a writable folder (--out)" in line


def test_a_plan_reads_the_same_from_the_folder(finished):
    tables = softstart.study.study_tables(finished[0])
    assert {name: len(table) for name, table in tables.items()} == {"results": 24, "runs": 44, "curves": 128}
