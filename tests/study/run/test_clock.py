"""Seconds of work that was interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.toy_study import STUDY, toy
from softstart.progress import Quiet
from softstart.study import run_study
from softstart.study.results.stores import open_store
from softstart.study.run import clock


class Interrupted(Quiet):
    """Ends the study when a piece of work has a checkpoint and a note of its seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def advance(self, units: float, note: str = "") -> None:
        if list(self.folder.glob("checkpoints/*.seconds")):
            raise KeyboardInterrupt


def test_the_seconds_before_an_interruption_count(world, tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "EVERY", 0.0)
    study = toy(world, methods={"pt": {}, "reptile": STUDY["methods"]["reptile"]})
    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path, display=Interrupted(tmp_path))
    (note,) = (tmp_path / "checkpoints").glob("*.seconds")
    assert 0 <= float(note.read_text()) < 100
    note.write_text("1000.0")
    assert not run_study(study, tmp_path).failures
    with open_store(tmp_path, readonly=True) as store:
        (meta,), runs = store.metas().values(), store.runs().values()
    seconds = [meta["seconds"], *(row["seconds"] for row in runs)]
    # Those of a pack are shared among its runs.
    assert 1000 < sum(seconds) < 1100
    assert not list((tmp_path / "checkpoints").iterdir())
