"""Worker processes: the same numbers, whoever computes them and whatever dies."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.toy_study import call, command, contents, toy
from softstart.errors import SoftstartError
from softstart.progress import Quiet
from softstart.study import Outcome, join_study, run_study
from softstart.study.run import serving
from softstart.study.run.executors import Failure, Setup
from softstart.study.run.joining import Joiners
from softstart.study.run.processes import TRIES, LocalProcesses
from softstart.study.run.work import Done


def run(study, folder, **how) -> Outcome:
    outcome = run_study(study, folder, **how)
    assert not outcome.failures
    assert not outcome.missing
    return outcome


class Assassin(Quiet):
    """Kills a worker process at the first progress it hears of."""

    def __init__(self) -> None:
        self.victims: list[int] = []

    def advance(self, units: float, note: str = "") -> None:
        children = worker_ids(os.getpid())
        if units and children and not self.victims:
            self.victims.append(children[0])
            os.kill(children[0], signal.SIGKILL)


def worker_ids(parent: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line]


def test_workers_that_die_change_no_number(world, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "REPORT_SECONDS", 0.0)
    assassin = Assassin()
    run(toy(world, name="unit"), tmp_path / "o", workers=2, display=assassin)
    assert assassin.victims
    assert contents(tmp_path / "o") == contents(finished[0])
    assert not worker_ids(os.getpid())


@dataclass
class Deadly:
    """Work that no worker survives."""

    name: str = "deadly work"

    def perform(self, worker, progress):
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Harmless:
    """Work that says who did it."""

    name: str = "harmless work"

    def perform(self, worker, progress):
        return Done(runs=[{"pid": os.getpid()}])


@pytest.mark.slow
def test_work_that_kills_its_workers_fails_alone(world, tmp_path):
    executor = LocalProcesses(Setup({}, None, tmp_path), 2)
    deadly, harmless = Deadly(), Harmless()
    executor.submit(deadly)
    executor.submit(harmless)
    ends = [executor.collect(lambda *_: None) for _ in range(2)]
    executor.close()
    results = {item.name: result for item, result in ends}
    assert results["deadly work"] == Failure(
        "memory", f"its worker process ended {TRIES} times (signal 9, perhaps for want of memory)"
    )
    assert results["harmless work"].runs[0]["pid"] != os.getpid()


class Host(Quiet):
    """Has two processes join before the first work is given out, and kills one that is at work."""

    def __init__(self, world: Path, out: Path) -> None:
        self.command = command(world, out, "--join", where=())
        self.joined: list[subprocess.Popen[str]] = []
        self.working: list[str] = []

    def stage(self, name: str) -> None:
        if name.startswith("meta-training") and not self.joined:
            self.joined = [subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True) for _ in "ab"]
            self.working = [process.stdout.readline() for process in self.joined]

    def advance(self, units: float, note: str = "") -> None:
        if self.joined and self.joined[0].poll() is None:
            self.joined[0].kill()
            self.joined[0].wait()


@pytest.mark.slow
def test_processes_join_and_die_and_the_numbers_stay(world, finished, tmp_path):
    out = tmp_path / "o"
    host = Host(world, out)
    run(toy(world, name="unit"), out, workers=2, display=host)
    assert host.working == [f"working for process {os.getpid()}\n"] * 2
    said, _ = host.joined[1].communicate(timeout=60)
    assert [process.returncode for process in host.joined] == [-signal.SIGKILL, 0]
    ended, pieces = said.strip().split(": ")
    assert ended == "its process has ended; pieces of work done here"
    assert int(pieces) > 0
    assert contents(out) == contents(finished[0])
    assert not (out / "join.json").exists()


def test_joining_what_does_not_run_is_one_clear_line(tmp_path):
    with pytest.raises(SoftstartError, match="no process accepts workers for this study"):
        join_study(tmp_path)
    joiners = Joiners(Setup({}, None, tmp_path), tmp_path)
    door = json.loads((tmp_path / "join.json").read_text())
    assert (tmp_path / "join.json").stat().st_mode & 0o077 == 0
    (tmp_path / "join.json").write_text(json.dumps({**door, "key": "00"}))
    with pytest.raises(SoftstartError, match="has ended"):
        join_study(tmp_path)
    assert joiners.arrived.empty()
    joiners.close()
    # As a process that was killed leaves it.
    (tmp_path / "join.json").touch(0o600)
    (tmp_path / "join.json").write_text(json.dumps(door))
    with pytest.raises(SoftstartError, match=rf"has ended \(pid {os.getpid()}\)\. Run the study without"):
        join_study(tmp_path)
    (tmp_path / "join.json").write_text(json.dumps({**door, "version": "0"}))
    with pytest.raises(SoftstartError, match="run by Softstart 0, this is"):
        join_study(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_study_and_the_next_call_goes_on(world, finished, tmp_path, how):
    out = tmp_path / "study"
    # As in a terminal, the whole group hears of Ctrl-C.
    process = subprocess.Popen(
        command(world, out, where=("--workers", "2")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("prompts/*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    children = worker_ids(process.pid)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)
    else:
        process.kill()
    _, stderr = process.communicate(timeout=30)
    assert children
    while any(alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, children))
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert stderr.strip().splitlines() == [stderr.strip()]
        assert stderr.startswith("error: interrupted; what was finished is kept")
    done = call(*command(world, out))
    assert done.returncode == 0, done.stderr
    assert contents(out) == contents(finished[0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_five_random_moments_nothing_is_lost(world, finished, tmp_path, seed):
    """Five times five seeded moments, in this process and with workers in turn."""
    moments = random.Random(seed)
    out, killed = tmp_path / "study", 0
    for i in range(5):
        where = ("--workers", "2") if (seed + i) % 2 else ("--threads", "1")
        process = subprocess.Popen(
            command(world, out, where=where), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        kept = len(list(out.glob("prompts/*")))
        deadline = time.monotonic() + 300
        while process.poll() is None and len(list(out.glob("prompts/*"))) == kept:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(moments.random())
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        # Workers end a moment after the process that they work for.
        time.sleep(1)
    assert killed
    done = call(*command(world, out))
    assert done.returncode == 0, done.stderr
    assert contents(out) == contents(finished[0])


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    except FileNotFoundError:
        return False
