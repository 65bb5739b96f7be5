"""Tasks of lm-evaluation-harness as tables; nothing of theirs is run."""

from __future__ import annotations

import json

import pytest
import yaml

from helpers.own_tables import failed, softstart
from softstart.errors import SoftstartError
from softstart.gym.lm_eval_task import is_lm_eval
from softstart.gym.rows import read_rows
from softstart.gym.source_folder import source_tasks
from softstart.gym.tables import RawData, whole_task

TASK = {
    "task": "films", "dataset_path": "json", "output_type": "multiple_choice", "training_split": "train",
    "test_split": "test", "doc_to_text": "Review: {{review.strip()}}\nSentiment:",
    "doc_to_choice": ["negative", "positive"], "doc_to_target": "label",
}  # fmt: skip


def write(folder, rows, name="task.yaml", **changes):
    task = TASK | {"dataset_kwargs": {"data_files": {"train": "train.jsonl", "test": "test.json"}}} | changes
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "test.json").write_text(json.dumps(rows[:4]))
    kept = {key: value for key, value in task.items() if value is not None}
    (folder / name).write_text(yaml.safe_dump(kept))
    return folder / name


def films(count=40):
    return [{"review": f" film {i} was {('bad', 'good')[i % 2]} ", "label": i % 2} for i in range(count)]


def test_rows_are_what_the_templates_make_of_them(tmp_path):
    path = write(tmp_path, films())
    assert is_lm_eval(path)
    rows = list(read_rows(path))
    assert rows[1] == {
        "review": " film 1 was good ", "label": 1, "input": "Review: film 1 was good\nSentiment:",
        "output": "positive",
    }  # fmt: skip
    assert len(list(read_rows(f"{path}@test"))) == 4
    task = whole_task(RawData(str(path), test=f"{path}@test"))
    assert (task.kind, task.labels, len(task.test)) == ("classification", ("negative", "positive"), 4)


def test_choices_of_each_row(tmp_path):
    rows = [
        {
            "question": {"stem": "sky"}, "choices": {"text": ["green", "blue"], "label": ["A", "B"]},
            "answerKey": "B",
        }
    ]  # fmt: skip
    path = write(
        tmp_path, rows, doc_to_text="{{ 'Q: ' ~ doc.question['stem'] | upper }}",
        doc_to_choice="{{choices.text}}", doc_to_target="{{ choices.label.index(answerKey) }}",
    )  # fmt: skip
    (row,) = read_rows(path)
    assert (row["input"], row["output"]) == ("Q: SKY", "blue")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"doc_to_text": "{% for x in y %}{{x}}{% endfor %}"}, r"doc_to_text: a template with for"),
        ({"doc_to_text": "{{ ''.__class__ }}{{ f() }}"}, "a template with call"),
        ({"doc_to_text": "{{ label * 1000000000 }}"}, "a template with mul"),
        ({"doc_to_text": "{{ review.format(1) }}"}, "a template with call"),
        ({"doc_to_text": "{{ review | tojson }}"}, "a template with filter"),
        ({"doc_to_text": "{{ review.strip(chars='x') }}"}, "a template with call"),
        ({"doc_to_text": "{{ review"}, "not a template"),
        ({"doc_to_text": "{{ reviw }}"}, "row 1: the templates of task.yaml do not fit"),
        ({"doc_to_text": "{{ review.__class__ }}"}, "do not fit"),
        ({"doc_to_target": "{{ label }}", "doc_to_choice": ["only"]}, "row 2: the target 1 names none of 1"),
        ({"output_type": "generate_until"}, "output_type 'generate_until'"),
        ({"doc_to_choice": None}, "no 'doc_to_choice'"),
        ({"dataset_path": "super_glue"}, r"on the hub \('super_glue'\)"),
        ({"include": "base.yaml"}, "includes another file"),
    ],
)
def test_what_is_not_computed_is_refused_in_one_line(tmp_path, changes, said):
    path = write(tmp_path, films(), **changes)
    with pytest.raises(SoftstartError, match=said) as found:
        list(read_rows(path))
    assert "\n" not in str(found.value)


def test_code_is_never_run(tmp_path):
    path = write(tmp_path, films())
    path.write_text(path.read_text() + "process_docs: !function utils.process\n")
    (tmp_path / "utils.py").write_text("raise SystemExit('it was run')\n")
    with pytest.raises(SoftstartError, match="code of its own"):
        list(read_rows(path))
    with pytest.raises(SoftstartError, match="no split 'dev'"):
        list(read_rows(f"{write(tmp_path, films())}@dev"))


def test_such_a_task_is_a_source_and_a_target(tmp_path):
    (tmp_path / "sources").mkdir()
    (tmp_path / "data").mkdir()
    rows = films()
    for name in ("one", "two"):
        files = {"data_files": {"train": str(tmp_path / "data" / "train.jsonl")}}
        path = write(tmp_path / "data", rows, f"{name}.yaml", dataset_kwargs=files)
        path.rename(tmp_path / "sources" / path.name)
    assert [task.name for task in source_tasks(tmp_path / "sources")] == ["one", "two"]
    write(tmp_path / "data", rows)
    options = ("--steps", 2, "--splits", 1, "--lr", 0.3, "--length", 4, "--device", "cpu")
    given = ("adapt", "--train", "data/task.yaml", "--test", "data/task.yaml@test")
    code, shown, err = softstart(*given, *options, cwd=tmp_path)
    assert code == 0, err
    assert "30 rows to learn from, 10 dev, 4 test" in shown
    assert "no split 'dev'" in failed(*given[:-1], "data/task.yaml@dev", *options, cwd=tmp_path)
