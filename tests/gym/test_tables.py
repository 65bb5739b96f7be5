import gzip
import json
import random

import pytest

from helpers.gym_cli import failed, gym
from softstart.errors import SoftstartError
from softstart.gym import kshot, load_task, open_gym, tables
from softstart.gym.rows import line_of, read_rows
from softstart.gym.sampling import shuffled
from softstart.gym.source_folder import source_tasks
from softstart.gym.tables import RawData, entry_of, whole_task

WORDS = ["good", "bad", "so-so"]


def csv_file(path, n=180, header="input,output"):
    noise = random.Random(0)
    rows = [(f"text {i}, {noise.random():.3f}", WORDS[i % 3]) for i in range(n)]
    path.write_text(header + "\n" + "".join(f'"{text}",{word}\n' for text, word in rows))
    return rows


def carved(rows):
    order = shuffled(rows, 42)
    return order[: int(0.8 * len(rows))], order[int(0.8 * len(rows)) :]


def lines(path):
    return [tuple(line.split("\t")) for line in path.read_text().splitlines()]


def test_one_line_makes_a_task_sampled_as_crossfit_does(tmp_path):
    rows = csv_file(tmp_path / "mine.csv")
    done = gym("sample", "mine.csv", "--shots", 16, "--seeds", 13, 21, 42, 87, 100, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "gym" / "mine"
    assert len(list(folder.glob("*.tsv"))) == 15
    pool, test = carved(rows)
    for seed in (13, 21, 42, 87, 100):
        train, dev = kshot(pool, 16, seed, "classification")
        assert lines(folder / f"mine_16_{seed}_train.tsv") == train
        assert lines(folder / f"mine_16_{seed}_dev.tsv") == dev
        assert lines(folder / f"mine_16_{seed}_test.tsv") == test
    mine = open_gym(tmp_path / "gym").load("mine")
    assert (mine.kind, mine.metric, mine.labels) == (
        "classification",
        "Classification-F1",
        tuple(sorted(WORDS)),
    )
    # The same task without files, through the same interface.
    direct = open_gym(tmp_path / "mine.csv").load("mine")
    assert (direct.samples, direct.test, direct.kind) == (mine.samples, mine.test, mine.kind)
    assert "kept: nothing changed" in gym("sample", "mine.csv", "--shots", "16", cwd=tmp_path).stdout


def test_templates_labels_and_a_test_file_of_your_own(tmp_path):
    header = "title,body,stars\n"
    (tmp_path / "a.csv").write_text(header + "".join(f't{i},"two\nlines {i}",{i % 2}\n' for i in range(80)))
    (tmp_path / "b.csv").write_text(header + "last,one,1\n")
    options = [
        "--input",
        "{title}: {body}",
        "--label",
        "stars",
        "--labels",
        "0=bad",
        "1=good",
        "--metric",
        "ACC",
    ]
    done = gym("sample", "a.csv", *options, "--test", "b.csv", "--name", "stars", "--seeds", 5, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    task = open_gym(tmp_path / "gym").load("stars")
    assert (task.metric, task.labels, list(task.samples)) == ("ACC", ("bad", "good"), [5])
    assert [(row.input, row.outputs) for row in task.test] == [("last: one", ("good",))]
    assert all("\n" not in row.input and ": two lines" in row.input for row in task.samples[5].train)


def test_labels_balance_texts_that_are_not_labels(tmp_path):
    rows = [
        {"input": f"q{i}", "output": f"answer {i}", "label": "easy" if i % 4 else "hard"} for i in range(200)
    ]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load_task(tmp_path / "qa.jsonl", shots=8)
    assert (task.kind, task.metric) == ("text2text", "EM")
    hard = {f"q{i}" for i in range(0, 200, 4)}
    for sample in task.samples.values():
        assert sum(row.input in hard for row in sample.train) == 8
        assert len(sample.train) == 16


def test_several_answers_are_kept_as_crossfit_stores_them(tmp_path):
    rows = [{"input": f"q\t{i}", "output": [f"a {i}", f"b\n{i}"] if i % 2 else f"a {i}"} for i in range(90)]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert gym("sample", "qa.jsonl", cwd=tmp_path).returncode == 0
    written = lines(tmp_path / "gym" / "qa" / "qa_32_13_train.tsv")
    assert {len(row) for row in written} == {2, 3}
    two = next(row for row in written if len(row) == 3)
    assert two[2] == two[1].replace("a", "b")
    assert open_gym(tmp_path / "gym").load("qa").kind == "text2text"
    # The same rows as lines in CrossFit's format, without a header.
    bare = tmp_path / "plain_32_13_train.tsv"
    bare.write_text("".join(f"q {i}\ta {i}\tb {i}\n" for i in range(90)))
    plain = load_task(bare)
    assert plain.test[0].outputs[0].startswith("a ")
    assert len(plain.test[0].outputs) == 2


def test_parquet_and_a_catalog_file_of_your_own(tmp_path):
    import pandas as pd

    pd.DataFrame({"text": [f"t{i}" for i in range(90)], "y": [i % 2 for i in range(90)]}).to_parquet(
        tmp_path / "rows.parquet"
    )
    (tmp_path / "mine.yaml").write_text(
        "tasks:\n  mood:\n    dataset: {files: {train: rows.parquet}}\n    kind: classification\n"
        "    metric: ACC\n    category: own/mood\n    shots: 4\n    input: '{text}'\n    output: '{LABEL}'\n"
        "    labels: {field: y, words: [sad, happy]}\n"
    )
    opened = open_gym(tmp_path / "mine.yaml")
    assert opened.tasks() == ("mood",)
    mood = opened.load("mood")
    assert (mood.labels, len(mood.samples[13].train), mood.category) == (("happy", "sad"), 8, "own/mood")
    done = gym("build", "mood", "--catalog", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert open_gym(tmp_path / "gym").load("mood").samples == mood.samples
    with pytest.raises(SoftstartError, match=r"unknown task 'modo'. Did you mean mood"):
        opened.load("modo")


BAD = {
    "too few columns": (
        "input,output\nx,a\ny\nz,b\n",
        [],
        "mine.csv, line 3: too few columns: 1, the first line names 2",
    ),
    "too many columns": ("input,output\nx,a\ny,b,c\n", [], "mine.csv, line 3: too many columns: 3"),
    "a line break before": ('input,output\n"x\ny",a\ny\n', [], "mine.csv, line 4: too few columns"),
    "not UTF-8": (b"input,output\nx,a\ncaf\xe9,b\n", [], "mine.csv, line 3: not UTF-8 (byte 4 of the line)"),
    "outside": (
        "input,label\nx,a\ny,c\n",
        ["--labels", "a", "b"],
        "mine.csv, line 3: the label 'c' of field 'label' is outside the verbalizer. It knows a, b",
    ),
    "empty class": (
        "input,label\n" + "x,a\n" * 50,
        ["--labels", "a", "b"],
        "class 'b' has no row in the pool",
    ),
    "too few rows": (
        "input,output\n" + "x,a\n" * 50 + "y,b\n" * 30,
        [],
        "fewer than 32 rows in the pool for k = 16: 'b'",
    ),
    "too few in all": (
        "input,output\n" + "".join(f"x{i},y{i}\n" for i in range(60)),
        [],
        "48 rows in the pool, 64 are needed for k = 32",
    ),
    "no output": ("input,output\nx,a\ny,\n", [], "mine.csv, line 3: the output is empty"),
    "no label": ("input,output,label\nx,a,b\nx,a,\n", [], "mine.csv, line 3: the label is empty"),
    "no input": ("input,output\nx,a\n ,b\n", [], "mine.csv, line 3: the input is empty"),
    "no column": (
        "text,output\nx,a\n",
        [],
        "no column 'input'. It has text, output: rename one, or give a template",
    ),
    "no answer column": ("input,answer\nx,a\n", [], "no column 'output' or 'label'"),
    "unknown field": (
        "input,output\nx,a\n",
        ["--input", "{text}"],
        "mine.csv, line 2: no field 'text'. The row has input, output",
    ),
    "open quote": ('input,output\nx,a\n"y,b\n', [], "mine.csv, line 3: not a readable table"),
    "no rows": ("input,output\n", [], "mine.csv: no rows"),
    "metric": ("input,output\nx,a\n", ["--metric", "f1"], "metric: unknown metric 'f1'"),
    "kind": ("input,output\nx,a\n", ["--kind", "regression"], "unknown kind 'regression'"),
}


@pytest.mark.parametrize(("content", "options", "says"), BAD.values(), ids=BAD)
def test_bad_input_is_named_by_file_and_line(tmp_path, content, options, says):
    (tmp_path / "mine.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert says in failed("sample", "mine.csv", *options, cwd=tmp_path)
    assert not (tmp_path / "gym").exists()


def test_jsonl_that_is_none_is_named_by_line(tmp_path):
    for bad, says in (
        ("{", "not valid JSON"),
        ("[1]", "not a JSON object"),
        ('{"input": "x"}', "no field 'output'"),
    ):
        (tmp_path / "mine.jsonl").write_text('{"input": "x", "output": "a"}\n' + bad + "\n")
        with pytest.raises(SoftstartError) as error:
            entry_of(RawData(str(tmp_path / "mine.jsonl")))
        assert f"mine.jsonl, line 2: {says}" in str(error.value)


def test_short_classes_can_be_accepted_and_duplicates_are_counted(tmp_path):
    (tmp_path / "mine.csv").write_text(
        "input,output\n" + "".join(f"x{i % 30},{'ab'[i % 2]}\n" for i in range(120))
    )
    done = gym("sample", "mine.csv", "--shots", 40, "--allow-short", "--seeds", 13, cwd=tmp_path)
    assert done.returncode == 0
    first, second = done.stderr.strip().splitlines()
    assert first.startswith("warning: fewer than 80 rows in the pool for k = 40: ")
    count = int(second.removeprefix("warning: ").split()[0])
    task = open_gym(tmp_path / "gym").load("mine")
    drawn = {row.input for row in (*task.samples[13].train, *task.samples[13].dev)}
    assert count == len(drawn & {row.input for row in task.test}) > 0


def test_a_dataset_of_the_hub_needs_the_hub(tmp_path):
    line = failed("sample", "hf:nobody/nothing", cwd=tmp_path, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert line.startswith("dataset 'nobody/nothing': the hub cannot be reached")


def test_a_dataset_that_datasets_can_load_becomes_a_task(tmp_path):
    folder = tmp_path / "local"
    folder.mkdir()
    rows = [{"text": f"t{i}", "mood": WORDS[i % 3]} for i in range(200)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = gym(
        "sample", "hf:./local", "--input", "{text}", "--label", "mood", "--out", "gym",
        cwd=tmp_path, HF_HOME=str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    local = open_gym(tmp_path / "gym").load("local")
    pool, test = carved([(row["text"], row["mood"]) for row in rows])
    assert [(row.input, row.outputs[0]) for row in local.test] == test
    train = kshot(pool, 16, 87, "classification").train
    assert [(row.input, row.outputs[0]) for row in local.samples[87].train] == train


@pytest.mark.parametrize("name", ["LABEL", "ANSWER", "ANSWERS", "CHOICES"])
def test_a_column_is_never_taken_for_what_a_template_makes(tmp_path, name):
    (tmp_path / "t.csv").write_text(f"{name},label\n" + "".join(f"text {i},{i % 2}\n" for i in range(40)))
    with pytest.raises(SoftstartError, match=rf"t\.csv: a column is named '{name}', which stands for"):
        entry_of(RawData(str(tmp_path / "t.csv"), input=f"{{{name}}}"))
    # Where no template reads it, it is in nobody's way, but for the label words that are made.
    (tmp_path / "t.csv").write_text(
        f"input,{name},label\n" + "".join(f"t {i},x,{i % 2}\n" for i in range(40))
    )
    assert entry_of(RawData(str(tmp_path / "t.csv"))).kind == "classification"


def test_a_column_named_line_is_a_column(tmp_path):
    rows = "".join(f"text {i},{i % 2}\n" for i in range(40))
    (tmp_path / "t.csv").write_text("LINE,label\n" + rows)
    task = whole_task(RawData(str(tmp_path / "t.csv"), input="{LINE}"))
    assert {example.input.split()[0] for example in task.test} == {"text"}
    (tmp_path / "t.csv").write_text("LINE,label\n" + rows + "x,\n")
    with pytest.raises(SoftstartError, match=r"t\.csv, line 42: the output is empty"):
        whole_task(RawData(str(tmp_path / "t.csv"), input="{LINE}"))


def test_half_a_character_is_refused_with_its_line(tmp_path):
    good = json.dumps({"input": "a \U0001f600", "label": "x"})
    (tmp_path / "t.jsonl").write_text(good + '\n{"input": "\\ud83d", "label": "x"}\n')
    with pytest.raises(SoftstartError, match=r"t\.jsonl, line 2: holds half of a character"):
        whole_task(RawData(str(tmp_path / "t.jsonl")))


@pytest.mark.parametrize(
    ("file", "task"),
    [("情感.csv", "情感"), ("हिन्दी.csv", "हिन्दी"), ("e\u0301t\u00e9.csv", "\u00e9t\u00e9"),
     ("A b/#.csv", "A_b"), ("LOUD.CSV", "LOUD")],
)  # fmt: skip
def test_task_names_are_letters_of_any_script(tmp_path, file, task):
    path = tmp_path / file.replace("/", "-")
    path.write_text("input,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(40)))
    assert entry_of(RawData(str(path))).name == task.replace("A_b", "A_b-_")


def test_hidden_files_are_no_source_tasks(tmp_path):
    rows = "input,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(40))
    for name in ("one.csv", "two.CSV", "._one.csv", ".~lock.one.csv"):
        (tmp_path / name).write_text(rows)
    assert [task.name for task in source_tasks(tmp_path)] == ["one", "two"]


@pytest.mark.parametrize("name", ["t.csv.gz", "t.zip", "t.csv", "t.jsonl"])
def test_a_compressed_table_is_called_so(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(b"input,label\na,b\n"))
    with pytest.raises(SoftstartError, match=r"Unpack it first\."):
        list(read_rows(tmp_path / name))


@pytest.mark.parametrize("ending", ["", "\n", "\n\n"])
def test_lines_are_read_one_at_a_time_with_their_numbers(tmp_path, ending):
    (tmp_path / "t.csv").write_text('input,label\n"a\nb\r",x\nc,y' + ending, newline="")
    rows = list(read_rows(tmp_path / "t.csv"))
    assert [(dict(row), line_of(row)) for row in rows] == [
        ({"input": "a\nb\r", "label": "x"}, 2),
        ({"input": "c", "label": "y"}, 4),
    ]


def test_of_a_large_table_rows_are_drawn_and_it_is_said(tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text(
        "input,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(400))
    )
    raw = RawData(str(tmp_path / "t.csv"))
    whole = whole_task(raw, splits=2)
    assert not whole.notes
    monkeypatch.setattr(tables, "MOST_TRAIN", 50)
    monkeypatch.setattr(tables, "MOST_TEST", 20)
    drawn = whole_task(raw, splits=2)
    for seed, sample in drawn.samples.items():
        assert (len(sample.train), sample.dev) == (50, whole.samples[seed].dev)
        assert sample.train == whole.samples[seed].train[:50]
    assert drawn.test == whole.test[:20]
    assert drawn.notes == (
        "320 rows to learn from: each split takes 50 of them, drawn by its seed",
        "80 rows to test on: 20 of them are taken, drawn by seed",
    )
    own = whole_task(RawData(str(tmp_path / "t.csv"), test=str(tmp_path / "t.csv")))
    assert len(own.test) == 400
