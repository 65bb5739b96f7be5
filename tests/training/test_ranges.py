"""What a study or a command declares is in its range, and says one thing once."""

from __future__ import annotations

import pytest
import yaml

from helpers.families import random_backbone
from helpers.models import toy_task
from helpers.own_tables import failed, softstart
from helpers.toy_study import STUDY
from softstart.errors import SoftstartError
from softstart.gym.tables import RawData, whole_task
from softstart.gym.task import Example
from softstart.storage.safe_yaml import read_yaml
from softstart.study import parse_study
from softstart.training.encoding import TextFormat, check_labels, encode_task
from softstart.training.ranges import AMOUNTS, COUNTS, RATES, SEEDS

WRONG = [float("nan"), float("inf"), -1, 2**63, 10**40]
STUDY_KEYS = [
    "samples", "meta_seeds", "baseline_seeds", "source_samples", "learning_rates",
    "finetuning_learning_rates", "pack_size", "pack_refill", "shots", "test_rows", "source_tasks",
    "prompt.length", "prompt.top", "text.max_input_tokens", "text.max_output_tokens", "meta.steps",
    "meta.meta_batch", "meta.lr", "meta.seed", "meta.epochs", "meta.checkpoint_every", "meta.max_tokens",
    "methods.maml.inner_lr", "methods.maml.inner_steps", "methods.maml.support_size",
    "methods.maml.query_size", "adaptation.steps", "adaptation.batch_size", "adaptation.eval_every",
    "adaptation.patience", "adaptation.max_tokens", "finetuning.steps", "finetuning.batch_size",
    "evaluation.max_tokens", "evaluation.decoding.max_new_tokens",
]  # fmt: skip


@pytest.mark.parametrize("key", STUDY_KEYS)
def test_a_number_outside_its_range_is_one_line_with_its_key(key):
    lists = key in ("samples", "meta_seeds", "baseline_seeds", "source_samples") or "learning_rates" in key
    wrong = WRONG if key.rpartition(".")[2] in SEEDS else [*WRONG, 0]
    for value in wrong:
        data = yaml.safe_load(yaml.safe_dump(STUDY))
        *parents, last = key.split(".")
        node = data
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = [value] if lists else value
        with pytest.raises(SoftstartError, match=parents[0] if parents == ["methods"] else last) as caught:
            parse_study(yaml.safe_dump(data), "study.yaml")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


def test_every_name_with_a_range_is_a_field_of_something():
    """A misspelled name would check nothing."""
    from dataclasses import fields

    from softstart.algorithms import MAML
    from softstart.study.declare.spec import Study
    from softstart.training.budgets import MetaBudget
    from softstart.training.configs import AdaptConfig, FineTuneConfig, PromptSpec
    from softstart.training.evaluation import Decoding, Evaluation
    from softstart.training.methods import BASELINES
    from softstart.training.spot import SPoT

    configs = (MAML, MetaBudget, AdaptConfig, FineTuneConfig, TextFormat, Evaluation, Decoding, SPoT)
    known = {field.name for config in configs for field in fields(config)}
    known |= {field.name for baseline in BASELINES.values() for field in fields(baseline)}
    known |= {*Study.model_fields, *PromptSpec.model_fields, "splits"}
    assert known >= COUNTS | RATES | AMOUNTS | SEEDS


@pytest.mark.parametrize(
    "options",
    [("--lr", "nan"), ("--lr", "inf"), ("--lr", "0"), ("--lr", "-1"), ("--steps", 10**12), ("--seed", "-1"),
     ("--seed", 2**63), ("--length", 10**12), ("--splits", 10**12), ("--max-input-tokens", 10**12)],
)  # fmt: skip
def test_the_commands_have_the_same_ranges(tmp_path, options):
    (tmp_path / "rows.csv").write_text("input,label\n" + "a good film,yes\na bad film,no\n" * 9)
    assert "is out of range. Give" in failed("adapt", "--train", "rows.csv", *options, cwd=tmp_path)
    if options[0] != "--splits":
        code, _, error = softstart("meta-train", tmp_path, "--out", "start", *options, cwd=tmp_path)
        assert code in (1, 2)
        assert "range" in error or "greater than or equal" in error


