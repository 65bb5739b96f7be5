"""Learning curves as every tracker keeps them, read back from its own files."""

from __future__ import annotations

import json
import sqlite3

import pandas as pd
import pytest

from helpers.toy_study import toy
from softstart.errors import SoftstartError
from softstart.study import run_study
from softstart.study.run import trackers

NAME = "dev/toy-c/pt/sample 13/lr 0.5/seed 42"


def test_tensorboard_gets_every_curve(world, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    study = toy(world, methods={"pt": {}, "ft": {}, "reptile": {"inner_lr": 0.1}})
    assert not run_study(study, tmp_path, tracker="tensorboard").failures
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    names = events.Tags()["scalars"]
    curves = pd.read_csv(tmp_path / "curves.csv")
    assert sum(name.startswith("dev/") for name in names) == curves["run"].nunique() == 20
    row = curves[(curves["method"] == "pt") & (curves["step"] == 8)].iloc[0]
    name = f"dev/{row.task}/pt/sample {row['sample']}/lr {row.lr:g}/seed {row.seed}"
    assert events.Scalars(name)[-1].value == pytest.approx(row.dev)
    assert [e.step for e in events.Scalars("meta-training/reptile/seed 42/adapted")] == list(range(6))
    with pytest.raises(SoftstartError, match=r"unknown tracker 'paper'\. Use one of tensorboard, wandb"):
        run_study(study, tmp_path, tracker="paper")


def tracked(world, folder, tracker):
    """A study of one method, and the points (step, dev) of its first curve as they are stored."""
    study = toy(world, name="tracked", methods={"pt": {}}, samples=[13], learning_rates=[0.5])
    assert not run_study(study, folder, tracker=tracker).failures
    curves = pd.read_csv(folder / "curves.csv")
    curve = curves[curves["task"] == "toy-c"]
    assert len(curve) == 3
    return list(zip(curve["step"], curve["dev"], strict=True))


def test_trackio_gets_every_curve(world, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is not installed")
    points = tracked(world, tmp_path / "o", "trackio")
    with sqlite3.connect(tmp_path / "trackio" / "softstart.db") as db:
        rows = [json.loads(row[0]) for row in db.execute("SELECT metrics FROM metrics ORDER BY id")]
    assert [(row[f"{NAME}/step"], row[NAME]) for row in rows if NAME in row] == points


def test_mlflow_gets_every_curve(world, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.chdir(tmp_path)
    where = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", where)
    points = tracked(world, tmp_path / "o", "mlflow")
    client = mlflow.MlflowClient(tracking_uri=where)
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.run_name == "tracked"
    assert run.info.status == "FINISHED"
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, NAME)] == points


def test_wandb_gets_every_curve(world, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    points = tracked(world, tmp_path / "o", "wandb")
    (file,) = (tmp_path / "o" / "wandb").glob("offline-run-*/*.wandb")
    # LevelDB's log format: a header of the file, then records of checksum, length, kind and payload.
    data, rows = file.read_bytes()[7:], []
    while data:
        length = int.from_bytes(data[4:6], "little")
        record = Record.FromString(data[7 : 7 + length])
        items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
        rows += [items] if NAME in items else []
        data = data[7 + length :]
    assert [(row[f"{NAME}/step"], row[NAME]) for row in rows] == points


class Moody(trackers.TensorBoard):
    """Fails after the first point."""

    points = 0

    def scalar(self, name, value, step):
        Moody.points += 1
        if Moody.points > 1:
            raise ConnectionError("the server is gone")

    def close(self):
        raise ConnectionError("the server is gone")


def test_a_tracker_that_fails_does_not_end_the_study(world, tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboard")
    monkeypatch.setattr(trackers.TRACKERS, "_entries", {"tensorboard": Moody})
    tracked(world, tmp_path / "o", "tensorboard")
    assert Moody.points == 2

    def unset(study, folder):
        raise ValueError("no key\nsome more")

    monkeypatch.setattr(trackers.TRACKERS, "_entries", {"tensorboard": unset})
    with pytest.raises(SoftstartError, match=r"tensorboard does not start \(no key\)\. Set it up"):
        tracked(world, tmp_path / "o", "tensorboard")
