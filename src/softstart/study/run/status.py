"""How far a study is, read from its folder, also while it runs."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from softstart.progress import Display, Tally
from softstart.storage.files import atomic
from softstart.study.declare.study_file import load_study
from softstart.study.plan.inputs import Inputs
from softstart.study.plan.plan import make_plan
from softstart.study.results.folder import PROGRESS, STUDY_FILE
from softstart.study.results.frames import results
from softstart.study.results.stores import open_store

EVERY = 2.0
"""Seconds between two writes of the progress file."""


@dataclass(frozen=True)
class Pulse:
    """The last progress that the running process wrote: work done of ``total`` (in rows), the running work,
    where the study stands (``Tally``), and the seconds left; None: not known.
    """

    pid: int
    began: float
    now: float
    done: float
    total: float
    running: str
    note: str
    tally: str = ""
    seconds_left: float | None = None

    @property
    def alive(self) -> bool:
        """Whether that process still runs."""
        try:
            os.kill(self.pid, 0)
        except OSError:
            return False
        return time.time() - self.now < 600


@dataclass(frozen=True)
class Status:
    """Counts of a study: (planned, done) of each kind of work, failures by name, the last progress."""

    counts: dict[str, tuple[int, int]]
    results: int
    tested: int
    failures: dict[str, str]
    pulse: Pulse | None

    @property
    def missing(self) -> int:
        """Runs not computed yet."""
        planned, done = self.counts["runs"]
        return planned - done


def read_status(folder: Path) -> Status:
    """Read the state of a study folder; nothing is written, and a running process is not disturbed.

    Raises:
        SoftstartError: not a study folder.
    """
    study = load_study(folder / STUDY_FILE)
    with open_store(folder, readonly=True) as store:
        plan = make_plan(study, Inputs.from_json(store.inputs()))
        metas, runs = store.metas(), store.runs()
        rows, _, _ = results(plan, store)
        failures = {row["name"]: row["reason"] for row in store.failures().values()}
    failures |= {
        f"{run.method.name} on {run.task}, sample {run.sample}, lr {run.lr:g}": (
            f"diverged after step {runs[run.key]['steps']}"
        )
        for run in plan.runs
        if run.key in runs and runs[run.key]["status"] == "diverged"
    }
    planned = list(plan.runs)
    counts = {
        "meta-trainings": (len(plan.metas), sum(node.key in metas for node in plan.metas)),
        "runs": (len(planned), sum(run.key in runs for run in planned)),
    }
    pulse = None
    with suppress(OSError, ValueError, TypeError):
        pulse = Pulse(**json.loads((folder / PROGRESS).read_text(encoding="utf-8")))
    return Status(counts, len(rows), int(rows["test"].notna().sum()), failures, pulse)


class Recorded:
    """A display that also writes the progress to a file, for other processes to read."""

    def __init__(self, display: Display, folder: Path) -> None:
        self.display, self.path = display, folder / PROGRESS
        self.began = time.time()
        self.last = 0.0
        self.done, self.total, self.name, self.note = 0.0, 1.0, "", ""
        self.latest: Tally | None = None

    def start(self, total: float) -> None:
        """Begin."""
        self.done, self.total, self.began = 0.0, max(total, 1.0), time.time()
        self.display.start(total)

    def stage(self, name: str) -> None:
        """What is being done from now on."""
        self.name = name
        self.display.stage(name)
        self._write()

    def advance(self, units: float, note: str = "") -> None:
        """Count work done."""
        self.done, self.note = self.done + units, note or self.note
        self.display.advance(units, note)
        self._write()

    def tally(self, tally: Tally) -> None:
        """Where the whole stands."""
        self.latest = tally
        self.display.tally(tally)

    def line(self, text: str) -> None:
        """A lasting line."""
        self.display.line(text)

    def close(self) -> None:
        """The study is over."""
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        now = time.time()
        # A folder that was removed meanwhile is not made again.
        if now - self.last < EVERY or not self.path.parent.is_dir():
            return
        self.last = now
        tally, left = (str(self.latest), self.latest.left) if self.latest else ("", None)
        at = (self.began, now, self.done, self.total)
        pulse = Pulse(os.getpid(), *at, self.name, self.note, tally, left)
        with atomic(self.path, durable=False) as temporary:
            temporary.write_text(json.dumps(asdict(pulse)), encoding="utf-8")
