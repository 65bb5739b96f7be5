"""What is broken: four commands on a random model and toy tasks, and what they come to undisturbed."""

from __future__ import annotations

import csv
import shutil
import sqlite3
import tempfile
from collections.abc import Collection, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from helpers.toy_study import MEASURED, STUDY, contents, make_world
from softstart.storage.tensors import load_tensors

SMALL = {
    **STUDY,
    "samples": [13],
    "meta": {"steps": 6, "lr": 0.3, "checkpoint_every": 1},
    "methods": {
        "pt": {},
        "ft": {},
        "maml": {"inner_lr": 0.1},
        "reptile": {"inner_lr": 0.1, "inner_steps": 2},
    },
    "adaptation": {"steps": 8, "eval_every": 2},
    "finetuning": {"steps": 4, "eval_every": 2},
    "pack_size": 4,
}
UNLIKE = (*MEASURED, "flops_per_second", "git")
"""Columns of tables that differ between two runs of the same work, or once somebody has committed."""


@dataclass(frozen=True)
class Target:
    """A command, the folder it fills and how long it takes; ``what`` names it in the report."""

    what: str
    arguments: Sequence[str]
    seconds: float = 0.0

    def to(self, out: Path) -> list[str]:
        """The command line for an output folder."""
        return [str(out) if argument == "OUT" else argument for argument in self.arguments]


def make_targets(root: Path) -> dict[str, Target]:
    """A world in a folder, and the commands by name."""
    world = make_world(root)
    (world / "study.yaml").write_text(yaml.safe_dump(SMALL))
    for table in ("sources/one", "sources/two", "mine"):
        _table(world / f"{table}.csv", seed=len(table))
    model = ("--backbone", str(world / "model"), "--device", "cpu")
    study = ("run", str(world / "study.yaml"), "--gym", str(world / "gym"), *model, "--out", "OUT")
    learn = ("meta-train", str(world / "sources"), *model, "--length", "4", "--steps", "8", "--out", "OUT")
    tune = ("adapt", "--train", str(world / "mine.csv"), *model, "--length", "4", "--steps", "12")
    return {
        "study": Target("study", (*study, "--threads", "1")),
        "workers": Target("study on two workers", (*study, "--workers", "2", "--stall", "8")),
        "meta-train": Target("meta-training", (*learn, "--set", "checkpoint_every=1")),
        "adapt": Target("adaptation", (*tune, "--splits", "1", "--lr", "0.3", "--out", "OUT")),
        "report": Target("report", ("report", "OUT")),
    }


def _table(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["input", "label"])
        for i in range(24):
            label = i % 2
            rows.writerow(
                [f"w{10 + 20 * label + (i * 7 + seed) % 20} w{(i * seed) % 40 + 10}", f"w{3 + label}"]
            )


def outcome(folder: Path) -> dict[str, Any]:
    """Every number a command left behind, without what is measured and differs each time."""
    if not (folder / "study.db").exists():
        tensors, header = load_tensors(folder / "adapter_model.safetensors")
        return {"header": header} | {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    found: dict[str, Any] = contents(folder)
    for name in ("results", "runs", "curves"):
        with (folder / f"{name}.csv").open() as file:
            found[f"{name}.csv"] = [
                {key: value for key, value in row.items() if key not in UNLIKE}
                for row in csv.DictReader(file)
            ]
    return found


def finished_work(folder: Path, *, damaged: bool = False) -> dict[str, Any]:
    """Rows of the work that is finished, whole with what was measured: computing it again would change it.

    ``damaged``: as many as can be read from either end of a table. No other fault may break a database.
    """
    unreadable = sqlite3.Error if damaged else sqlite3.OperationalError  # no such table yet
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as copy:
        for ending in ("", "-wal"):
            # The one is gone once the last reader has closed the other.
            with suppress(FileNotFoundError):
                shutil.copy(folder / f"study.db{ending}", copy)
        with closing(sqlite3.connect(Path(copy) / "study.db")) as db:
            db.row_factory = sqlite3.Row
            for table, key in (("meta_trainings", "rowid"), ("runs", "rowid"), ("tests", "run")):
                for order in ("", f" ORDER BY {key} DESC"):
                    with suppress(unreadable):
                        rows.extend(map(dict, db.execute(f"SELECT * FROM {table}{order}")))
    found = {row["key"] if "key" in row else f"test of {row['run']} {row['step']}": row for row in rows}
    return {
        key: row
        for key, row in found.items()
        if "key" not in row or (folder / f"prompts/{key}.safetensors").exists()
    }


def whole_work(before: dict[str, Any], after: dict[str, Any], hurt: Collection[str]) -> dict[str, Any]:
    """What of the finished work a damage left as it was, and nothing that hangs on what it did not.

    Args:
        before: the rows before the damage.
        after: the rows after it.
        hurt: names of the files that are not what they were.
    """
    damaged = {key for key, row in before.items() if key in hurt or after.get(key) != row}
    # A fine-tuning that lost its test is computed again, for its weights are not kept; a prompt that is
    # computed again is tested again.
    again = {before[key].get("run") for key in damaged}
    damaged |= {key for key in again if key in before and before[key]["method"] == "ft"}
    return {k: row for k, row in before.items() if k not in damaged and row.get("run") not in damaged}
