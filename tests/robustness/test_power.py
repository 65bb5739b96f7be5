"""Power cuts, as a log of what was written, synced and renamed says that they may be."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from faults.power import MARK, Change, Reader, after_cut, possible, read_log, traced
from faults.promising import ALL
from faults.targets import finished_work, make_targets
from helpers.paths import ROOT
from softstart.errors import SoftstartError
from softstart.storage.tensors import load_tensors

ROOT_OF_LOG = "/disk"


def hexed(text):
    return '"' + "".join(f"\\x{byte:02x}" for byte in text.encode()) + '"'


def opened(name):
    return "3<" + hexed(f"{ROOT_OF_LOG}/{name}").strip('"') + ">"


def test_a_log_is_read_in_order_with_the_place_of_every_write():
    log = [
        f"7 mkdir({hexed('/disk/out')}, 0777) = 0",
        f"7 openat(AT_FDCWD, {hexed('/disk/out/a')}, O_WRONLY|O_CREAT|O_TRUNC, 0666) = 3",
        f"7 write({opened('out/a')}, {hexed('one')}, 3) = 3",
        f"8 openat(AT_FDCWD, {hexed('/elsewhere')}, O_RDONLY) = 3",
        f"7 write({opened('out/a')}, {hexed('two')}, 3 <unfinished ...>",
        "8 close(3) = 0",
        "7 <... write resumed>) = 3",
        f"7 fsync({opened('out/a')}) = 0",
        f"7 rename({hexed('/disk/out/a')}, {hexed('/disk/out/b')}) = 0",
        f"7 fsync({opened('out')}) = 0",
        f"7 write(1000, {hexed(MARK + 'b')}, 14) = -1 EBADF (Bad file descriptor)",
        f"7 pwrite64({opened('out/b')}, {hexed('X')}, 1, 1) = 1",
        f"7 unlink({hexed('/disk/out/missing')}) = -1 ENOENT (No such file or directory)",
    ]
    assert list(Reader(ROOT_OF_LOG).changes(iter(log))) == [
        Change("folder", name="out"),
        Change("make", 1, "out/a"),
        Change("write", 1, at=0, data=b"one"),
        Change("write", 1, at=3, data=b"two"),
        Change("sync", 1),
        Change("rename", name="out/a", to="out/b"),
        Change("sync", name="out"),
        Change("mark", name="b"),
        Change("write", 1, at=1, data=b"X"),
    ]


def left(changes, tmp_path, seeds=60):
    """Everything that a cut after these changes may leave of a file a or b."""
    found = set()
    for seed in range(seeds):
        place = tmp_path / str(seed)
        place.mkdir()
        after_cut(changes, random.Random(seed), place)
        found |= {(f.name, f.read_bytes()) for f in place.glob("[ab]")} or {("", b"")}
        shutil.rmtree(place)
    return found


def test_a_cut_leaves_what_was_synced_and_any_part_of_the_rest(tmp_path):
    written = [Change("make", 1, "a"), Change("write", 1, at=0, data=b"new")]
    assert left(written, tmp_path) == {("", b""), ("a", b""), ("a", b"new"), ("a", b"\0\0\0")}
    assert left([*written, Change("sync", 1)], tmp_path) == {("", b""), ("a", b"new")}
    whole = [*written, Change("sync", 1), Change("sync", name=".")]
    assert left(whole, tmp_path) == {("a", b"new")}
    renamed = [*whole, Change("rename", name="a", to="b")]
    assert left(renamed, tmp_path) == {("a", b"new"), ("b", b"new")}
    assert left([*renamed, Change("sync", name=".")], tmp_path) == {("b", b"new")}
    over = [Change("write", 1, at=0, data=b"old"), Change("sync", 1), Change("write", 1, at=1, data=b"-+")]
    assert left([whole[0], whole[3], *over], tmp_path) == {("a", b"old"), ("a", b"o-+")}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A study under the eyes of strace: its disk, the changes, and its finished work."""
    root = tmp_path_factory.mktemp("power")
    disk = root / "disk"
    disk.mkdir()
    study = make_targets(root / "world")["study"]
    program = [sys.executable, "-m", "tests.faults.promising", *study.to(disk / "out")]
    done = subprocess.run(traced(program, root / "log"), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return disk, read_log(root / "log", disk), finished_work(disk / "out")


def lost(recorded, changes, cut, seed, place):
    """What was promised before a cut and is not there after it."""
    disk, _, whole = recorded
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    promises = after_cut(changes[:cut], random.Random(seed), place)
    promised = {name for promise in promises for name in promise.split("\n")}
    there = finished_work(place / "out", damaged=True) if (place / "out").is_dir() else {}
    missing = [name for name in promised & whole.keys() if there.get(name) != whole[name]]
    for file in (disk / "out" / "prompts").iterdir():
        if file.stem in promised:
            try:
                load_tensors(place / file.relative_to(disk))
            except SoftstartError:
                missing.append(file.name)
    if ALL in promised:
        for name in ("results.csv", "runs.csv", "curves.csv", "report.html", "study.yaml"):
            file = place / "out" / name
            if not file.exists() or file.read_bytes() != (disk / "out" / name).read_bytes():
                missing.append(name)
    return missing


@pytest.mark.slow
@pytest.mark.skipif(not possible(), reason="no strace here")
def test_a_hundred_power_cuts_lose_nothing_that_was_promised(recorded, tmp_path):
    disk, changes, whole = recorded
    shutil.copytree(disk, tmp_path / "all")
    assert sum(change.what == "mark" for change in changes) > 10
    assert len(whole) > 10
    rng = random.Random(0)
    for seed in range(100):
        cut = rng.randint(1, len(changes))
        assert not lost(recorded, changes, cut, seed, tmp_path / "cut"), (seed, cut)
    # Without the syncs of the prompts, or of the database, the same cuts lose what was promised.
    prompts = {c.file for c in changes if c.what == "make" and "prompts/" in c.name}
    database = {c.file for c in changes if c.what == "make" and "study.db" in c.name}
    for files in (prompts, database):
        careless = [replace(c, what="") if c.what == "sync" and c.file in files else c for c in changes]
        careless = [c for c in careless if c.what]
        assert any(lost(recorded, careless, len(careless) - 9, seed, tmp_path / "cut") for seed in range(20))