@pytest.mark.parametrize(
    "text", ["a: 1\nb: 2\na: 3", "x: {k: 1, k: 2}", "- {a: 1}\n- {a: 1, 'a': 2}", "methods: {pt: {}, pt: {}}"]
)
def test_a_key_that_is_there_twice_is_refused(text):
    with pytest.raises(SoftstartError, match=r"the key '\w+' is there twice, in lines \d and \d"):
        read_yaml(text, "study.yaml")
    assert read_yaml("x: {a: 1}\ny: {a: 2}\nz: [a, a]") == {"x": {"a": 1}, "y": {"a": 2}, "z": ["a", "a"]}


@pytest.mark.parametrize(
    ("key", "near"),
    [("learning_rate", "learning_rates"), ("prompt.lenght", "length"), ("adaptation.eval_evry", "eval_every"),
     ("evaluation.decoding.num_beam", "num_beams"), ("methods.maml.inner_step", "inner_steps")],
)  # fmt: skip
def test_an_unknown_key_suggests_the_nearest(key, near):
    with pytest.raises(SoftstartError, match=f"Did you mean .*{near}"):
        parse_study(yaml.safe_dump(STUDY), "study.yaml", [f"{key}=1"])


@pytest.mark.parametrize("template", ["", "hello", "{task}", "{{input}}", "chat:hello"])
def test_a_template_without_the_input_is_refused(template):
    with pytest.raises(SoftstartError, match="leaves out the input"):
        TextFormat(template)


def test_a_text_without_braces_is_a_column_or_refused(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\n" + "a good film,yes\na bad film,no\n" * 9)
    line = failed("adapt", "--train", "rows.csv", "--input", "texts", cwd=tmp_path)
    assert "--input: no column 'texts', and no column in braces. Did you mean text?" in line
    path = str(tmp_path / "rows.csv")
    with pytest.raises(SoftstartError, match="--output: no column 'answer'"):
        whole_task(RawData(path, input="{text}", output="answer"))
    named = whole_task(RawData(path, input="text", output="label"))
    assert {row.input for row in named.test} <= {"a good film", "a bad film"}
    assert named.labels == ("no", "yes")


def relabeled(labels):
    """A task with these label words in place of its own."""
    from dataclasses import replace

    task = toy_task("toy")
    words = dict(zip(task.labels, labels, strict=False))

    def of(examples):
        return tuple(Example(e.input, (words.get(e.outputs[0], e.outputs[0]),)) for e in examples)

    samples = {k: replace(s, train=of(s.train), dev=of(s.dev)) for k, s in task.samples.items()}
    return replace(task, samples=samples, test=of(task.test))


def test_labels_that_a_model_cannot_tell_apart_are_refused_naming_both():
    backbone = random_backbone("bart")
    with pytest.raises(SoftstartError, match="task 'toy': the labels 'qqq' and 'zzz' have the same tokens"):
        encode_task(relabeled(["qqq", "zzz"]), backbone, TextFormat("{input}"))
    encode_task(toy_task("toy"), backbone, TextFormat("{input}"))
    with pytest.raises(SoftstartError, match="the label 'a' is there twice"):
        check_labels(["a", "a"], [[1], [1]])
    with pytest.raises(SoftstartError, match="the label 'yes' is there twice"):
        RawData("rows.csv", labels=["yes", "no", "yes"])


def test_labels_that_are_equal_where_they_are_cut_are_refused():
    task = toy_task("toy")
    long = " ".join([task.labels[0]] * 9)
    with pytest.raises(SoftstartError, match="have the same tokens"):
        encode_task(
            relabeled([f"{long} {task.labels[0]}", f"{long} {task.labels[1]}"]), random_backbone("bart"),
            TextFormat("{input}", max_output_tokens=5),
        )  # fmt: skip


def test_a_label_that_is_nan_is_empty(tmp_path):
    rows = '{"input": "good", "label": "yes"}\n{"input": "bad", "label": NaN}\n'
    (tmp_path / "rows.jsonl").write_text(rows * 4)
    with pytest.raises(SoftstartError, match=r"line 2: field 'label' is empty \(NaN\)"):
        whole_task(RawData(str(tmp_path / "rows.jsonl")))
