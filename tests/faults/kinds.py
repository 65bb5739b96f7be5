"""What can go wrong, each as a function of one trial; all of them use nothing but what a user could meet."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.running import Ended, Running, Shim, start
from faults.targets import Target, finished_work, whole_work


class Impossible(Exception):
    """This machine does not let us make the fault."""


@dataclass
class Trial:
    """One fault: a target, its output folder, and everything said on the way."""

    target: Target
    out: Path
    logs: Path
    """Where what is said is written, on a disk that no fault touches."""
    rng: random.Random
    real: bool = False
    said: list[Ended] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lenient: bool = False
    """Last bits may differ: packs were cut anew for want of memory."""
    whole: dict[str, Any] | None = None
    """What was finished before the fault and not damaged by it; None: what is finished after it."""

    def begin(self, shim: Shim | None = None) -> Running:
        """Start the command."""
        log = self.logs / f"{len(self.said)}.txt"
        return start(self.target.to(self.out), log, real=self.real, shim=shim)

    def end(self, running: Running) -> Ended:
        """Wait for its end."""
        self.said.append(running.wait())
        return self.said[-1]

    def run(self, shim: Shim | None = None) -> Ended:
        """Run the command to its end."""
        return self.end(self.begin(shim))

    def run_until(self, running: Running, moment: float) -> bool:
        """Let it run for so long; whether it still runs."""
        deadline = time.monotonic() + moment
        while running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        return running.poll() is None

    def interrupted(self, which: int = signal.SIGKILL) -> None:
        """Run it to a random moment, then send it a signal."""
        running = self.begin()
        # The real program takes a while to load.
        moment = self.rng.random() * self.target.seconds * (2 if self.real else 1)
        hit = self.run_until(running, moment)
        running.send(which)
        ended = self.end(running)
        self.notes.append(f"{signal.Signals(which).name} after {moment:.2f} s" if hit else "ended before")
        if hit and which != signal.SIGKILL and ended.code not in (0, 1, 130, -which):
            self.notes.append(f"exit code {ended.code}")


def kill(trial: Trial) -> None:
    """Kill -9."""
    trial.interrupted(signal.SIGKILL)


def terminate(trial: Trial) -> None:
    """SIGTERM, as batch systems send it."""
    trial.interrupted(signal.SIGTERM)


def interrupt(trial: Trial) -> None:
    """Ctrl-C."""
    trial.interrupted(signal.SIGINT)


def kill_worker(trial: Trial) -> None:
    """Kill -9 of a worker process; the study goes on without it."""
    _hit_worker(trial, signal.SIGKILL)


def stop_worker(trial: Trial) -> None:
    """A worker that hangs: it is stopped and never goes on."""
    _hit_worker(trial, signal.SIGSTOP)


def _hit_worker(trial: Trial, which: int) -> None:
    running = trial.begin()
    victims: list[int] = []
    while running.poll() is None and not (victims := _children(running.pid)):
        time.sleep(0.05)
    # From the load of the backbone to the last piece of work.
    trial.run_until(running, trial.rng.random() * trial.target.seconds)
    if victims := _children(running.pid):
        victim = trial.rng.choice(victims)
        try:
            os.kill(victim, which)
            trial.notes.append(f"{signal.Signals(which).name} to a worker")
        except ProcessLookupError:
            trial.notes.append("the worker had ended")
    trial.end(running)


def _children(parent: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line]


@contextmanager
def _disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A small disk of its own in a folder; gives how to mount it anew with other options."""
    folder.mkdir(parents=True, exist_ok=True)

    def mount(*arguments: str) -> None:
        done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True)
        if done.returncode:
            raise Impossible(f"no disk can be mounted here ({done.stderr.strip()})")

    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs")
    try:
        yield lambda options: mount("-o", f"remount,{options}")
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def disk_full(trial: Trial) -> None:
    """The disk fills up somewhere on the way; then there is room again."""
    most = 400 if trial.target.what == "study" else 36
    with _disk(trial.out.parent, f"{trial.rng.randrange(4, most, 4)}k") as remount:
        ended = trial.run()
        trial.notes.append(f"exit code {ended.code}")
        trial.whole = finished_work(trial.out)
        remount("size=64m")
        again(trial)
        _keep(trial)


def read_only(trial: Trial) -> None:
    """The command is killed, the disk is read-only, the command is called, the disk can be written again."""
    with _disk(trial.out.parent, "64m") as remount:
        trial.interrupted(signal.SIGKILL)
        time.sleep(0.2)
        trial.whole = finished_work(trial.out)
        remount("ro")
        ended = trial.run()
        trial.notes.append(f"exit code {ended.code} on a read-only disk")
        remount("rw")
        again(trial)
        _keep(trial)


def _keep(trial: Trial) -> None:
    """Take the results off the disk that is about to go."""
    kept = trial.out.parent.with_name(f"{trial.out.parent.name}-kept")
    subprocess.run(["cp", "-r", str(trial.out), str(kept)], check=True)
    trial.out = kept


def clock(trial: Trial) -> None:
    """The clock of the day jumps back and forth by up to a month, all the time."""
    seed = trial.rng.randrange(2**32)

    def shim() -> None:
        jumps, now = random.Random(seed), time.time
        time.time = lambda: now() + jumps.uniform(-1, 1) * 30 * 86400

    trial.run(shim)


