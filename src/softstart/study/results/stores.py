"""The stores there are; every store is opened here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from softstart.registry import Registry
from softstart.study.results.sqlite_store import SQLiteStore
from softstart.study.results.store import Store

VARIABLE = "SOFTSTART_STORE"
"""The environment variable that names the store; without it, ``sqlite``."""

STORES: Registry[Callable[..., Store]] = Registry(
    "store", accepts=lambda found: isinstance(found, type) and issubclass(found, Store)
)
"""Stores by name; each is called with the arguments of ``Store``."""

STORES.add("sqlite", SQLiteStore)


def open_store(folder: Path, *, readonly: bool = False) -> Store:
    """The results of a study.

    Args:
        folder: the study folder; made if it is not there.
        readonly: only read, even while another process works on the study.

    Raises:
        NothingRun: ``readonly``, and there are no results yet.
        SoftstartError: the folder cannot be written, another process works on it, the database is damaged or
            of a newer version, or ``SOFTSTART_STORE`` names no store.
    """
    return STORES.find(os.environ.get(VARIABLE, "sqlite"), VARIABLE)(folder, readonly=readonly)
