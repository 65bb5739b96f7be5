"""A study of all methods on a random model and toy tasks, and what its folders are compared by."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import torch
import yaml

from helpers.models import random_t5, toy_task
from softstart.storage.tensors import load_tensors
from softstart.study import parse_study

SOFTSTART = str(Path(sys.executable).parent / "softstart")
TASKS = ("toy-a", "toy-b", "toy-c", "toy-d")
STUDY = {
    "name": "unit",
    "setting": {"name": "unit", "source": ["toy-a", "toy-b"], "target": ["toy-c", "toy-d"]},
    "samples": [13, 21],
    "text": {"template": "{input}"},
    "prompt": {"length": 4},
    "meta": {"steps": 6, "lr": 0.3, "checkpoint_every": 2},
    "methods": {
        "pt": {},
        "ft": {},
        "multitask": {},
        "maml": {"inner_lr": 0.1},
        "fomaml": {"inner_lr": 0.1},
        "reptile": {"inner_lr": 0.1, "inner_steps": 2},
    },
    "learning_rates": [0.5, 0.2],
    "adaptation": {"steps": 8, "eval_every": 4},
    "finetuning": {"steps": 8, "eval_every": 4},
    "finetuning_learning_rates": [0.01],
    "evaluation": {"scoring": "rank"},
}
MEASURED = ("seconds", "memory", "environment", "digest")
"""What differs between two runs of the same work; a row's digest covers all of it."""


def make_world(root):
    """A folder with a random backbone, a gym in CrossFit's format and a study file."""
    backbone = random_t5(torch.float32)
    backbone.model.save_pretrained(root / "model")
    backbone.tokenizer.save_pretrained(root / "model")
    for i, name in enumerate(TASKS):
        task, folder = toy_task(name, seed=i), root / "gym" / name
        folder.mkdir(parents=True)
        for seed, sample in task.samples.items():
            for split in ("train", "dev"):
                write(folder / f"{name}_4_{seed}_{split}.tsv", getattr(sample, split))
        write(folder / f"{name}_test.tsv", task.test)
        (folder / "task.json").write_text('{"kind": "classification", "metric": "ACC", "category": "toy"}')
    (root / "study.yaml").write_text(yaml.safe_dump(STUDY))
    return root


def toy(world, **changes):
    """The study of a world as an object."""
    places = {"gym": str(world / "gym"), "backbone": str(world / "model")}
    return parse_study(yaml.safe_dump({**STUDY, **places, **changes}), "study.yaml")


def write(path, rows):
    path.write_text("".join(f"{e.input}\t{e.outputs[0]}\n" for e in rows))


def command(world, out, *more, where=("--threads", "1")):
    return [
        SOFTSTART, "run", str(world / "study.yaml"), "--gym", str(world / "gym"),
        "--backbone", str(world / "model"), "--out", str(out), *where, *more,
    ]  # fmt: skip


def call(*arguments):
    environment = {**os.environ, "COLUMNS": "120"}
    return subprocess.run(list(map(str, arguments)), capture_output=True, text=True, env=environment)


def contents(folder):
    """Every row of a study's database but what was measured, and every bit of every prompt."""
    with sqlite3.connect(folder / "study.db") as db:
        db.row_factory = sqlite3.Row
        tables = {
            name: sorted(
                json.dumps({k: row[k] for k in row.keys() if k not in MEASURED})  # noqa: SIM118
                for row in db.execute(f"SELECT * FROM {name}")
            )
            for name in ("inputs", "meta_trainings", "runs", "tests", "failures")
        }
    return tables | {file.name: _plain(file) for file in sorted((folder / "prompts").glob("*.safetensors"))}


def _plain(file):
    tensors, header = load_tensors(file)
    return header, {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
