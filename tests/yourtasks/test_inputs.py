"""Kinds of tables that people have, each read as it is meant, by all commands alike."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from helpers.models import random_t5
from helpers.own_tables import failed, softstart
from softstart.errors import SoftstartError
from softstart.gym import open_gym
from softstart.gym.tables import RawData, labeled_rows, whole_task
from softstart.prompt import SoftPrompt

QUICK = ("--steps", 2, "--splits", 1, "--lr", 0.3, "--length", 2, "--device", "cpu")
GOOD, BAD = ("a real delight", "great acting"), ("a dull film", "the worst story")


def rows_of(n, good="1", bad="0"):
    """(text, label) pairs; no text is there twice."""
    return [((GOOD if i % 2 else BAD)[i // 2 % 2] + f" {i}", good if i % 2 else bad) for i in range(n)]


def write(path, rows, columns=("input", "label")):
    """A table by its ending."""
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([record.get(column, "") for column in columns] for record in records)


def tuned(here, *options):
    """Tune a prompt; what was printed, what was warned, and the prompt."""
    code, out, err = softstart("adapt", *options, *QUICK, "--out", "tuned", "--force", cwd=here)
    assert code == 0, err
    return out, err, SoftPrompt.from_pretrained(here / "tuned")


def test_a_written_line_break_is_one_and_curves_are_kept(tmp_path):
    write(tmp_path / "mine.csv", rows_of(24), ("text", "label"))
    _, _, prompt = tuned(tmp_path, "--train", "mine.csv", "--input", r"{text}\nAnswer:")
    assert prompt.info["input"] == "{text}\nAnswer:"
    curves = pd.read_csv(tmp_path / "tuned" / "curves.csv")
    assert list(curves) == ["start", "split", "lr", "selected", "step", "dev", "loss"]
    assert list(curves["step"]) == [0, 1, 2]
    assert curves["selected"].all()
    assert curves["loss"][1:].gt(0).all()
    drawn = ET.parse(tmp_path / "tuned" / "curves.svg").getroot()
    words = "".join(drawn.itertext())
    assert "dev score, points" in words
    assert "nats per token" in words


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--lr-unit", "embeding"], "--lr-unit: unknown unit 'embeding' of learning rates. Did you mean"),
        (["--metric", "ACCC"], "--metric: unknown metric 'ACCC'. Did you mean ACC?"),
        (["--placement", "sufix"], "--placement: unknown placement 'sufix'. Did you mean suffix?"),
        (["--lr", "0"], "--lr: 0.0 is out of range. Give a number above 0, at most 1e+06."),
        (["--length", "5000"], "Give a smaller --length"),
    ],
)  # fmt: skip
def test_an_error_names_the_option(tmp_path, options, said):
    write(tmp_path / "mine.csv", rows_of(24), ("text", "label"))
    assert said in failed("adapt", "--train", "mine.csv", "--input", "text", *options, cwd=tmp_path)


def test_the_head_of_a_tsv_is_no_row(tmp_path):
    write(tmp_path / "sst.tsv", rows_of(24), ("sentence", "label"))
    line = failed("adapt", "--train", "sst.tsv", *QUICK, cwd=tmp_path)
    assert "no column 'input'. It has sentence, label" in line
    assert "--no-header if its first line is a row" in line
    _, _, prompt = tuned(tmp_path, "--train", "sst.tsv", "--input", "sentence")
    assert prompt.info["labels"] == ["0", "1"]
    bare = "".join(f"{text}\t{label}\n" for text, label in rows_of(24))
    for name, options in (("bare.tsv", ["--no-header"]), ("emo_16_13_train.tsv", [])):
        (tmp_path / name).write_text(bare)
        out, _, prompt = tuned(tmp_path, "--train", name, *options)
        assert "15 rows to learn from, 4 dev, 5 test" in out
        assert prompt.info["labels"] == ["0", "1"]


def test_quotes_of_a_tsv_are_read_as_those_of_a_csv(tmp_path):
    texts = [f'he said "ok" {i}' if i % 2 else f"plain {i}" for i in range(20)]
    table = pd.DataFrame({"input": texts, "label": ["yes" if i % 2 else "no" for i in range(20)]})
    table.to_csv(tmp_path / "pandas.tsv", sep="\t", index=False)
    tuned(tmp_path, "--train", "pandas.tsv")
    given = ("predict", "tuned", "--rows", "pandas.tsv", "--out", "out.jsonl")
    assert softstart(*given, cwd=tmp_path)[0] == 0
    read = [json.loads(line)["input"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert read == texts
    # A file without quoting, whose marks are text.
    (tmp_path / "glue.tsv").write_text("input\tlabel\n" + '"a start\tno\nan "end"\tyes\n' * 8)
    given = ("predict", "tuned", "--rows", "glue.tsv", "--out", "out.jsonl")
    assert softstart(*given, cwd=tmp_path)[0] == 0
    read = [json.loads(line)["input"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert read == ['"a start', 'an "end"'] * 8


def test_of_an_output_and_a_label_the_output_is_the_answer_everywhere(tmp_path):
    rows = [(text, label, "good" if label == "1" else "bad") for text, label in rows_of(30)]
    for name, some in (("train.csv", rows[:20]), ("test.csv", rows[20:])):
        write(tmp_path / name, some, ("input", "label", "output"))
    _, _, prompt = tuned(tmp_path, "--train", "train.csv", "--test", "test.csv")
    assert prompt.info["labels"] == ["bad", "good"]
    (scored,) = prompt.info["scores"]
    out = softstart("evaluate", "tuned", "--rows", "test.csv", cwd=tmp_path)[1]
    assert out.startswith(f"Classification-F1 {scored['score']:.1f} on 10 rows")
    other = softstart("evaluate", "tuned", "--rows", "test.csv", "--label", "label", cwd=tmp_path)
    assert other[0] == 0
    assert "no row to learn from has the labels '0', '1'" not in other[2]  # the output still wins
    alone = failed("evaluate", "tuned", "--rows", "test.csv", "--output", "ouput", cwd=tmp_path)
    assert "Did you mean output" in alone


@pytest.mark.parametrize(
    ("answers", "metric", "named"),
    [
        (["A", "B", "C", "D"], "ACC", "EM takes 'A' for nothing"),
        (["+", "-", "0", "1"], "ACC", "EM takes '+' for nothing"),
        (["C#", "C++", "D", "E"], "ACC", "EM takes 'C#' and 'C++' for one"),
        (["15", "1.5", "5", "-5"], "ACC", "EM takes '15' and '1.5' for one"),
        (["no!", "No!", "no", "yes"], "Equal", "EM takes 'no!' and 'No!' for one"),
    ],
)
def test_the_default_metric_tells_answers_apart(tmp_path, answers, metric, named):
    write(tmp_path / "mine.csv", [(f"text {i}", answers[i % 4]) for i in range(24)], ("input", "output"))
    out, err, _ = tuned(tmp_path, "--train", "mine.csv")
    assert f"mine: {metric}" in out
    assert f"warning: {named}: scored by {metric}" in err
    out, err, _ = tuned(tmp_path, "--train", "mine.csv", "--metric", "EM")
    assert "mine: EM" in out
    assert f"warning: {named}: wrong answers may count as right" in err


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (
            ("1", "0"),
            ("1.0", "0.0"),
            "the test label '0.0' is '0' in the rows to learn from: they differ in number form",
        ),
        (("d\u00e9j\u00e0", "non"), ("de\u0301ja\u0300", "non"), "they differ in Unicode form"),
        (("yes", "no"), ("Yes", "No"), "they differ in case"),
    ],
)
def test_labels_that_are_written_otherwise_are_said_before_tuning(tmp_path, train, test, said):
    write(tmp_path / "train.csv", rows_of(20, *train))
    write(tmp_path / "test.csv", rows_of(10, *test))
    line = failed("adapt", "--train", "train.csv", "--test", "test.csv", *QUICK, cwd=tmp_path)
    assert line.startswith("error: test.csv: the test label ")
    assert said in line
    line = failed("gym", "sample", "train.csv", "--test", "test.csv", "--allow-short", cwd=tmp_path)
    assert said in line
    words = [f"{value}={word}" for side in (train, test) for value, word in zip(side, train, strict=True)]
    given = ("--train", "train.csv", "--test", "test.csv", "--labels", *dict.fromkeys(words))
    assert tuned(tmp_path, *given)[2].info["labels"] == sorted(train)
    # The prompt knows the words: a later table of either kind is read with them.
    assert softstart("evaluate", "tuned", "--rows", "test.csv", cwd=tmp_path)[0] == 0


def test_labels_and_rows_of_one_side_are_said(tmp_path):
    write(tmp_path / "train.csv", rows_of(20))
    write(tmp_path / "test.csv", [*rows_of(4), ("something else", "2")])
    _, err, _ = tuned(tmp_path, "--train", "train.csv", "--test", "test.csv")
    assert "test.csv: no row to learn from has the label '2': it cannot be predicted" in err
    assert "4 of 5 test inputs are among the rows to learn from" in err
    assert "all labels are numbers, which say little to a model: give it words, --labels 0=WORD 1=WORD" in err


def test_labels_that_the_model_cannot_tell_apart_or_misreads(tmp_path):
    backbone = random_t5(torch.float32)
    backbone.model.save_pretrained(tmp_path / "model")
    backbone.tokenizer.save_pretrained(tmp_path / "model")
    write(tmp_path / "mine.csv", rows_of(20, "\u6b63\u9762", "\u8d1f\u9762"))
    given = ("adapt", "--train", "mine.csv", "--backbone", "model", *QUICK)
    assert "have the same tokens: the model cannot tell them apart" in failed(*given, cwd=tmp_path)
    code, _, err = softstart(*given, "--labels", "\u6b63\u9762=w3", "\u8d1f\u9762=nowhere", cwd=tmp_path)
    assert code == 0, err
    assert "warning: the model reads the label 'nowhere' as ''" in err


def test_matthews_correlation_takes_the_labels_of_the_table(tmp_path):
    # The label is in the input, so that a few steps are enough for a score above zero.
    write(tmp_path / "told.csv", [(f"{label} {text}", label) for text, label in rows_of(40, "yes", "no")])
    options = ("--metric", "Matthew-Correlation", *QUICK, "--steps", 40, "--length", 5)
    code, out, err = softstart("adapt", "--train", "told.csv", *options, cwd=tmp_path)
    assert code == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("PT from scratch ") and "…" in line]
    assert float(line.split()[4]) > 0


def test_several_answers_are_read_alike(tmp_path):
    rows = [(f"q{i} what color", ["blue", "azure"] if i % 2 else ["red", "crimson"]) for i in range(24)]
    write(tmp_path / "train.jsonl", rows, ("input", "output"))
    write(tmp_path / "test.jsonl", rows[:6], ("input", "output"))
    _, _, prompt = tuned(tmp_path, "--train", "train.jsonl", "--test", "test.jsonl")
    out = softstart("evaluate", "tuned", "--rows", "test.jsonl", cwd=tmp_path)[1]
    assert out.startswith(f"EM {prompt.info['scores'][0]['score']:.1f} on 6 rows (generated)")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_label_words_map_whole_numbers_of_any_file(tmp_path, suffix):
    table = pd.DataFrame({"input": [f"text {i}" for i in range(80)], "label": [i % 2 for i in range(80)]})
    if suffix == "parquet":
        table.to_parquet(tmp_path / "mine.parquet")
    else:
        table.to_json(tmp_path / "mine.jsonl", orient="records", lines=True)
    words = ("--labels", "0=Similar", "1=Other")
    given = ("gym", "sample", f"mine.{suffix}", *words, "--shots", 4, "--seeds", 13, "--out", "gym")
    assert softstart(*given, cwd=tmp_path)[0] == 0
    assert open_gym(tmp_path / "gym").load("mine").labels == ("Other", "Similar")
    assert tuned(tmp_path, "--train", f"mine.{suffix}", *words)[2].info["labels"] == ["Other", "Similar"]


def test_line_breaks_inside_inputs_stay(tmp_path):
    write(tmp_path / "mine.csv", [(f"a poem\nof {i} lines", "ab"[i % 2]) for i in range(20)])
    raw = RawData(str(tmp_path / "mine.csv"))
    assert all("\nof" in row.input for row in (*whole_task(raw).test, *labeled_rows(raw)))


def test_a_limit_on_inputs_goes_with_the_prompt(tmp_path):
    write(tmp_path / "mine.csv", rows_of(20))
    given = ("--train", "mine.csv", "--max-input-tokens", 3)
    assert tuned(tmp_path, *given)[2].info["max_input_tokens"] == 3
    _, _, err = softstart("evaluate", "tuned", "--rows", "mine.csv", cwd=tmp_path)
    assert "20 inputs are longer than 3 tokens and were cut" in err


def test_the_end_of_a_template_that_is_cut_is_said(tmp_path):
    write(tmp_path / "mine.csv", rows_of(20))
    options = ("--input", "{input} Is it good?", "--max-input-tokens", 4)
    _, err, _ = tuned(tmp_path, "--train", "mine.csv", *options)
    cut = (
        "inputs are longer than 4 tokens and were cut, the end of --input ('Is it good?') too: put it before"
    )
    assert cut in err
    assert cut in softstart("evaluate", "tuned", "--rows", "mine.csv", cwd=tmp_path)[2]


def test_a_backbone_in_a_folder_is_found_from_elsewhere(tmp_path):
    backbone = random_t5(torch.float32)
    backbone.model.save_pretrained(tmp_path / "model")
    backbone.tokenizer.save_pretrained(tmp_path / "model")
    write(tmp_path / "mine.csv", rows_of(20, "w3", "w4"))
    prompt = tuned(tmp_path, "--train", "mine.csv", "--backbone", "model")[2]
    assert prompt.backbone == str(tmp_path / "model")
    (tmp_path / "elsewhere").mkdir()
    given = ("evaluate", "../tuned", "--rows", "../mine.csv")
    assert softstart(*given, cwd=tmp_path / "elsewhere")[0] == 0


def test_an_adapter_is_read_by_its_configuration_also_as_a_file(tmp_path):
    config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "base_model_name_or_path": "x"}
    save_file({"prompt_embeddings": torch.ones(6, 4)}, tmp_path / "adapter_model.safetensors")
    for kind in ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING"):
        (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "peft_type": kind}))
        for path in (tmp_path, tmp_path / "adapter_model.safetensors"):
            if kind == "PROMPT_TUNING":
                prompt = SoftPrompt.load(path)
                assert prompt.tensor.shape == (3, 4)
                assert "held 6 rows for 3 virtual tokens" in prompt.info["note"]
                continue
            message = f"an adapter of the kind {kind}, not a soft prompt"
            if kind == "MULTITASK_PROMPT_TUNING":
                message = "the adapter has 3 rows before the text and 3 before the output"
            with pytest.raises(SoftstartError, match=message):
                SoftPrompt.load(path)


TEXTS = st.lists(
    st.text(st.sampled_from("ab ,;\"'\t\n\u00e9{}1"), min_size=1, max_size=12), min_size=8, max_size=8
)


@st.composite
def tables(draw):
    """Records of a table, the options that read it, and its ending."""
    good, bad = draw(
        st.sampled_from(
            [("1", "0"), ("yes", "no"), ("very good", "bad"), ("\u00e9t\u00e9", "hiver"), (1, 0), ("A", "B")]
        )
    )
    form = draw(st.sampled_from(["label", "output", "both", "template", "words", "answers"]))
    suffix = "jsonl" if form == "answers" else draw(st.sampled_from(["csv", "tsv", "jsonl"]))
    texts = draw(TEXTS)
    records, options = [], []
    for i in range(24):
        text, label = f"{i} {texts[i % 8]} .", good if i % 2 else bad
        records.append(
            {
                "label": {"input": text, "label": label},
                "output": {"input": text, "output": label},
                "both": {"input": text, "label": i % 3, "output": label},
                "template": {"title": f"t{i}", "body": text, "stars": label},
                "words": {"input": text, "label": label},
                "answers": {"input": text, "output": [label, f"or {label}"]},
            }[form]
        )
    if form == "template":
        options = ["--input", "{title}: {body}", "--label", "stars"]
    if form == "words":
        options = ["--labels", f"{good}=fine", f"{bad}=poor"]
    scoring = draw(st.sampled_from(["rank", "generate", "rank_per_token", "rank_calibrated"]))
    return records, [*options, "--scoring", scoring], suffix


@settings(max_examples=8)
@given(tables())
def test_what_adapt_tests_and_what_evaluate_scores_is_the_same(tmp_path_factory, table):
    records, options, suffix = table
    here = tmp_path_factory.mktemp("same")
    for name, some in (("train", records[:16]), ("test", records[16:])):
        write(here / f"{name}.{suffix}", [tuple(row.values()) for row in some], tuple(records[0]))
    _, _, prompt = tuned(here, "--train", f"train.{suffix}", "--test", f"test.{suffix}", *options)
    (noted,) = prompt.info["scores"]
    code, out, err = softstart("evaluate", "tuned", "--rows", f"test.{suffix}", cwd=here)
    assert code == 0, err
    assert out.startswith(f"{noted['metric']} {noted['score']:.1f} on 8 rows")
