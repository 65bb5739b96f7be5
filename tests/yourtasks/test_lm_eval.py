"""A table as a task of lm-evaluation-harness: what is written, and the scores of the real harness."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch
import yaml

from helpers.families import random_backbone
from helpers.own_tables import failed, softstart
from softstart import Backbone
from softstart.prompt import SoftPrompt
from softstart.training.evaluation import Job
from softstart.yourtasks import Predictor, plain_start

WORDS = [f"w{i}" for i in range(10, 40)]
LABELS = ["w3", "w4 w5", "w6"]


@pytest.fixture
def tuned(tmp_path):
    """A random causal model, a prompt for it and a labeled table, on disk."""
    backbone = random_backbone("llama", torch.float32)
    backbone.model.save_pretrained(tmp_path / "model")
    backbone.tokenizer.save_pretrained(tmp_path / "model")
    backbone = Backbone.from_pretrained(str(tmp_path / "model"), device="cpu")
    info = {"task": "mine", "labels": LABELS, "template": "{input}", "metric": "ACC"}
    SoftPrompt.of(backbone, 3 * plain_start(backbone, 4, seed=1), info).save_pretrained(tmp_path / "tuned")
    rows = [f"{' '.join(WORDS[i : i + 3 + i % 4])},{LABELS[i % 3]}" for i in range(24)]
    (tmp_path / "rows.csv").write_text("input,label\n" + "\n".join(rows) + "\n")
    return tmp_path


def test_rows_carry_the_tokens_that_evaluate_ranks(tuned):
    done = softstart("export", "tuned", "adapter", "--lm-eval", "task", "--rows", "rows.csv", cwd=tuned)
    assert done[0] == 0, done[2]
    assert "24 rows: lm_eval --model hf --model_args" in done[1]
    lines = [json.loads(line) for line in (tuned / "task" / "rows.jsonl").read_text().splitlines()]
    end = Backbone.from_pretrained(str(tuned / "model"), device="cpu").tokenizer.eos_token
    assert lines[1]["choices"] == [f" {label}{end}" for label in LABELS]
    assert [line["label"] for line in lines[:4]] == ["w3", "w4 w5", "w6", "w3"]
    declared = yaml.safe_load((tuned / "task" / "softstart_mine.yaml").read_text())
    assert declared["dataset_kwargs"]["data_files"]["test"] == str(tuned / "task" / "rows.jsonl")


def test_what_the_harness_would_read_otherwise_is_left_out_or_refused(tuned):
    rows = (tuned / "rows.csv").read_text()
    (tuned / "rows.csv").write_text(rows + " ".join(WORDS * 2) + ",w3\n")  # longer than the model reads
    asked = ("export", "tuned", "adapter", "--lm-eval", "task", "--rows", "rows.csv")
    done = softstart(*asked, cwd=tuned)
    assert "1 rows are left out" in done[2]
    assert len((tuned / "task" / "rows.jsonl").read_text().splitlines()) == 24
    (tuned / "rows.csv").write_text(rows + "w10,w9\n")
    assert "row 25: the answer 'w9' is no label of the prompt" in failed(*asked, cwd=tuned)
    assert "--lm-eval and --rows go together" in failed(*asked[:-2], cwd=tuned)
    tiny = Backbone.from_pretrained("softstart/tiny", device="cpu")
    SoftPrompt.of(tiny, plain_start(tiny, 4), {"labels": ["good", "bad"]}).save_pretrained(tuned / "t5")
    (tuned / "rows.csv").write_text("input,label\na film,good\n")
    assert "would replace the output layer" in failed("export", "t5", *asked[2:], cwd=tuned)


@pytest.mark.skipif(
    not importlib.util.find_spec("lm_eval"), reason="needs lm_eval: pip install 'softstart[lm-eval]'"
)
def test_the_harness_gives_our_likelihoods(tuned):
    assert (
        softstart("export", "tuned", "adapter", "--lm-eval", "task", "--rows", "rows.csv", cwd=tuned)[0] == 0
    )
    model = f"pretrained={tuned / 'model'},peft={tuned / 'adapter'},dtype=float32"
    command = [
        sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", model, "--include_path", "task",
        "--tasks", "softstart_mine", "--device", "cpu", "--output_path", "out", "--log_samples",
        "--batch_size", "4",
    ]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tuned / "cache")}
    done = subprocess.run(command, cwd=tuned, capture_output=True, text=True, env={**os.environ, **offline})
    assert done.returncode == 0, done.stderr
    (file,) = (tuned / "out").rglob("samples*.jsonl")
    samples = sorted(map(json.loads, file.read_text().splitlines()), key=lambda sample: sample["doc_id"])
    theirs = torch.tensor([[float(answer[0][0]) for answer in sample["resps"]] for sample in samples])
    backbone = Backbone.from_pretrained(str(tuned / "model"), device="cpu")
    predictor = Predictor(backbone, SoftPrompt.from_pretrained(tuned / "tuned"))
    rows, _ = predictor.encoded([sample["doc"]["context"] for sample in samples])
    (ours,) = predictor.way.values(
        backbone, predictor.stack, [Job(0, predictor.task, rows)], predictor.evaluation
    )
    assert theirs.shape == (24, 3)
    assert torch.allclose(theirs, ours.float(), atol=1e-4)
    accuracy = sum(sample["acc"] for sample in samples) / len(samples)
    assert softstart("evaluate", "tuned", "--rows", "rows.csv", cwd=tuned)[1].startswith(
        f"ACC {100 * accuracy:.1f}"
    )
