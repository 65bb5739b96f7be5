"""What a study and a process that joined it say to each other: all of it, to the last bit, and no code."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest

from helpers import rows
from softstart.errors import SoftstartError
from softstart.study import join_study
from softstart.study.run.executors import Failure, Setup
from softstart.study.run.joining import Joiners
from softstart.study.run.messages import item_of, outcome_of, plain_item, plain_outcome, to_worker
from softstart.study.run.serving import Broken
from softstart.study.run.work import FINAL, Adaptation, Done, MetaTraining, UnpackedRun
from softstart.study.run.work import Testing as ScoredTests
from softstart.training.evaluation import Assessment

PROMPT = np.array([[1 / 3, -0.0], [float("nan"), 1e-45]], dtype=np.float32)


def sent(data):
    """As it arrives at the other side."""
    return json.loads(json.dumps(data))


def same(a, b):
    assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def test_every_piece_of_work_arrives():
    plan = rows.plan()
    tuned = next(run for run in plan.runs if run.method.kind == "ft")
    learned = [run for run in plan.runs if run.start is not None][:2]
    for item in (MetaTraining(plan.metas[0]), UnpackedRun(tuned)):
        assert item_of(sent(plain_item(item)), plan) == item
    item = Adaptation("pack-1", learned, {"start": {FINAL: PROMPT}}, places=2)
    arrived = item_of(sent(plain_item(item)), plan)
    assert (arrived.key, arrived.runs, list(arrived.starts)) == ("pack-1", learned, ["start"])
    assert arrived.places == 2
    same(arrived.starts["start"][FINAL], PROMPT)
    item = ScoredTests("main", "t1", [("run", 3)], PROMPT[None])
    arrived = item_of(sent(plain_item(item)), plan)
    assert (arrived.variant, arrived.task, arrived.of) == ("main", "t1", [("run", 3)])
    same(arrived.prompts, PROMPT[None])


def test_every_outcome_arrives():
    for message in (Failure("diverged", "why"), Broken("where"), (0.25, "note")):
        assert outcome_of(sent(plain_outcome(message))) == message
    done = Done([rows.run_row("m")], [rows.run_row("r", dev=1 / 3)], {("r", 2): Assessment(0.1, {"x": 0.5})},
                {"r": {FINAL: PROMPT}})  # fmt: skip
    arrived = outcome_of(sent(plain_outcome(done)))
    assert (arrived.metas, arrived.runs, arrived.tests) == (done.metas, done.runs, done.tests)
    same(arrived.prompts["r"][FINAL], PROMPT)


class Harm:
    """What a pickle can do when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Sends:
    """A connection that has one message."""

    def __init__(self, data):
        self.data = data

    def recv_bytes(self):
        return self.data


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b'{"share": "x"}', b'{"tests": [[1]]}', b"[" * 100_000,
        b'{"metas": [], "runs": [], "tests": [], "prompts": {"r": {"f": {"type": "object"}}}}',
    ],
)  # fmt: skip
def test_what_is_no_message_ends_the_connection(data):
    with pytest.raises(ConnectionError):
        to_worker(Sends(data)).recv()


def test_a_pickle_is_not_opened(tmp_path):
    with pytest.raises(ConnectionError):
        to_worker(Sends(pickle.dumps(Harm(tmp_path / "harm")))).recv()
    assert not (tmp_path / "harm").exists()


def test_a_key_of_others_is_not_used(tmp_path):
    joiners = Joiners(Setup({}, None, tmp_path), tmp_path)
    try:
        (tmp_path / "join.json").chmod(0o640)
        with pytest.raises(SoftstartError, match=r"join\.json: other users can read or change it"):
            join_study(tmp_path)
        (tmp_path / "join.json").chmod(0o600)
        if os.getuid() == 0:
            os.chown(tmp_path / "join.json", 12345, -1)
            with pytest.raises(SoftstartError, match="belongs to another user"):
                join_study(tmp_path)
        assert joiners.arrived.empty()
    finally:
        joiners.close()
