import hashlib
import json
import os
import shutil

import pytest

from helpers.gym_cli import failed, gym
from helpers.shared import SHARED
from softstart.errors import SoftstartError
from softstart.gym import open_gym
from softstart.gym.build import Job, build_task
from softstart.gym.catalog import crossfit_catalog
from softstart.gym.catalog.reading import parse_entry
from softstart.gym.jobs import build_tasks

RAW = SHARED / "data" / "raw" if SHARED else None
needs_raw = pytest.mark.skipif(RAW is None or not RAW.is_dir(), reason="shared/data/raw is not here")
POEMS = ["negative", "positive", "no_impact", "mixed"]


def write_rows(path, n, start=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"verse_text": f"verse {start + i}", "label": i % 4} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def poems(tmp_path):
    """Rows for the task poem_sentiment: 200 to draw from, 20 to test on."""
    write_rows(tmp_path / "rows" / "poem_sentiment" / "train.jsonl", 200)
    write_rows(tmp_path / "rows" / "poem_sentiment" / "validation.jsonl", 20, start=1000)
    return tmp_path


def job(tmp_path, **options):
    source = tmp_path / "rows" / "poem_sentiment"
    return Job(crossfit_catalog()["poem_sentiment"], tmp_path / "gym", True, source, **options)


@needs_raw
def test_real_rows_give_the_published_files_byte_for_byte(tmp_path):
    done = gym("build", "--all", "--source", RAW, "--out", tmp_path / "gym", "--json")
    assert done.returncode == 0, done.stderr
    reports = {report["task"]: report for report in json.loads(done.stdout)}
    assert set(reports) == {path.name for path in RAW.iterdir() if path.is_dir()}
    assert {report["status"] for report in reports.values()} == {"exact"}
    published = dict(line.split(",") for line in (SHARED / "gym" / "md5.csv").read_text().split()[1:])
    for task in reports:
        files = sorted((tmp_path / "gym" / task).glob("*.tsv"))
        assert len(files) == 15
        for file in files:
            assert hashlib.md5(file.read_bytes()).hexdigest() == published[file.name]

    # The same again is kept; a damaged file is built again.
    broken = tmp_path / "gym" / "codah" / "codah_32_13_train.tsv"
    broken.write_text("damaged\tfile\n")
    done = gym("verify", tmp_path / "gym")
    assert done.returncode == 1
    assert "codah differs: codah_32_13_train.tsv" in done.stdout
    assert f"{len(reports) - 1} exact" in done.stdout
    done = gym("build", "codah", "limit", "--source", RAW, "--out", tmp_path / "gym")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert any(line.split() == ["limit", "exact", "(kept)"] for line in lines)
    assert any(line.split() == ["codah", "exact"] for line in lines)
    assert hashlib.md5(broken.read_bytes()).hexdigest() == published[broken.name]
    assert gym("verify", tmp_path / "gym").returncode == 0

    # Reading what was built gives tasks a study can use.
    opened = open_gym(tmp_path / "gym")
    assert opened.load("web_questions").metric == "EM"
    assert len(opened.load("tweet_eval-stance_climate").samples[13].train) == 45


def test_files_that_differ_are_listed_and_short_classes_noted(poems):
    write_rows(poems / "rows" / "poem_sentiment" / "train.jsonl", 100)
    done = gym(
        "build", "poem_sentiment", "--source", poems / "rows", "--out", poems / "gym", "--seeds", 13, 21
    )
    assert done.returncode == 0, done.stderr
    assert "fewer than 32 rows in the pool for k = 16: 'mixed' 25, 'negative' 25" in done.stdout
    assert "poem_sentiment differs: poem_sentiment_16_13_dev.tsv, " in done.stdout
    assert "1 differs" in done.stdout
    assert len(list((poems / "gym" / "poem_sentiment").glob("*.tsv"))) == 6


