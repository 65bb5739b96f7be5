"""Which tasks to build, and builds in parallel.

Each task is built in its own process: a crash, a lack of memory or a hang costs only that task.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from softstart.errors import SoftstartError
from softstart.gym.build import Job, Report, build_task
from softstart.gym.catalog import all_entries, crossfit_catalog, entries_named
from softstart.gym.catalog.reading import read_catalog
from softstart.gym.catalog.schema import Entry
from softstart.gym.hub import out_of_reach
from softstart.gym.rows import SUFFIXES
from softstart.gym.sampling import SEEDS
from softstart.gym.settings import load_setting


def choose(names: Sequence[str], setting: str | None, everything: bool, catalog: Path | None) -> list[Entry]:
    """The entries to build, each once.

    Args:
        names: of tasks.
        setting: all tasks of this setting.
        everything: all tasks of the catalog file, or without one of the package's catalog.
        catalog: a catalog file; its tasks can be named, too.

    Raises:
        SoftstartError: nothing is named, or a task or setting that does not exist.
    """
    entries = all_entries(catalog)
    wanted = list(names)
    if setting:
        wanted += [*(chosen := load_setting(setting)).tasks, *chosen.dev]
    if everything:
        wanted += read_catalog(catalog) if catalog else entries
    if not wanted:
        raise SoftstartError("nothing to build", fix="Name tasks, a --setting, or --all.")
    return entries_named(dict.fromkeys(wanted), entries)


def jobs_for(
    entries: Sequence[Entry],
    out: Path,
    source: Path | None,
    *,
    asked: bool,
    seeds: Sequence[int] | None,
    version: str,
    **options: Any,
) -> tuple[list[Job], list[str]]:
    """A job per task, and the names of tasks that were not asked for by name and have no rows in ``source``.

    The rows of a task lie in ``source/<task>``, else in ``source`` itself.

    Raises:
        SoftstartError: an unknown version, or ``source`` is not a folder.
    """
    if version not in ("v1", "v2"):
        raise SoftstartError(f"unknown version '{version}' of the gym", fix="Use v1 or v2.")
    if source is not None and not source.is_dir():
        raise SoftstartError("no such folder", where=str(source), fix="--source takes a folder of rows.")
    jobs, absent = [], []
    for entry in entries:
        folder = source
        if source is not None and ((source / entry.name).is_dir() or not _has_rows(source)):
            folder = source / entry.name
        if folder is not None and not asked and not folder.is_dir():
            absent.append(entry.name)
            continue
        shipped = crossfit_catalog().get(entry.name) == entry
        jobs.append(Job(entry, out, shipped, folder, tuple(seeds or SEEDS), version=version, **options))
    return jobs, absent


@dataclass
class _Running:
    job: Job
    process: BaseProcess
    until: float


def build_tasks(jobs: Sequence[Job], processes: int = 2, seconds: float = 3600) -> Iterator[Report]:
    """Build tasks, each in its own process; yields a report whenever one ends, also when it fails.

    Args:
        jobs: one per task.
        processes: how many build at a time.
        seconds: longer builds are stopped.
    """
    waiting, running = deque[Job](), dict[Connection, _Running]()
    for job in jobs:
        if problem := _hopeless(job):
            yield _failed(job, problem)
        else:
            waiting.append(job)
    context: Any = multiprocessing.get_context(_METHOD)
    if _METHOD == "forkserver":
        context.set_forkserver_preload(["__main__", "softstart.gym.build"])
    try:
        while waiting or running:
            while waiting and len(running) < max(1, processes):
                job = waiting.popleft()
                mine, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(job, theirs), daemon=True)
                process.start()
                theirs.close()
                running[mine] = _Running(job, process, time.monotonic() + seconds)
            first = min(run.until for run in running.values())
            for connection in wait(list(running), timeout=max(0.0, first - time.monotonic())):
                assert isinstance(connection, Connection)
                yield _outcome(connection, running.pop(connection))
            for connection, run in list(running.items()):
                if time.monotonic() >= run.until:
                    del running[connection]
                    _end(run.process)
                    yield _failed(
                        run.job, f"took longer than {seconds:g} seconds. Allow more with --timeout."
                    )
    finally:
        for run in running.values():
            _end(run.process)


_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def _has_rows(folder: Path) -> bool:
    return any(path.suffix in SUFFIXES for path in folder.iterdir())


def _hopeless(job: Job) -> str:
    """Why a build cannot succeed: its rows are on a hub that is out of reach; else empty."""
    if job.source is not None or job.entry.dataset.files or (job.out / job.entry.name).is_dir():
        return ""
    problem = out_of_reach(job.entry.dataset)
    return str(problem) if problem else ""


def _outcome(connection: Connection, run: _Running) -> Report:
    try:
        report: Report = connection.recv()
    except (EOFError, OSError):
        run.process.join()
        code = run.process.exitcode
        return _failed(
            run.job, f"its process died with code {code} (out of memory?). Build it alone: --jobs 1."
        )
    finally:
        connection.close()
    run.process.join()
    return report


def _end(process: BaseProcess) -> None:
    process.kill()
    process.join()


def _failed(job: Job, problem: str) -> Report:
    return Report(job.entry.name, "failed", problem=problem)


def _work(job: Job, connection: Connection) -> None:
    try:
        report = build_task(job)
    except SoftstartError as error:
        report = _failed(job, str(error))
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        report = _failed(job, f"{type(error).__name__}: {text}. This is a bug in Softstart.")
    connection.send(report)
    connection.close()
