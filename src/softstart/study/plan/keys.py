"""Keys of what a study computes: a hash of everything that can change its numbers.

Whether an option is part of them is declared at its field (see ``softstart.training.identity``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from softstart.training.identity import identity_of

PROTOCOL = 2
"""Version of the code that decides numbers; raised when a change makes old results incomparable."""


def as_json(parts: Mapping[str, Any]) -> dict[str, str]:
    """The parts of a key as JSON, made once: a plan hashes the same parts many thousand times."""
    return {name: json.dumps(identity_of(value), sort_keys=True) for name, value in parts.items()}


def key_of(parts: Mapping[str, str]) -> str:
    """The key of a result that depends on these parts (see ``as_json``)."""
    text = "{" + ", ".join(f'"{name}": {parts[name]}' for name in sorted(parts)) + "}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
