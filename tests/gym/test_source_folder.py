"""Source tasks of a folder: tables that differ, a mapping of their columns, a gym."""

from __future__ import annotations

import pytest
import yaml

from helpers.models import toy_task
from softstart.errors import SoftstartError
from softstart.gym import write_tsv
from softstart.gym.source_folder import MAPPING, source_tasks
from softstart.gym.tables import RawData


def table(folder, name, columns, make):
    folder.mkdir(exist_ok=True)
    rows = [",".join(make(i)) for i in range(20)]
    (folder / name).write_text("\n".join([",".join(columns), *rows]) + "\n")


def words(i):
    return [f"text {i}", "yes" if i % 2 else "no"]


def test_tables_with_one_text_and_one_output_are_read_whatever_their_names(tmp_path):
    table(tmp_path, "a.csv", ["input", "label"], words)
    table(tmp_path, "b.csv", ["sentence", "label"], words)
    table(tmp_path, "c.csv", ["id", "question", "answer"], lambda i: [str(i), f"why {i}", f"so {i}"])
    tasks = {task.name: task for task in source_tasks(tmp_path)}
    for name, text in (("a", "text"), ("b", "text"), ("c", "why")):
        (sample,) = tasks[name].samples.values()
        assert len((*sample.train, *sample.dev)) == 20
        assert all(row.input.startswith(text) for row in sample.train)
    assert tasks["b"].labels == ("no", "yes")
    assert tasks["c"].kind == "text2text"


def test_of_other_tables_a_draft_is_printed_that_works(tmp_path):
    table(tmp_path, "a.csv", ["input", "label"], words)
    table(tmp_path, "nli.csv", ["premise", "hypothesis", "label"], lambda i: [f"p{i}", f"h{i}", "01"[i % 2]])
    with pytest.raises(SoftstartError) as error:
        source_tasks(tmp_path)
    assert error.value.what == "cannot tell input and output of 1 of 2 tables"
    assert str(tmp_path / MAPPING) in error.value.fix
    draft = error.value.fix.partition("corrected: ")[2]
    assert yaml.safe_load(draft) == {"nli.csv": {"input": "{premise} {hypothesis}", "label": "label"}}
    (tmp_path / MAPPING).write_text(
        draft.replace("label: label", "label: label, labels: {0: holds, 1: fails}")
    )
    tasks = {task.name: task for task in source_tasks(tmp_path)}
    assert tasks["nli"].samples[42].train[0].input.startswith("p")
    assert " h" in tasks["nli"].samples[42].train[0].input
    assert tasks["nli"].labels == ("fails", "holds")
    # What the command says holds for tables that the mapping leaves out.
    table(tmp_path, "b.csv", ["text", "more", "label"], lambda i: [f"text {i}", "x", "no"])
    (tmp_path / "a.csv").unlink()
    tasks = {task.name: task for task in source_tasks(tmp_path, RawData("", input="{more}", label="label"))}
    assert {row.input for row in tasks["b"].samples[42].train} == {"x"}
    assert tasks["nli"].samples[42].train[0].input.startswith("p")


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ("b.csv: {input: text}", r"no table 'b\.csv'\. Did you mean a\.csv\?"),
        ("a.csv: {inptu: text}", r"a\.csv: unknown key 'inptu'\. Did you mean input"),
        ("a.csv: {input: 3}", r"a\.csv: 'input' cannot be 3"),
        ("a.csv: {kind: other}", r"unknown kind 'other'"),
        ("a.csv: {labels: {0: no, 1: yes}}", "a label is true or false"),
        ("- a.csv", "not a mapping of files to columns"),
        ("a.csv: {input: texd}", r"no column 'texd'.*Did you mean text"),
    ],
)
def test_a_wrong_mapping_is_named(tmp_path, mapping, says):
    table(tmp_path, "a.csv", ["text", "label"], words)
    (tmp_path / MAPPING).write_text(mapping)
    with pytest.raises(SoftstartError, match=says):
        source_tasks(tmp_path)


def test_a_folder_in_crossfits_format_is_a_source_folder(tmp_path):
    task = toy_task("toy")
    (tmp_path / "toy").mkdir()
    for seed, sample in task.samples.items():
        for part in ("train", "dev"):
            write_tsv(tmp_path / "toy" / f"toy_4_{seed}_{part}.tsv", getattr(sample, part))
    write_tsv(tmp_path / "toy" / "toy_test.tsv", task.test)
    (tmp_path / "toy" / "task.json").write_text('{"kind": "classification", "metric": "ACC"}')
    (read,) = source_tasks(tmp_path)
    assert read.samples == task.samples
