"""Tokenized texts kept on disk under a digest of the texts, the tokenizer and the limits.

Kept in the cache folder (``softstart.storage.cache``): a missing, damaged or unwritable file costs the time
to tokenize.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from softstart.errors import SoftstartError
from softstart.storage.cache import cache_folder
from softstart.storage.files import atomic

Ids = dict[str, list[list[int]]]
"""Part → token ids of each of its texts."""

FORM = 1
"""Version of the files; increased when their content changes meaning."""

WORTH_KEEPING = 20_000
"""With more characters than this, reading a file is faster than tokenizing."""


def cached(
    texts: Mapping[str, list[str]], settings: Mapping[str, object], tokenizer: Any, make: Callable[[], Ids]
) -> Ids:
    """Token ids of every part of ``texts``: from the cache, or made and kept.

    Args:
        texts: the texts of every part.
        settings: whatever else decides the ids, by name (truncation, how outputs end); compared by ``repr``.
        tokenizer: what makes the ids; without a ``fingerprint`` nothing is kept.
        make: tokenizes all parts.
    """
    folder = cache_folder()
    if folder is None or sum(len(text) for part in texts.values() for text in part) < WORTH_KEEPING:
        return make()
    identity = fingerprint(tokenizer)
    if identity is None:
        return make()
    path = folder / "tokens" / f"{_digest(texts, settings, identity)}.safetensors"
    ids = _read(path, {name: len(part) for name, part in texts.items()})
    if ids is None:
        ids = make()
        _write(path, [row for name in texts for row in ids[name]])
    return ids


def fingerprint(tokenizer: Any) -> str | None:
    """A digest of what a tokenizer does to a text; None for a slow one, whose state cannot be read.

    Tokens added later, other special tokens and another side of truncation change it.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return None
    return _fingerprint(
        tokenizer, len(tokenizer), tokenizer.truncation_side, str(tokenizer.special_tokens_map)
    )


# Serializing a vocabulary of 250,000 tokens takes a third of a second, and every task asks again. What can
# change on the same object is part of the cache's key.
@lru_cache(maxsize=8)
def _fingerprint(tokenizer: Any, *_changeable: object) -> str:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    # Every call sets these anew, from arguments that are part of the key.
    for setting in ("truncation", "padding"):
        state.pop(setting, None)
    facts = [type(tokenizer).__name__, tokenizer.truncation_side, tokenizer.special_tokens_map, state]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _digest(texts: Mapping[str, list[str]], settings: Mapping[str, object], identity: str) -> str:
    digest = hashlib.sha256(f"{FORM} {identity} {sorted(settings.items())}".encode())
    for name, part in texts.items():
        digest.update(f"\0{name} {len(part)}".encode())
        for text in part:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(f"\0{len(data)} ".encode())
            digest.update(data)
    return digest.hexdigest()


def _read(path: Path, sizes: Mapping[str, int]) -> Ids | None:
    """What ``_write`` wrote, or None if the file is missing or damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            lengths, flat = file.get_tensor("lengths"), file.get_tensor("ids")
            if (file.metadata() or {}).get("check") != _check(path.stem, lengths, flat):
                return None
    except (OSError, SafetensorError, ValueError):
        return None
    if len(lengths) != sum(sizes.values()) or lengths.sum() != len(flat):
        return None
    numbers, ends = flat.tolist(), np.cumsum(lengths).tolist()
    rows = iter([numbers[begin:end] for begin, end in zip([0, *ends], ends, strict=False)])
    return {name: [next(rows) for _ in range(n)] for name, n in sizes.items()}


def _write(path: Path, rows: list[list[int]]) -> None:
    lengths = np.array([len(row) for row in rows], dtype=np.int32)
    flat = np.fromiter((i for row in rows for i in row), dtype=np.int32, count=int(lengths.sum()))
    try:
        with atomic(path, durable=False) as temporary:
            save_file(
                {"lengths": lengths, "ids": flat},
                temporary,
                metadata={"check": _check(path.stem, lengths, flat)},
            )
    except (SoftstartError, SafetensorError):
        pass


def _check(key: str, lengths: np.ndarray, ids: np.ndarray) -> str:
    """A checksum of the key and the ids, so that a file under another key is not taken for this one."""
    return str(zlib.crc32(ids.tobytes(), zlib.crc32(lengths.tobytes(), zlib.crc32(key.encode()))))
