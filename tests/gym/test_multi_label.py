"""Tables with several labels a row: how they are read, asked about and scored."""

from __future__ import annotations

import csv
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from helpers.own_tables import failed, softstart
from softstart.errors import SoftstartError
from softstart.gym.metrics import score
from softstart.gym.multi_label import f1, labels_asked, macro_f1, questions
from softstart.gym.source_folder import source_tasks
from softstart.gym.tables import RawData, labeled_rows, whole_task
from softstart.gym.task import Example
from softstart.prompt import SoftPrompt

LABELS = ("bad", "good", "long")
SETS = st.lists(st.tuples(*[st.sets(st.sampled_from(LABELS))] * 2), min_size=1, max_size=12)


def ticket(i: int) -> tuple[str, list[str]]:
    noise = random.Random(i)
    found = [label for label in LABELS if noise.random() < 0.4]
    return f"film {i} was {' and '.join(found) or 'there'}", found


def tables(folder, rows=40):
    """The same rows as lists in JSONL, lists in cells, and columns of 0 and 1."""
    made = [ticket(i) for i in range(rows)]
    with (folder / "lists.jsonl").open("w") as file:
        file.writelines(json.dumps({"input": text, "topics": found}) + "\n" for text, found in made)
    with (folder / "cells.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["input", "topics"])
        cells = ["; ".join(found) if i % 2 else json.dumps(found) for i, (_, found) in enumerate(made)]
        writer.writerows((text, cell) for (text, _), cell in zip(made, cells, strict=True))
    with (folder / "flags.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["input", *LABELS])
        writer.writerows((text, *(int(label in found) for label in LABELS)) for text, found in made)
    return made


@given(rows=SETS)
def test_f1_is_scikit_learns(rows):
    predicted, gold = ([sets[side] for sets in rows] for side in (0, 1))
    flags = [[[int(label in found) for label in LABELS] for found in side] for side in (gold, predicted)]
    expected = [f1_score(*flags, average=how, zero_division=0) for how in ("micro", "macro")]
    assert f1(predicted, gold, LABELS) == pytest.approx(expected, abs=1e-12)
    # The same from answers to questions, as a task is scored.
    asked = questions([Example("text", tuple(found)) for found in gold], LABELS)
    said = [
        row.outputs[0] for row in questions([Example("text", tuple(found)) for found in predicted], LABELS)
    ]
    assert score("Micro-F1", said, [row.outputs for row in asked]) == pytest.approx(expected[0], abs=1e-12)
    assert macro_f1(said, asked) == pytest.approx(expected[1], abs=1e-12)


def test_lists_cells_and_flags_are_read_alike(tmp_path):
    made = tables(tmp_path)
    ways = (("lists.jsonl", ("topics",)), ("cells.csv", ("topics",)), ("flags.csv", LABELS))
    tasks = [whole_task(RawData(str(tmp_path / name), name="t", multi_label=of)) for name, of in ways]
    assert tasks[0].digest == tasks[1].digest == tasks[2].digest
    task = tasks[0]
    assert (task.metric, task.kind, task.labels) == ("Micro-F1", "classification", ("no", "yes"))
    assert labels_asked(task.test) == list(LABELS)
    truth = dict(made)
    for row in (*task.test, *task.samples[42].train):
        label, text = row.input.removeprefix("label: ").split("\n")
        assert row.outputs == (("yes",) if label in truth[text] else ("no",))
    (mine,) = (labeled_rows(RawData(str(tmp_path / name), multi_label=of)) for name, of in ways[:1])
    assert [set(row.outputs) - {"(none)"} for row in mine] == [set(found) for _, found in made]


def test_a_source_folder_may_hold_such_tables(tmp_path):
    tables(tmp_path)
    for name in ("cells.csv", "lists.jsonl"):
        (tmp_path / name).unlink()
    (tmp_path / "sources.yaml").write_text("flags.csv: {input: input, multi_label: [good, bad]}\n")
    (task,) = source_tasks(tmp_path)
    assert {row.input.split("\n")[0] for row in task.samples[42].train} == {"label: good", "label: bad"}
    (tmp_path / "sources.yaml").write_text("flags.csv: {input: input, multi_label: good}\n")
    with pytest.raises(SoftstartError, match="'multi_label' cannot be 'good'"):
        source_tasks(tmp_path)


def test_what_is_wrong_with_such_a_table_is_said(tmp_path):
    tables(tmp_path)

    def error(name, of, **more):
        with pytest.raises(SoftstartError) as found:
            whole_task(RawData(str(tmp_path / name), multi_label=of, **more))
        return str(found.value)

    assert "no column 'godo'" in error("flags.csv", ("bad", "godo"))
    assert "column 'input' holds 'film 0 was" in error("flags.csv", ("bad", "input"))
    assert "neither 0 nor 1" in error("flags.csv", ("bad", "input"))
    assert "cannot go together" in error("flags.csv", ("bad", "good"), label="long")
    assert "is not among --labels" in error("cells.csv", ("topics",), labels=["good", "bad"])
    (tmp_path / "broken.csv").write_text('input,topics\na,"[""x"""\nb,x\n')
    assert "broken.csv, line 2" in error("broken.csv", ("topics",))
    (tmp_path / "none.csv").write_text("input,topics\na,\nb,\nc,\nd,\ne,\nf,\n")
    assert "no row has a label" in error("none.csv", ("topics",))


def test_adapt_predict_and_evaluate_take_them(tmp_path):
    made = tables(tmp_path)
    options = ("--steps", 4, "--splits", 1, "--lr", 0.3, "--length", 4, "--device", "cpu")
    code, shown, err = softstart(
        "adapt", "--train", "flags.csv", "--multi-label", *LABELS, *options, "--out", "tuned", cwd=tmp_path
    )
    assert code == 0, err
    assert "Micro-F1" in shown
    assert "macro-F1 over the labels on test: PT from scratch " in shown
    assert SoftPrompt.from_pretrained(tmp_path / "tuned").info["asked"] == list(LABELS)
    for out in ("said.csv", "said.jsonl"):
        code, _, err = softstart("predict", "tuned", "--rows", "flags.csv", "--out", out, cwd=tmp_path)
        assert code == 0, err
    with (tmp_path / "said.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(made)
    for row in rows:
        chosen = [label for label in LABELS if float(row[f"p({label})"]) > 0.5]
        assert json.loads(row["prediction"]) == chosen
    lines = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    flags = [
        [[int(label in found) for label in LABELS] for found in side]
        for side in ([found for _, found in made], [line["prediction"] for line in lines])
    ]
    micro, macro = (100 * f1_score(*flags, average=how, zero_division=0) for how in ("micro", "macro"))
    code, shown, err = softstart("evaluate", "tuned", "--rows", "flags.csv", cwd=tmp_path)
    assert code == 0, err
    assert f"Micro-F1 {micro:.1f}, macro-F1 {macro:.1f} on {len(made)} rows" in shown
    assert "cannot go together" in failed(
        "adapt", "--train", "flags.csv", "--multi-label", "good", "--label", "bad", cwd=tmp_path
    )
