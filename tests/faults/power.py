"""What a disk may hold after a power cut, from a log of what a process asked of the file system.

strace writes down every write, sync and change of a name, in order. A cut after any of them leaves what was
synced before it, and of the rest any part: each block of 4 KiB that was written since the last sync of its
file is there, or is zeros, or is as before; each change of names since the last sync of their folder is
there, or it and all later ones in this folder are not. File systems in use lose less than that.

Limits: writes through mapped memory are not seen (SQLite's ``-shm``, which is no part of a database and is
left out); what is read moves no position, so a file that is read and written through one descriptor must be
written at its end or at given places; a block is written whole or not at all; hard links and special files
are not known.
"""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 4096
CALLS = (
    "open,openat,creat,write,pwrite64,lseek,ftruncate,fsync,fdatasync,"
    "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir"
)
MARK = "acknowledged "
"""Begins what the process writes to a descriptor that is not open: what it has promised to keep."""


def traced(command: Sequence[str], log: Path) -> list[str]:
    """A command that runs another and writes down its system calls."""
    return ["strace", "-f", "-y", "-xx", "-s", str(1 << 24), "-e", f"trace={CALLS}", "-o", str(log), *command]


def possible() -> bool:
    """Whether calls can be traced here."""
    try:
        return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode == 0
    except OSError:
        return False


@dataclass
class Change:
    """One thing asked of the file system: ``what`` is write, cut (to a length), sync, make, folder, rename,
    remove or mark.
    """

    what: str
    file: int = 0
    """Number of the file, which stays when it is renamed."""
    name: str = ""
    to: str = ""
    at: int = 0
    data: bytes = b""


@dataclass
class Reader:
    """Turns lines of strace into changes below a folder; one descriptor at a time writes to a file."""

    root: str
    names: dict[str, int] = field(default_factory=dict)
    lengths: dict[int, int] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    """Where the next write goes to, by file; -1: to its end."""
    halves: dict[str, str] = field(default_factory=dict)

    def changes(self, lines: Iterator[str]) -> Iterator[Change]:
        """All of a log."""
        for line in lines:
            thread, _, call = line.rstrip("\n").partition(" ")
            call = call.strip()
            if call.endswith("<unfinished ...>"):
                self.halves[thread] = call.removesuffix("<unfinished ...>")
                continue
            if resumed := re.match(r"<\.\.\. \w+ resumed>", call):
                call = self.halves.pop(thread, "") + call[resumed.end() :]
            if match := re.match(r"(\w+)\((.*)\)\s+= (-?\d+)", call, re.DOTALL):
                yield from self._call(match[1], match[2], int(match[3]))

    def _call(self, name: str, given: str, result: int) -> Iterator[Change]:
        if name == "write" and result < 0 and (text := _text(given)).startswith(MARK.encode()):
            yield Change("mark", name=text.decode().removeprefix(MARK))
        if result < 0:
            return
        if opened := re.match(r"\d+<((?:\\x[0-9a-f]{2})*)>", given):
            yield from self._on_open(name, given, result, self._below(_bytes(opened[1])))
            return
        paths = [self._below(text) for text in _texts(given)]
        if not paths or paths[-1] is None:
            return
        path = paths[-1]
        if name in ("open", "openat", "creat"):
            yield from self._open(path, given)
        elif name in ("mkdir", "mkdirat"):
            yield Change("folder", name=path)
        elif name in ("unlink", "unlinkat", "rmdir"):
            self.names.pop(path, None)
            yield Change("remove", name=path)
        elif name.startswith("rename") and paths[0] is not None:
            self.names[path] = self.names.pop(paths[0])
            yield Change("rename", name=paths[0], to=path)

    def _open(self, path: str, given: str) -> Iterator[Change]:
        if path not in self.names and "O_CREAT" in given:
            number = self.names[path] = len(self.lengths) + 1
            self.lengths[number] = 0
            yield Change("make", number, path)
        if (number := self.names.get(path, 0)) and "O_TRUNC" in given and self.lengths[number]:
            self.lengths[number] = 0
            yield Change("cut", number)
        if number:
            self.places[number] = -1 if "O_APPEND" in given else 0

    def _on_open(self, name: str, given: str, result: int, path: str | None) -> Iterator[Change]:
        """What is done to a file or folder that is open."""
        number = self.names.get(path, 0) if path else 0
        if name in ("fsync", "fdatasync") and path is not None:
            yield Change("sync", number, name="" if number else path or ".")
        elif number and name == "ftruncate":
            self.lengths[number] = int(given.rsplit(", ", 1)[-1])
            yield Change("cut", number, at=self.lengths[number])
        elif number and name == "lseek":
            self.places[number] = result
        elif number and name in ("write", "pwrite64"):
            place = int(given.rsplit(", ", 1)[-1]) if name == "pwrite64" else self.places[number]
            at = self.lengths[number] if place < 0 else place
            if name == "write" and place >= 0:
                self.places[number] = at + result
            self.lengths[number] = max(self.lengths[number], at + result)
            yield Change("write", number, at=at, data=_text(given)[:result])

    def _below(self, text: bytes) -> str | None:
        """A path from the folder on; None for one that is elsewhere."""
        path = text.decode(errors="surrogateescape")
        if path.endswith("-shm") or not f"{path}/".startswith(f"{self.root}/"):
            return None
        return path[len(self.root) + 1 :]


