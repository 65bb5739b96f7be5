"""Whether the labels of test rows are those of the rows to learn from, before anything is tuned."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from softstart.errors import SoftstartError, listed

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def _number(text: str) -> str:
    return repr(float(text)) if _NUMBER.fullmatch(text) else text


FORMS: dict[str, Callable[[str], str]] = {
    "Unicode form": lambda text: unicodedata.normalize("NFKC", text),
    "white space": lambda text: " ".join(text.split()),
    "case": str.casefold,
    "number form": _number,
}
"""In what ways one label can be written differently, each with what takes the difference away."""


def written_otherwise(label: str, others: Iterable[str]) -> tuple[str, str] | None:
    """Another label that differs only in how it is written, and in what; None: there is none.

    >>> written_otherwise("1.0", ["0", "1"])
    ('1', 'number form')
    >>> written_otherwise("Yes ", ["yes", "no"])
    ('yes', 'white space, case')
    """
    for other in others:
        if other != label and _formed(label) == _formed(other):
            needed = [name for name in FORMS if _formed(label, name) != _formed(other, name)]
            return other, ", ".join(needed)
    return None


def compare_labels(known: Sequence[str], tested: Sequence[str], where: str) -> list[str]:
    """Notes on labels that rows to learn from lack, or have twice; one sentence each.

    Args:
        known: labels of the rows to learn from.
        tested: labels of test rows.
        where: the test rows, for messages.

    Raises:
        SoftstartError: a test label differs from a known one only in case, white space, Unicode form or the
            number form: no prediction could be right.

    >>> compare_labels(["no", "yes"], ["no", "perhaps"], "more.csv")
    ["more.csv: no row to learn from has the label 'perhaps': it cannot be predicted"]
    """
    notes = []
    distinct = list(dict.fromkeys(known))
    for i, label in enumerate(distinct):
        if found := written_otherwise(label, distinct[:i]):
            notes.append(f"the labels {found[0]!r} and {label!r} differ only in {found[1]}")
    unseen = [label for label in dict.fromkeys(tested) if label not in distinct]
    for label in unseen:
        if found := written_otherwise(label, distinct):
            shown = ascii if found[1].startswith("Unicode") else repr
            raise SoftstartError(
                f"the test label {shown(label)} is {shown(found[0])} in the rows to learn from: they differ "
                f"in {found[1]}",
                where=where,
                fix="Write them alike, or map every label to one word (--labels VALUE=WORD …).",
            )
    if unseen:
        names = listed([repr(label) for label in unseen])
        plural, it = ("s", "they") if len(unseen) > 1 else ("", "it")
        notes.append(f"{where}: no row to learn from has the label{plural} {names}: {it} cannot be predicted")
    return notes


def _formed(label: str, left_out: str = "") -> str:
    for name, form in FORMS.items():
        if name != left_out:
            label = form(label)
    return label
