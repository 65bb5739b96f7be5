"""A worker that hangs is ended after ``stall`` seconds, and its work begun again by another one."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from softstart.study.run import serving
from softstart.study.run.executors import Setup
from softstart.study.run.processes import LocalProcesses
from softstart.study.run.work import Done


@dataclass
class Hangs:
    """Work that stands still for ever, but the first time only."""

    file: Path
    name: str = "work that hangs"

    def perform(self, worker, progress):
        time.sleep(2 * serving.REPORT_SECONDS)
        progress(0.5, "")
        if not self.file.exists():
            self.file.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        return Done(runs=[{"pid": os.getpid()}])


@pytest.mark.slow
def test_work_of_a_hanging_process_is_begun_again(tmp_path):
    executor = LocalProcesses(Setup({}, None, tmp_path), 1, stall=6)
    item, heard = Hangs(tmp_path / "hung"), []
    executor.submit(item)
    try:
        ended, outcome = executor.collect(lambda _, share, note: heard.append(share))
    finally:
        executor.close()
    assert ended is item
    assert isinstance(outcome, Done)
    assert outcome.runs[0]["pid"] != int((tmp_path / "hung").read_text())
    assert heard == [0.5, 0.5]
