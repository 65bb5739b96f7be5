"""Readers of files that others wrote, as functions of bytes: a result or a SoftstartError, nothing else."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save

from helpers.rows import STUDY, run_row
from softstart import SoftPrompt
from softstart.analysis import arg_table, with_tests
from softstart.cli.analysis import read_results
from softstart.errors import SoftstartError
from softstart.gym.catalog.reading import parse_catalog
from softstart.gym.folder import CrossFitFolder
from softstart.gym.selection import read_setting
from softstart.gym.tables import RawData, whole_task
from softstart.study.declare.study_file import parse_study
from softstart.study.plan.inputs import Inputs
from softstart.study.results.stores import open_store


def task(data: bytes, folder: Path) -> None:
    """A file of a task, and its task.json."""
    root = folder / "gym" / "t"
    root.mkdir(parents=True, exist_ok=True)
    whole = b"one\ta\ntwo\tb\n"
    for split in ("4_13_train", "4_13_dev", "test"):
        (root / f"t_{split}.tsv").write_bytes(whole)
    for name in ("t_4_13_dev.tsv", "task.json"):
        (root / name).write_bytes(data)
        with suppress(SoftstartError):
            CrossFitFolder(folder / "gym").load("t")
        with suppress(SoftstartError):
            CrossFitFolder(folder / "gym", skip_malformed=True).load("t")


def table(data: bytes, folder: Path) -> None:
    """A table of one's own rows."""
    for ending in (".csv", ".tsv", ".jsonl", ".parquet"):
        file = folder / f"mine{ending}"
        file.write_bytes(data)
        with suppress(SoftstartError):
            whole_task(RawData(str(file)))


def study(data: bytes, folder: Path) -> None:
    """A study file, or a value of ``--set``."""
    text = data.decode(errors="replace")
    with suppress(SoftstartError):
        parse_study(text, "study.yaml")
    with suppress(SoftstartError):
        parse_study(yaml.safe_dump(STUDY), "study.yaml", [text])


def catalog(data: bytes, folder: Path) -> None:
    """A catalog of tasks of one's own, and a setting."""
    with suppress(SoftstartError):
        parse_catalog(data.decode(errors="replace"), "own.yaml")
    file = folder / "setting.yaml"
    file.write_bytes(data)
    with suppress(SoftstartError):
        read_setting(file)


def prompt(data: bytes, folder: Path) -> None:
    """A prompt in every format, and its model card."""
    for ending in (".safetensors", ".pt", ".npy"):
        file = folder / f"prompt{ending}"
        file.write_bytes(data)
        with suppress(SoftstartError):
            _used(SoftPrompt.load(file))


def adapter(data: bytes, folder: Path) -> None:
    """The configuration of an adapter, and what a prompt says of itself."""
    tensors = {"prompt_embeddings": torch.ones(2, 4)}
    plain, own = folder / "plain", folder / "own.safetensors"
    plain.mkdir(exist_ok=True)
    (plain / "adapter_model.safetensors").write_bytes(save(tensors))
    (plain / "adapter_config.json").write_bytes(data)
    own.write_bytes(save(tensors, {"softstart": data.decode(errors="replace")}))
    for path in (plain, own):
        with suppress(SoftstartError):
            _used(SoftPrompt.load(path))


def _used(loaded: SoftPrompt) -> None:
    assert loaded.tensor.numel() < 10_000
    loaded.model_card()


def database(data: bytes, folder: Path) -> None:
    """A results database."""
    for file in folder.glob("study.db*"):
        file.unlink()
    (folder / "prompts").mkdir(exist_ok=True)
    (folder / "study.db").write_bytes(data)
    for readonly in (True, False):
        with suppress(SoftstartError), open_store(folder, readonly=readonly) as store:
            for read in (store.metas, store.runs, store.tests, store.failures):
                with suppress(SoftstartError):
                    read()
            with suppress(SoftstartError):
                Inputs.from_json(store.inputs())


def results(data: bytes, folder: Path) -> None:
    """A table of results of any origin."""
    file = folder / "results.csv"
    file.write_bytes(data)
    with suppress(SoftstartError):
        rows = read_results([file])
        with_tests(rows, arg_table(rows, "pt"), "pt")


def _stored(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def seeds(folder: Path) -> dict[Callable[[bytes, Path], None], list[bytes]]:
    """Every reader with whole files to begin from."""
    tensors = {"prompt_embeddings": torch.ones(2, 4)}
    facts = {"backbone": "b", "placement": "prefix", "info": {"labels": ["a"], "template": "{input}"}}
    with open_store(folder) as store:
        store.set_inputs(json.dumps({"backbone_digest": "b", "width": 4, "parts": []}))
        store.add(runs=[run_row("a"), run_row("b")])
        store.add_failure("c", "name", "died", "reason")
    with sqlite3.connect(folder / "study.db") as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = (folder / "study.db").read_bytes()
    shutil.rmtree(folder / "prompts")
    header = "setting,method,task,sample,seed,lr,dev,test\n"
    rows = "".join(f"s,{m},t{i},13,1,0.3,0.5,0.{5 + i}\n" for m in ("pt", "maml") for i in range(3))
    return {
        task: [b"one\ta\ntwo\tb\n", b'{"kind": "classification", "metric": "ACC", "category": "c"}'],
        table: [b"input,label\none,a\ntwo,b\nthree,a\n", b'{"input": "one", "label": "a"}\n' * 4],
        study: [yaml.safe_dump(STUDY).encode(), b"methods.maml.inner_lr=3"],
        catalog: [
            b"tasks:\n  t: {dataset: {id: a}, splits: {carve: train}, kind: text2text, metric: EM,\n"
            b"    category: c, input: '{x}', output: '{y}'}\n",
            b"name: n\nsource: [emo, {category: classification}]\ntarget: [ag_news]\n",
        ],
        prompt: [
            save(tensors, {"softstart": json.dumps(facts)}),
            _stored(lambda file: torch.save(tensors, file)),
            _stored(lambda file: torch.save(tensors, file, _use_new_zipfile_serialization=False)),
            _stored(lambda file: np.save(file, np.ones((2, 4), np.float32))),
        ],
        adapter: [json.dumps(facts).encode(), b'{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2}'],
        database: [whole],
        results: [(header + rows).encode()],
    }


def quietly(target: Callable[[bytes, Path], None], data: bytes, folder: Path) -> None:
    """A reader without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target(data, folder)