def _texts(given: str) -> list[bytes]:
    return [_bytes(found) for found in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', given)]


def _text(given: str) -> bytes:
    return (_texts(given) or [b""])[0]


def _bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


@dataclass
class Disk:
    """The state of a disk: what is sure to be there, and what may be."""

    content: dict[int, bytearray] = field(default_factory=dict)
    """What a file holds for the processes, by its number."""
    sure: dict[int, bytes] = field(default_factory=dict)
    names: dict[str, int | None] = field(default_factory=dict)
    """Names that are sure to be there; None: a folder."""
    pending: dict[str, list[Change]] = field(default_factory=dict)
    """Changes of names since the last sync of their folder, by folder."""
    promised: list[str] = field(default_factory=list)

    def do(self, change: Change) -> None:
        """Go on by one change."""
        if change.what == "mark":
            self.promised.append(change.name)
        elif change.what == "write":
            held = self.content[change.file]
            held.extend(bytes(max(0, change.at + len(change.data) - len(held))))
            held[change.at : change.at + len(change.data)] = change.data
        elif change.what == "cut":
            held = self.content[change.file]
            del held[change.at :]
            held.extend(bytes(change.at - len(held)))
        elif change.what == "sync" and change.file:
            self.sure[change.file] = bytes(self.content[change.file])
        elif change.what == "sync":
            self._sync_names(change.name)
        else:
            if change.what == "make":
                self.content[change.file] = bytearray()
            for folder in {_folder(change.name), _folder(change.to or change.name)}:
                self.pending.setdefault(folder, []).append(change)

    def _sync_names(self, folder: str) -> None:
        for change in self.pending.pop(folder, []):
            _apply(self.names, change, folder)

    def cut(self, rng: random.Random) -> tuple[dict[str, int | None], dict[int, bytes]]:
        """Names and contents that a power cut may leave."""
        names = dict(self.names)
        for folder, changes in self.pending.items():
            for change in changes[: rng.randint(0, len(changes))]:
                _apply(names, change, folder)
        return names, {n: self._survivor(n, rng) for n in self.content}

    def _survivor(self, file: int, rng: random.Random) -> bytes:
        now, before = bytes(self.content[file]), self.sure.get(file, b"")
        if now == before:
            return now
        length, blocks = rng.choice((len(now), len(before))), []
        for at in range(0, length, BLOCK):
            new, old = now[at : at + BLOCK], before[at : at + BLOCK]
            # What was not there before may be zeros: the length is there, the data are not.
            kept = rng.choice((new, old.ljust(len(new), b"\0")))
            blocks.append(new if new == old else kept)
        return b"".join(blocks)[:length].ljust(length, b"\0")


def _folder(name: str) -> str:
    return name.rpartition("/")[0] or "."


def _apply(names: dict[str, int | None], change: Change, folder: str) -> None:
    """Change the names in one folder."""
    if change.what in ("make", "folder"):
        names[change.name] = change.file or None
    elif change.what == "remove":
        names.pop(change.name, None)
    elif change.what == "rename":
        # Between two folders this is two changes, of which one may be lost.
        if change.name in names and _folder(change.to) == folder:
            names[change.to] = names[change.name]
        if _folder(change.name) == folder:
            names.pop(change.name, None)


def read_log(log: Path, root: Path) -> list[Change]:
    """The changes below a folder, which is empty and on the disk when the command begins."""
    with log.open(encoding="latin-1") as lines:
        return list(Reader(str(root)).changes(iter(lines)))


def after_cut(changes: Sequence[Change], rng: random.Random, place: Path) -> list[str]:
    """Write what a disk may hold after these changes and a power cut; gives what was promised before it."""
    disk = Disk()
    for change in changes:
        disk.do(change)
    names, contents = disk.cut(rng)
    for name in sorted(names):
        path, number = place / name, names[name]
        # A file whose folder was lost is lost too.
        if not path.parent.is_dir():
            continue
        if number is None:
            path.mkdir()
        else:
            path.write_bytes(contents[number])
    return disk.promised
