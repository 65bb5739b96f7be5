"""Keys of what a study computes: a hash of everything that can change its numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

PROTOCOL = 2
"""Version of the code paths that decide numbers; raised when a change makes old results incomparable."""

NO_EFFECT = ("max_tokens", "memory_budget", "checkpoint_every")
"""Settings that change how the work is cut, not its result."""

ADDED: dict[str, tuple[Any, ...]] = {
    "budgets": ((), []),
    "rungs": ((), []),
    "eval_backoff": (1,),
    "epochs": (None,),
    "reshuffle": (True,),
    "batch_parts": (1,),
    "reduction": ("mean",),
    "inner_lr_unit": ("absolute",),
    "max_output_tokens": (None,),
    "f1_labels": ("union",),
    "bounded": (True,),
    "frequent": ("tokenizer",),
    "draw_per": ("sample",),
}
"""Settings that this protocol got later, with the values that change nothing: keys of old results stay."""


def as_json(parts: Mapping[str, Any]) -> dict[str, str]:
    """What a key is made of as JSON, part by part: a plan hashes the same parts many thousand times."""
    return {name: json.dumps(_effective(value), sort_keys=True) for name, value in parts.items()}


def key_of(parts: Mapping[str, str]) -> str:
    """The key of what depends on these parts (see ``as_json``)."""
    text = "{" + ", ".join(f'"{name}": {parts[name]}' for name in sorted(parts)) + "}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _effective(value: Any) -> Any:
    """A value without what cannot change a number."""
    if isinstance(value, Mapping):
        return {
            k: _effective(v)
            for k, v in value.items()
            if k not in NO_EFFECT and not (k in ADDED and v in ADDED[k])
        }
    return value
