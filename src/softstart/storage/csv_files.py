"""CSV that is also opened in spreadsheets: no cell of it is a formula, and it reads back the same.

A spreadsheet computes a cell that begins with one of ``= + - @``, whoever wrote it. Such a text is written
with an apostrophe before it, and one apostrophe is taken off where a text begins so.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softstart.errors import SoftstartError

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def written_cell(value: Any) -> Any:
    """A value as it is written: an apostrophe before a text that a spreadsheet would compute.

    >>> [written_cell(value) for value in ("=1+1", "'=1", "-0.5", "'tis", -0.5)]
    ["'=1+1", "''=1", '-0.5', "'tis", -0.5]
    """
    if not isinstance(value, str) or not _FORMULA.match(value) or _is_number(value):
        return value
    return f"'{value}"


def read_cell(text: str) -> str:
    """What ``written_cell`` was given.

    >>> [read_cell(text) for text in ("'=1+1", "''=1", "-0.5", "'tis")]
    ['=1+1', "'=1", '-0.5', "'tis"]
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV."""
    return str(_mapped(table, written_cell).to_csv(index=False))


def read_csv(path: Path, **settings: Any) -> pd.DataFrame:
    """A table that ``csv_text`` made; ``settings`` are those of ``pandas.read_csv``.

    Raises:
        SoftstartError: the file cannot be read, or is not a table.
    """
    import pandas as pd

    try:
        # By default a task could not be named NA, null or None.
        table = pd.read_csv(path, keep_default_na=False, na_values=[""], **settings)
    except (OSError, ValueError, OverflowError) as problem:
        reason = " ".join(str(getattr(problem, "strerror", None) or problem).split())
        raise SoftstartError(
            f"cannot read this table ({reason})", where=str(path), fix="Check that it is a CSV file in UTF-8."
        ) from problem
    return _mapped(table, _read_any)


def _read_any(value: Any) -> Any:
    return read_cell(value) if isinstance(value, str) else value


def _mapped(table: pd.DataFrame, change: Any) -> pd.DataFrame:
    """A copy whose cells of text columns, and column names, are changed."""
    import pandas as pd

    changed = table.copy()
    for place in range(len(table.columns)):
        column = table.iloc[:, place]
        if not pd.api.types.is_numeric_dtype(column):
            changed.isetitem(place, list(column.map(change)))
    changed.columns = [change(name) for name in table.columns]
    return changed