def memory(trial: Trial) -> None:
    """No pack of more than two runs fits, from a random step on."""
    begin = trial.rng.randrange(12)
    trial.lenient = True

    def shim() -> None:
        import torch

        from softstart.training import adaptation

        exact, steps = adaptation.run_gradients, [0]

        def scarce(backbone, prompts, *rest, **options):
            steps[0] += 1
            if len(prompts) > 2 and steps[0] > begin:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
            return exact(backbone, prompts, *rest, **options)

        adaptation.run_gradients = scarce

    trial.run(shim)
    trial.notes.append(f"packs of more than two failed from step {begin}")


def address_space(trial: Trial) -> None:
    """The process may hold only a little more memory than it has at its start."""
    room = trial.rng.randrange(1, 64) << 20
    trial.lenient = True

    def shim() -> None:
        import resource

        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + room, now + room))

    ended = trial.run(shim)
    trial.notes.append(f"{room >> 20} MiB to go: exit code {ended.code}")


def twice(trial: Trial) -> None:
    """A second process wants to work on the study of a first one."""
    first = trial.begin()
    trial.run_until(first, trial.rng.random() * 0.8 * trial.target.seconds)
    second = start(trial.target.to(trial.out), trial.logs / "second.txt", real=trial.real).wait()
    trial.said.append(second)
    trial.end(first)
    trial.notes.append(f"the second one: {second.last[:80] or second.code}")


def flip(trial: Trial) -> None:
    """One bit of a file that the command wrote is another."""
    _damage(trial, _flip)


def truncate(trial: Trial) -> None:
    """A file that the command wrote ends too early."""
    _damage(trial, _truncate)


def swap(trial: Trial) -> None:
    """Two files that the command wrote have changed places."""
    _damage(trial, _swap)


def _damage(trial: Trial, how: Callable[[Path, list[Path], random.Random], None]) -> None:
    if trial.rng.random() < 0.7:
        trial.interrupted(signal.SIGKILL)
    else:
        trial.run()
    cache = Path(os.environ.get("SOFTSTART_CACHE", "off"))
    places = [trial.out, *([cache] if cache.is_dir() else [])]
    files = sorted(
        file
        for place in places
        for file in place.rglob("*")
        if not file.name.endswith((".lock", ".html", "-shm")) and file.is_file() and file.stat().st_size
    )
    kinds = sorted({_kind(file) for file in files})
    if not kinds:
        trial.notes.append("nothing was written yet")
        return
    kind = trial.rng.choice(kinds)
    alike = [file for file in files if _kind(file) == kind]
    before, held = finished_work(trial.out), {file: file.read_bytes() for file in alike}
    how(trial.rng.choice(alike), alike, trial.rng)
    hurt = {file.stem for file, data in held.items() if file.read_bytes() != data}
    trial.whole = whole_work(before, finished_work(trial.out, damaged=True), hurt)
    trial.notes.append(f"{how.__name__.strip('_')} of {kind}")
    # One run of a pack that is computed anew is computed alone: equal to rounding (docs/determinism.md).
    trial.lenient = kind.startswith("prompts/") or ".db" in kind or kind == "/db"


def _kind(file: Path) -> str:
    return f"{file.parent.name if file.suffix == '.safetensors' else ''}/{file.name.partition('.')[2]}"


def _flip(file: Path, alike: list[Path], rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def _truncate(file: Path, alike: list[Path], rng: random.Random) -> None:
    os.truncate(file, rng.randrange(file.stat().st_size))


def _swap(file: Path, alike: list[Path], rng: random.Random) -> None:
    other = rng.choice(alike)
    one, two = file.read_bytes(), other.read_bytes()
    file.write_bytes(two)
    other.write_bytes(one)


def again(trial: Trial) -> None:
    """Call the same command until it succeeds, and do what it says must be done by hand."""
    for _ in range(5):
        ended = trial.run()
        if ended.code == 0:
            return
        named = Path(ended.last.removeprefix("error: ").split(": ")[0])
        if ("elete it" in ended.last or "ove it away" in ended.last) and named.is_file():
            trial.notes.append(f"by hand: {named.suffix} moved away")
            for file in named.parent.glob(f"{named.name}*"):
                file.rename(file.with_name(f"away-{len(trial.said)}-{file.name}"))
    trial.notes.append(f"it never succeeds: {trial.said[-1].last[:200]}")


KINDS: dict[Callable[[Trial], None], tuple[str, ...]] = {
    kill: ("study", "workers", "meta-train", "adapt", "report"),
    terminate: ("study", "workers", "meta-train", "adapt", "report"),
    interrupt: ("study", "workers", "meta-train", "adapt", "report"),
    kill_worker: ("workers",),
    stop_worker: ("workers",),
    disk_full: ("study", "meta-train", "adapt"),
    read_only: ("study", "meta-train"),
    clock: ("study", "meta-train"),
    memory: ("study",),
    address_space: ("study", "meta-train"),
    twice: ("study",),
    flip: ("study", "study", "meta-train", "report"),
    truncate: ("study", "study", "meta-train", "report"),
    swap: ("study",),
}
"""Every kind, with what it is done to."""

assert sys.platform != "win32", "the campaign needs POSIX signals"