def test_rows_of_one_dataset_serve_all_its_tasks(tmp_path):
    rows = [{"text": f"t{i}", "race": i % 2, "gender": i % 3 % 2} for i in range(433)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = gym("build", "ethos-race", "ethos-gender", "--source", ".", "--out", "gym", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [(r["task"], r["status"]) for r in json.loads(done.stdout)] == [
        ("ethos-gender", "differs"),
        ("ethos-race", "differs"),
    ]
    assert len(open_gym(tmp_path / "gym").load("ethos-race").test) == 87


def test_a_class_without_rows_and_leaks_into_the_test_set_are_noted(poems):
    rows = poems / "rows" / "poem_sentiment" / "train.jsonl"
    kept = [line for line in rows.read_text().splitlines() if '"label": 3' not in line]
    rows.write_text("\n".join(kept))
    shutil.copy(rows, rows.with_name("validation.jsonl"))
    report = build_task(job(poems))
    assert "class 'mixed' has no row in the pool" in report.notes
    assert any(note.endswith("train or dev inputs are in the test set too") for note in report.notes)
    assert report.status == "differs"


def test_other_k_and_seeds_and_the_version_of_2021(tmp_path):
    rows = [{"text": f"fun \\n {i}", "label": i % 2} for i in range(300)]
    for split in ("train", "validation"):
        path = tmp_path / "rows" / f"{split}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = crossfit_catalog()["tweet_eval-irony"]
    for version, word, text in (("v1", "hate", "fun \\n 1"), ("v2", "irony", "fun 1")):
        out = tmp_path / version
        report = build_task(Job(entry, out, True, tmp_path / "rows", (5,), 32, version=version))
        assert report.status == "built"
        train = (out / entry.name / "tweet_eval-irony_32_5_train.tsv").read_text().splitlines()
        assert len(train) == 64
        assert {line.split("\t")[1] for line in train} == {word, "non-irony"}
        assert any(text in line for line in (out / entry.name / f"{entry.name}_32_5_test.tsv").open())


def test_a_build_is_kept_until_its_rows_or_options_change(poems):
    first = build_task(job(poems))
    assert (first.kept, len(first.differs)) == (False, 15)
    assert build_task(job(poems)).kept
    assert build_task(job(poems)).notes == first.notes
    assert not build_task(job(poems, force=True)).kept
    write_rows(poems / "rows" / "poem_sentiment" / "train.jsonl", 220)
    assert not build_task(job(poems)).kept
    assert not build_task(job(poems, seeds=(13,))).kept
    assert sorted(p.name for p in (poems / "gym").iterdir()) == ["poem_sentiment"]


def test_files_from_elsewhere_are_not_overwritten(poems):
    folder = poems / "gym" / "poem_sentiment"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(
        SoftstartError, match=r"holds files that were not built here. Replace them with --force"
    ):
        build_task(job(poems))
    assert (folder / "notes.txt").read_text() == "mine"
    build_task(job(poems, force=True))
    assert not (folder / "notes.txt").exists()


def test_failures_are_isolated_each_with_one_line(poems):
    source = poems / "rows"
    (source / "ag_news").mkdir()
    (source / "ag_news" / "train.parquet").write_bytes(b"no parquet")
    write_rows(source / "ag_news" / "test.jsonl", 3)
    (source / "emo").mkdir()
    (source / "emo" / "train.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "b", "label": 9}\n')
    (source / "emo" / "test.jsonl").write_text('{"text": "a", "label": 1}\n')
    (source / "sick").mkdir()
    (source / "sick" / "train.jsonl").write_text('{"sentence_A": "a"}\n')
    (source / "sick" / "validation.jsonl").write_bytes(b'{"sentence_A": "caf\xe9"}\n')
    (source / "trec").mkdir()
    names = ["ag_news", "emo", "poem_sentiment", "sick", "trec"]
    done = gym("build", *names, "--source", source, "--out", poems / "gym")
    assert done.returncode == 1
    lines = dict(line.split(" failed: ", 1) for line in done.stderr.strip().splitlines())
    assert set(lines) == set(names) - {"poem_sentiment"}
    assert "train.parquet: not a readable parquet file" in lines["ag_news"]
    assert "emo/train.jsonl, line 2: the label 9 of field 'label' is outside the verbalizer" in lines["emo"]
    assert "sick/train.jsonl, line 1: no field 'label'. The row has sentence_A" in lines["sick"]
    assert "no rows for split 'train'. Put them at train.parquet or train.jsonl" in lines["trec"]
    assert "1 differs, 4 failed" in done.stdout
    assert sorted(p.name for p in (poems / "gym").iterdir()) == ["poem_sentiment"]


def test_a_build_that_hangs_costs_one_task(poems):
    # A pipe that nobody writes to: reading it never ends.
    pipe = poems / "pipe.jsonl"
    os.mkfifo(pipe)
    fields = {"kind": "text2text", "metric": "EM", "category": "own", "input": "{a}", "output": "{b}"}
    entry = parse_entry("stuck", {"dataset": {"files": {"train": str(pipe)}}, **fields}, "here")
    stuck = Job(entry, poems / "gym", False)
    reports = {r.task: r for r in build_tasks([stuck, job(poems)], processes=2, seconds=6)}
    assert reports["poem_sentiment"].status == "differs"
    assert "took longer than 6 seconds" in reports["stuck"].problem


def die(job, connection):
    os._exit(9)


def test_a_build_whose_process_dies_costs_one_task(poems, monkeypatch):
    monkeypatch.setattr("softstart.gym.jobs._work", die)
    (report,) = build_tasks([job(poems)])
    assert report.status == "failed"
    assert "its process died with code 9 (out of memory?)" in report.problem
    assert not list((poems / "gym").glob("*"))


def test_without_network_every_task_of_the_hub_fails_with_one_clear_line(tmp_path):
    done = gym(
        "build", "--all", "--out", tmp_path / "gym", HF_HOME=str(tmp_path / "empty"), HF_HUB_OFFLINE="1"
    )
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 160
    assert sum("the hub cannot be reached (no network, or offline mode)" in line for line in lines) == 156
    assert sum("not on the hub" in line for line in lines) == 4
    assert all("--source DIR" in line for line in lines)
    assert "160 failed" in done.stdout


def test_an_unreachable_hub_is_noticed(tmp_path):
    # An address where nothing answers; what waits for one task after the other hits the helper's timeout.
    environment = {"HF_ENDPOINT": "https://10.255.255.1", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    done = gym("build", "ag_news", "emo", "--out", tmp_path / "gym", **environment)
    assert done.stderr.count("the hub cannot be reached") == 2


def test_a_dataset_that_needs_a_script_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "scripted").mkdir()
    (tmp_path / "scripted" / "scripted.py").write_text("import datasets\n")
    (tmp_path / "mine.yaml").write_text(
        "tasks: {mine: {dataset: {id: ./scripted}, splits: {carve: train}, kind: text2text, metric: EM,"
        " category: own, input: '{a}', output: '{b}'}}"
    )
    done = gym("build", "mine", "--catalog", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "dataset './scripted': it needs a loading script, which datasets" in done.stderr
    assert "Give its rows with --source DIR" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_commands_say_what_is_wrong_with_their_arguments(tmp_path):
    assert "unknown task 'ag_new'. ag_new: Did you mean ag_news?" in failed("build", "ag_new")
    assert "nothing to build" in failed("build")
    assert "unknown version 'v3'" in failed("build", "emo", "--version", "v3")
    assert "nowhere: no such folder" in failed("build", "emo", "--source", "nowhere", cwd=tmp_path)
    assert "unknown setting 'cls2cl'" in failed("build", "--setting", "cls2cl")
    assert "gym folder 'nowhere' does not exist" in failed("verify", "nowhere", cwd=tmp_path)
    assert "unknown task 'commonsensqa'. commonsensqa: Did you mean commonsense_qa" in failed(
        "show", "commonsensqa"
    )
