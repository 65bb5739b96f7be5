"""Rows of datasets on the Hugging Face hub, and whether the hub can be reached."""

from __future__ import annotations

import os
import re
import ssl
import threading
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from softstart.errors import SoftstartError
from softstart.gym.catalog.schema import Dataset
from softstart.gym.template import Row

CONVERTED = "refs/convert/parquet"
"""The branch on which the hub keeps its own conversion of datasets that need a loading script."""


def hub_rows(dataset: Dataset, split: str) -> Iterator[Row]:
    """The rows of a split, from the hub or from the local cache of ``datasets``.

    Raises:
        SoftstartError: the dataset cannot be loaded; one line says why.
    """
    if problem := out_of_reach(dataset):
        raise problem
    assert dataset.id is not None
    if not Path(dataset.id).exists() and not hub_reachable():
        _go_offline()
    first: Exception | None = None
    for name in (dataset.id, *dataset.mirrors):
        try:
            loaded = _load(name, dataset, split)
        except Exception as error:
            first = first or error
        else:
            for batch in loaded.with_format("arrow").iter(1000):
                yield from batch.to_pylist()
            return
    assert first is not None
    raise _explained(first, dataset.id) from first


@cache
def hub_reachable(seconds: float = 5.0) -> bool:
    """Whether the hub answers within seconds, through a proxy if one is set; False in offline mode."""
    if any(os.environ.get(name, "").upper() in _YES for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")):
        return False
    request = Request(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), method="HEAD")
    answered: list[bool] = []

    def knock() -> None:
        try:
            trust = ssl.create_default_context()
            trust.load_verify_locations(import_module("certifi").where())
            urlopen(request, timeout=seconds, context=trust).close()
            answered.append(True)
        except HTTPError:
            answered.append(True)
        except (OSError, ValueError, ImportError):
            pass

    # In a thread, because the timeout does not cover the look-up of the host name.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answered)


def out_of_reach(dataset: Dataset) -> SoftstartError | None:
    """Why trying the hub is pointless, without loading its libraries; None if it may work.

    A dataset that somebody loaded before may be in the local cache.
    """
    if dataset.withdrawn or dataset.id is None:
        return SoftstartError(f"not on the hub: {dataset.withdrawn}", fix=f"Give {_ROWS_FIX}.")
    names = (dataset.id, *dataset.mirrors)
    if Path(dataset.id).exists() or hub_reachable() or any(map(_cached, names)):
        return None
    return _unreachable(dataset.id)


_YES = ("1", "ON", "YES", "TRUE")
_ROWS_FIX = "its rows with --source DIR, as DIR/<split>.parquet or .jsonl"


def _unreachable(name: str) -> SoftstartError:
    return SoftstartError(
        "the hub cannot be reached (no network, or offline mode) and it is not in the local cache",
        where=f"dataset '{name}'",
        fix=f"Go online, or give {_ROWS_FIX}.",
    )


def _cached(name: str) -> bool:
    """Whether the caches of the hub's libraries hold anything of a dataset."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")).expanduser()
    places = {
        os.environ.get("HF_HUB_CACHE", home / "hub"): f"datasets--{name.replace('/', '--')}",
        os.environ.get("HF_DATASETS_CACHE", home / "datasets"): name.replace("/", "___"),
    }
    return any(
        folder.name.lower() == wanted.lower()
        for place, wanted in places.items()
        for folder in Path(place).expanduser().glob("*")
    )


def _go_offline() -> None:
    """Make the hub's libraries read only their cache, whether they are imported yet or not."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets.config
    import huggingface_hub.constants

    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True


def _load(name: str, dataset: Dataset, split: str) -> Any:
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()
    original = name == dataset.id  # not a mirror
    if original and dataset.revision == CONVERTED:
        pattern = f"hf://datasets/{name}@{CONVERTED}/{dataset.config or '*'}/{split}/*.parquet"
        return datasets.load_dataset("parquet", data_files={split: pattern}, split=split)
    revision = dataset.revision if original else None
    config = dataset.config if original else None
    return datasets.load_dataset(name, config, revision=revision, split=split)


def _explained(error: Exception, name: str) -> SoftstartError:
    """An error of the hub's libraries in one line."""
    if isinstance(error, SoftstartError):
        return error
    import datasets

    text = " ".join(str(error).split())
    kind = type(error).__name__
    where = f"dataset '{name}'"
    if re.search(r"\bscripts?\b", text, re.IGNORECASE):
        what = f"it needs a loading script, which datasets {datasets.__version__} does not run"
        return SoftstartError(what, where=where, fix=f"Give {_ROWS_FIX}.")
    if not hub_reachable() and not Path(name).exists():
        return _unreachable(name)
    return SoftstartError(
        f"datasets cannot load it ({kind}: {text[:300]})", where=where, fix=f"Give {_ROWS_FIX}."
    )
