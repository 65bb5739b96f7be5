"""Where tasks come from: one way in to the mini gym, to folders, to tables and to the hub."""

from __future__ import annotations

from pathlib import Path

from softstart.errors import SoftstartError
from softstart.gym.catalog import crossfit_catalog
from softstart.gym.entries import EntryGym
from softstart.gym.folder import CrossFitFolder
from softstart.gym.mini import MiniGym
from softstart.gym.tables import CATALOGS, is_table, open_table
from softstart.gym.task import Gym, Task


def open_gym(
    spec: str | Path | None = None,
    *,
    shots: int | None = None,
    version: int | None = None,
    as_published: bool = False,
) -> Gym:
    """Open a gym: the one entry to all of them.

    * ``None`` or "mini": the mini gym inside the package;
    * a folder in CrossFit's format;
    * a file of raw rows (CSV, TSV, JSONL, parquet) or ``hf:DATASET`` of the Hugging Face hub: a gym of one
      task, see ``softstart.gym.tables``;
    * a catalog file (YAML): its tasks, drawn from files or from the hub;
    * "hub": the 160 tasks of the catalog, drawn in memory from the hub.

    Args:
        spec: one of these.
        shots: chooses among several k in one folder (see ``CrossFitFolder``), or is the k of samples drawn.
        as_published: read a folder's files as the published code did (see ``CrossFitFolder``); it changes
            nothing in other gyms.
        version: of the mini gym's settings (see ``softstart.gym.mini.versions``); None: the default one.

    Raises:
        SoftstartError: if the folder or file is missing, broken, or holds no task, or for a version that
            does not exist.
    """
    if spec is None or spec == "mini":
        return MiniGym() if version is None else MiniGym(version=version)
    if version is not None:
        raise SoftstartError(f"gym '{spec}' has no versions", fix="Only the mini gym has; name none.")
    if spec == "hub":
        return EntryGym(crossfit_catalog(), "hub", shots=shots)
    if is_table(spec):
        return open_table(spec, shots=shots)
    return CrossFitFolder(spec, shots=shots, as_published=as_published)


def load_task(name: str, gym: str | Path | Gym | None = None, *, shots: int | None = None) -> Task:
    """Load one task of a gym, which is open already or named as for ``open_gym``.

    Without a gym, ``name`` may be a file of raw rows; any other name is looked up in the mini gym, then
    among the 160 tasks of the hub.

    Raises:
        SoftstartError: if there is no such task, or it cannot be loaded.

    >>> task = load_task("film_review")
    >>> task.labels, task.metric, len(task.test)
    (('negative', 'positive'), 'Classification-F1', 200)
    >>> task.samples[13].train[0]
    Example(input='review: boring! never again such a disgusting movie. it is july.', outputs=('negative',))
    """
    if gym is None and is_table(name) and Path(name).suffix not in CATALOGS:
        table = open_table(name, shots=shots)
        return table.load(table.tasks()[0])
    if gym is None and name in crossfit_catalog() and name not in open_gym().tasks():
        gym = "hub"
    return (open_gym(gym, shots=shots) if gym is None or isinstance(gym, (str, Path)) else gym).load(name)
