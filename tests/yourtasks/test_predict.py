"""Predictions of one's own rows, and prompts in other formats."""

from __future__ import annotations

import csv
import json
from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from helpers.models import random_t5, relative
from helpers.own_tables import softstart
from softstart import Backbone
from softstart.backbone import IGNORE, candidates_tensor, collate
from softstart.gym.rows import read_rows
from softstart.gym.tables import RawData, labeled_rows, whole_task
from softstart.prompt import SoftPrompt
from softstart.yourtasks import Predictor
from softstart.yourtasks.predict import CHUNK, evaluate_rows


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_predictions_keep_the_rows_their_order_and_their_columns(folder, name):
    here, _ = folder
    code, _, err = softstart("predict", "tuned", "--rows", "more.csv", "--out", name, cwd=here)
    assert code == 0, err
    with (here / name).open(newline="") as file:
        rows = list(csv.DictReader(file)) if name.endswith("csv") else [json.loads(line) for line in file]
    assert [int(row["id"]) for row in rows] == list(range(20))
    assert rows[3]["body"] == "it was bad,\nreally"
    for row in rows:
        chances = {word: float(row[f"p({word})"]) for word in ("bad", "good")}
        assert sum(chances.values()) == pytest.approx(1.0, abs=1e-5)
        assert row["prediction"] == max(chances, key=chances.get)


def test_the_same_in_python_and_the_chances_are_those_of_the_model(folder):
    here, _ = folder
    backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    prompt = SoftPrompt.from_pretrained(here / "tuned")
    texts = [f"the film number {i} was good" for i in range(CHUNK + 3)]
    predicted = list(Predictor(backbone, prompt)({"input": text, "n": i} for i, text in enumerate(texts)))
    assert [row["n"] for row in predicted] == list(range(CHUNK + 3))
    words = backbone.tokenizer(["bad", "good"]).input_ids
    ids = backbone.tokenizer(texts[-1:]).input_ids
    scores = backbone.rank(
        prompt.tensor[None], collate(ids, [[]], [0], pad=0), candidates_tensor([words], IGNORE)
    )
    expected = torch.softmax(scores[0], 0)
    assert predicted[-1]["p(good)"] == pytest.approx(float(expected[1]), abs=1e-5)
    free = list(Predictor(backbone, prompt, labels=[])([{"input": texts[0]}]))
    assert set(free[0]) == {"input", "prediction"}


def test_any_answer_of_a_list_counts_as_in_a_task_from_the_same_table(tmp_path):
    backbone = random_t5(torch.float32)
    prompt = SoftPrompt.of(backbone, torch.zeros(4, backbone.width), {"labels": ["w3", "w4"]})
    predictor = Predictor(backbone, prompt)
    inputs = [{"input": text} for text in ("a", "b", "c", "d")]
    first, *others = [row["prediction"] for row in predictor(inputs)]
    rows = [
        {"input": "a", "output": ["never", f"{first}\n"]},
        *({"input": row["input"], "output": "never"} for row, _ in zip(inputs[1:], others, strict=True)),
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert evaluate_rows(predictor, labeled_rows(RawData(str(path))), "ACC").score == 1 / 4
    task = whole_task(RawData(str(path), test=str(path)))
    assert task.test[0].outputs == ("never", first)


def test_export_converts_any_format(folder, tmp_path):
    here, _ = folder
    assert softstart("export", here / "tuned", "p.safetensors", cwd=tmp_path)[0] == 0
    assert softstart("export", "p.safetensors", "peft", cwd=tmp_path)[0] == 0
    first, last = SoftPrompt.from_pretrained(here / "tuned"), SoftPrompt.from_pretrained(tmp_path / "peft")
    assert relative(first.tensor, last.tensor) == 0
    assert first.info == last.info


def predicted(here, rows, out, cwd):
    return softstart("predict", here / "tuned", "--rows", rows, "--out", out, cwd=cwd)


def test_no_column_of_the_user_is_dropped_or_overwritten(folder, tmp_path):
    here, _ = folder
    rows = [
        {"title": "film 1", "body": "it was good"},
        {"title": "film 2", "body": "it was bad", "id": 7, "LINE": "mine"},
        {"title": "=1+1", "body": "it was good", "extra": {"a": [1]}},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = softstart(
        "predict", here / "tuned", "--rows", "rows.jsonl", "--out", "o.csv", cwd=tmp_path
    )
    assert code == 0, err
    with (tmp_path / "o.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert list(written[0]) == ["title", "body", "id", "LINE", "extra", "prediction", "p(bad)", "p(good)"]
    assert [row["LINE"] for row in written] == ["", "mine", ""]
    assert [row["title"] for row in written] == ["film 1", "film 2", "'=1+1"]
    assert json.loads(written[2]["extra"]) == {"a": [1]}
    # What was written is read as what it was.
    assert [row["title"] for row in read_rows(tmp_path / "o.csv")] == ["film 1", "film 2", "=1+1"]
    for column in ("prediction", "p(good)"):
        (tmp_path / "own.jsonl").write_text(json.dumps({**rows[0], column: "mine"}) + "\n")
        code, _, err = softstart(
            "predict", here / "tuned", "--rows", "own.jsonl", "--out", "x.csv", cwd=tmp_path
        )
        assert code == 1
        assert f"own.jsonl: a column is named '{column}', as one that is added here" in err
        assert not (tmp_path / "x.csv").exists()


def test_what_parquet_has_and_json_has_not_is_written_as_text(folder, tmp_path):
    here, _ = folder
    when, exact = datetime(2026, 11, 27, 8, 30), Decimal("0.10")
    row = {"title": "film", "body": "it was good", "when": when, "exact": exact, "raw": b"\xff"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    for name in ("o.jsonl", "o.csv"):
        code, _, err = softstart(
            "predict", here / "tuned", "--rows", "rows.parquet", "--out", name, cwd=tmp_path
        )
        assert code == 0, err
    written = json.loads((tmp_path / "o.jsonl").read_text())
    assert [written[name] for name in ("when", "exact", "raw")] == ["2026-11-27T08:30:00", "0.10", "/w=="]
    assert "2026-11-27T08:30:00,0.10,/w==" in (tmp_path / "o.csv").read_text()
