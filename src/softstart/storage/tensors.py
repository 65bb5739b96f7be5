"""Tensors with a JSON header in one file, written atomically and never pickled.

Every file contains a digest of its content. Without it, a flipped bit in a tensor would be read as a number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from softstart.errors import Damaged, SoftstartError
from softstart.storage.files import atomic

HEADER = "softstart"
DIGEST = "softstart_digest"


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any], *, durable: bool = False
) -> None:
    """Write tensors and a JSON header as one safetensors file, atomically.

    ``durable``: once written, it outlives a power failure. Checkpoints need not, and whoever writes many
    files syncs them together.
    """
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    text = json.dumps(header)
    with atomic(path, durable=durable) as temporary:
        try:
            save_file(plain, temporary, {HEADER: text, DIGEST: content_digest(plain, text), "format": "pt"})
        except SafetensorError as problem:
            raise OSError(str(problem)) from problem


def load_tensors(path: Path, of: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_tensors`` wrote, or any other safetensors file, which has no digest.

    Args:
        path: the file.
        of: the fingerprint of the work a checkpoint belongs to; a header with another ``of`` is refused.

    Raises:
        Damaged: not a safetensors file, or one whose content has changed since it was written.
        SoftstartError: no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        text = metadata.get(HEADER, "{}")
        if metadata.get(DIGEST, actual := content_digest(tensors, text)) != actual:
            raise ValueError("its content has changed since it was written")
        header = json.loads(text)
        if not isinstance(header, dict):
            raise ValueError("its header is not a JSON object")
        if of is not None and header.get("of", of) != of:
            raise ValueError("it belongs to other work: other data, another start or other settings")
    except FileNotFoundError as problem:
        raise SoftstartError("no such file", where=str(path)) from problem
    except (SafetensorError, ValueError, OSError, RecursionError) as problem:
        raise Damaged(
            f"not a readable safetensors file ({problem})",
            where=str(path),
            fix="It is damaged or of another kind: delete it and run again, or give another file.",
        ) from problem
    return tensors, header


def is_written_here(path: Path) -> bool:
    """Whether ``save_tensors`` wrote this file; only its metadata are read."""
    try:
        with safe_open(path, framework="pt") as file:
            return HEADER in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def content_digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """A digest of a text and of tensors: names, types, shapes and every bit."""
    named = [(f"{name} {t.dtype} {tuple(t.shape)}", t) for name, t in sorted(tensors.items())]
    return digest_of(text, *(part for pair in named for part in pair))


def numeric(config: object) -> list[tuple[str, Any]]:
    """The settings that checkpoints depend on, without those that only say how long and in which batches."""
    free = ("steps", "checkpoint_every", "max_tokens", "memory_budget")
    return [(name, value) for name, value in vars(config).items() if name not in free]


def digest_of(*facts: object) -> str:
    """A digest of tensors, by their bits, and of anything else, by its ``repr``."""
    digest = hashlib.sha256()
    for fact in facts:
        plain = fact.detach().cpu().contiguous().flatten() if isinstance(fact, Tensor) else None
        data = repr(fact).encode() if plain is None else plain.view(torch.uint8).numpy().tobytes()
        digest.update(f"{len(data)} ".encode())
        digest.update(data)
    return digest.hexdigest()
