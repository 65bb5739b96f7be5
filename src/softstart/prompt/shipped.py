"""Learned starts that come with the package: ``softstart starts`` lists them, ``--init`` takes their names.

Each is a file in ``starts``. ``python -m experiments.starts`` (in the repository) takes it out of a study,
with what it gained there.
"""

from __future__ import annotations

from pathlib import Path

from softstart.errors import SoftstartError, did_you_mean

FOLDER = Path(__file__).parent / "starts"
OWNER = "softstart/"
"""What their names begin with."""
GAINED = "gained"
"""The key of ``info`` that holds what a start gained: points over plain prompt tuning with the bounds of a
95 % interval over target tasks, and how many tasks, samples, meta-training seeds and steps."""


def shipped_starts() -> dict[str, Path]:
    """The file of every start that is shipped, by name.

    >>> sorted(shipped_starts())
    ['softstart/smollm2-classification', 'softstart/smollm2-classification-multitask', 'softstart/tiny-mini']
    """
    return {f"{OWNER}{file.stem}": file for file in sorted(FOLDER.glob("*.safetensors"))}


def shipped_start(name: str) -> Path | None:
    """The file of a shipped start; None: the name is no such name.

    Raises:
        SoftstartError: no start of this name is shipped.
    """
    if not name.startswith(OWNER):
        return None
    known = shipped_starts()
    if name not in known:
        raise SoftstartError(
            f"no start named '{name}' is shipped",
            fix=did_you_mean(name, known) or "softstart starts lists those that are.",
        )
    return known[name]
