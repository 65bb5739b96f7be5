"""Join a running study as one more of its worker processes, on the same machine.

The process that writes the results listens. A process that joins gets work from it as its own worker
processes do, and hands the results back; what they say to each other cannot run code (``messages``). File
permissions decide who may join: the key is in the study's folder, readable by its owner only, and only a key
that is nobody else's is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import secrets
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import chdir, suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

import torch

import softstart
from softstart.errors import SoftstartError
from softstart.study.declare.spec import MAIN
from softstart.study.declare.study_file import load_study, variants_of
from softstart.study.plan.inputs import Inputs
from softstart.study.plan.plan import make_plan
from softstart.study.results.folder import CHECKPOINTS, JOIN, STUDY_FILE
from softstart.study.run.executors import Setup
from softstart.study.run.messages import PlainConnection, to_study, to_worker
from softstart.study.run.serving import serve
from softstart.study.run.work import Done

READY = b"ready"
"""What a process that joined says when its backbone is loaded."""


@dataclass(frozen=True)
class Door:
    """Where a running study listens. ``cwd`` is the folder that its relative paths start from."""

    address: str
    key: str
    pid: int
    version: str
    cwd: str


class Joiners:
    """Accepts processes that want to join; ``arrived`` holds the connections of those that are ready.

    Args:
        setup: what a worker is made of.
        folder: the study folder, for the file that holds the address.
    """

    def __init__(self, setup: Setup, folder: Path) -> None:
        self.setup, self.path = setup, folder / JOIN
        self.arrived: queue.SimpleQueue[PlainConnection] = queue.SimpleQueue()
        key = secrets.token_hex(32)
        self._listener = Listener(authkey=bytes.fromhex(key))
        self._closing = False
        address = str(self._listener.address)
        self._door = Door(address, key, os.getpid(), softstart.__version__, os.getcwd())
        self.path.unlink(missing_ok=True)
        with os.fdopen(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            json.dump(vars(self._door), file)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Accept nobody any more."""
        self._closing = True
        self.path.unlink(missing_ok=True)
        # Closing the listener does not wake a thread that waits in accept; a connection does.
        with suppress(OSError):
            Client(self._door.address).close()
        self._thread.join(timeout=5)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing:
            with suppress(OSError, EOFError, AuthenticationError):
                connection: Any = self._listener.accept()
                connection.send_bytes(self._told())
                # It reports when the backbone is loaded; one that cannot load it never gets work.
                while not connection.poll(0.5) and not self._closing:
                    pass
                if not self._closing:
                    connection.recv_bytes(len(READY))
                    self.arrived.put(to_worker(connection))

    def _told(self) -> bytes:
        """What a process that joins needs to be a worker, besides the study file in the folder."""
        inputs = self.setup.inputs.to_json() if self.setup.inputs else None
        study = _digest(self.path.with_name(STUDY_FILE))
        return json.dumps({"study": study, "device": self.setup.device, "inputs": inputs}).encode()


def join_study(folder: Path, device: str | None = None, say: Callable[[str], None] = print) -> int:
    """Work for the process that runs a study until that process ends.

    Args:
        folder: the study folder.
        device: where to compute; by default where the study's own workers do.
        say: called with a line when the work begins.

    Returns:
        The number of pieces of work done.

    Raises:
        SoftstartError: no process accepts workers for this study, its key is not of this user alone, it runs
            another version of Softstart or another study, or the backbone cannot be loaded here.
    """
    door = _door(folder)
    try:
        connection = _knock(door)
        told = json.loads(connection.recv_bytes())
        inputs = Inputs.from_json(told["inputs"])
    except (OSError, EOFError, AuthenticationError, ValueError, TypeError, KeyError) as problem:
        raise SoftstartError(
            f"the process that ran this study has ended (pid {door.pid})",
            where=str(folder),
            fix="Run the study without --join.",
        ) from problem
    torch.set_num_threads(1)
    done = 0

    def count(outcome: object) -> None:
        nonlocal done
        done += isinstance(outcome, Done)

    # Relative paths in the study start from the folder of the process that runs it.
    folder = folder.resolve()
    with chdir(door.cwd):
        if told["study"] != _digest(folder / STUDY_FILE):
            raise SoftstartError(
                "the study file has changed since the study was started",
                where=str(folder / STUDY_FILE),
                fix="Start the study again, then join it.",
            )
        study = load_study(folder / STUDY_FILE)
        setup = Setup(variants_of(study), device or told["device"], folder / CHECKPOINTS, inputs)
        worker = setup.worker()
        worker.resources.backbone(MAIN)
        with suppress(OSError):
            connection.send_bytes(READY)
            say(f"working for process {door.pid}")
            serve(to_study(connection, make_plan(study, inputs)), worker, count)
    return done


def _door(folder: Path) -> Door:
    try:
        with (folder / JOIN).open(encoding="utf-8") as file:
            _refuse_foreign(folder / JOIN, os.fstat(file.fileno()))
            door = Door(**json.loads(file.read()))
    except (OSError, ValueError, TypeError) as problem:
        raise SoftstartError(
            "no process accepts workers for this study",
            where=str(folder),
            fix="Run it without --join, with --workers 2 or more.",
        ) from problem
    if door.version != softstart.__version__:
        raise SoftstartError(
            f"the study is run by Softstart {door.version}, this is {softstart.__version__}",
            where=str(folder),
            fix="Join with the same version.",
        )
    return door


def _refuse_foreign(path: Path, facts: os.stat_result) -> None:
    """Refuse a key that somebody else wrote, or can read or change.

    Raises:
        SoftstartError: saying which.
    """
    if sys.platform == "win32":
        return
    foreign, open_to_others = facts.st_uid != os.getuid(), facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    if foreign or open_to_others:
        raise SoftstartError(
            "belongs to another user" if foreign else "other users can read or change it",
            where=str(path),
            fix="Only a study that you run yourself can be joined, in a folder that keeps permissions.",
        )


def _digest(path: Path) -> str:
    """A digest of a file; empty if there is none."""
    with suppress(OSError):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return ""


def _knock(door: Door) -> Connection:
    connection: Any = Client(door.address, authkey=bytes.fromhex(door.key))
    return connection  # type: ignore[no-any-return]
