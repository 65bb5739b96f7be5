"""Catalog files: YAML to validated entries, with errors that name file, task and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from softstart.errors import SoftstartError
from softstart.gym.catalog.schema import Entry
from softstart.storage.safe_yaml import read_yaml


def parse_catalog(text: str, where: str) -> dict[str, Entry]:
    """The entries of one catalog file: ``tasks`` by name, each on top of what ``shared`` says for all.

    Raises:
        SoftstartError: for anything that does not fit, with file, task and field.
    """
    data = read_yaml(text, where)
    tasks = data.get("tasks") if isinstance(data, dict) else None
    shared = data.get("shared") or {} if isinstance(data, dict) else None
    if not isinstance(tasks, dict) or not isinstance(shared, dict) or set(data) - {"tasks", "shared"}:
        raise SoftstartError(
            "a catalog file is a mapping 'tasks' from names to entries, and optionally 'shared'", where=where
        )
    return {str(name): parse_entry(str(name), _merge(shared, entry), where) for name, entry in tasks.items()}


def parse_entry(name: str, data: Any, where: str) -> Entry:
    """One entry; see ``parse_catalog``."""
    if not isinstance(data, dict):
        raise SoftstartError("an entry is a mapping of fields to values", where=f"{where}: task '{name}'")
    try:
        entry = Entry.model_validate({"name": name} | data)
        entry.version("v1")
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(step) for step in first["loc"]) or "entry"
        message = (
            "no such field"
            if first["type"] == "extra_forbidden"
            else first["msg"].removeprefix("Value error, ").rstrip(".")
        )
        raise SoftstartError(
            f"{field}: {message}",
            where=f"{where}: task '{name}'",
            fix=f"Fix '{field}'." if first["type"] != "extra_forbidden" else f"Known: {', '.join(_FIELDS)}.",
        ) from None
    return entry


def read_catalog(path: str | Path) -> dict[str, Entry]:
    """The entries of a catalog file; the files it names are relative to it.

    Raises:
        SoftstartError: a file that cannot be read, or see ``parse_catalog``.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SoftstartError(f"cannot read the catalog ({error})", where=str(path)) from None
    entries = parse_catalog(text, str(path))
    return {name: _relative_to(path.parent, entry) for name, entry in entries.items()}


def _relative_to(folder: Path, entry: Entry) -> Entry:
    files = {split: str(folder / file) for split, file in entry.dataset.files.items()}
    return entry.model_copy(update={"dataset": entry.dataset.model_copy(update={"files": files})})


def _merge(shared: Any, entry: Any) -> Any:
    """Fields of the entry over those shared, field by field inside mappings."""
    if isinstance(shared, dict) and isinstance(entry, dict):
        return {key: _merge(shared.get(key), entry.get(key, shared.get(key))) for key in {**shared, **entry}}
    return shared if entry is None else entry


_FIELDS = [field.alias or name for name, field in Entry.model_fields.items() if name != "name"]
