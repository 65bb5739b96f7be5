"""What a command that is repeated finds: its checkpoint, its finished prompt, or the prompt of other work."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from softstart.errors import SoftstartError
from softstart.prompt import SoftPrompt
from softstart.prompt.formats import UNFINISHED, WEIGHTS_FILE

WORK = "work"
"""The key of a prompt's ``info`` that holds the fingerprint of the work it came from."""


def fingerprint(*parts: Any) -> str:
    """A digest of everything that a piece of work depends on, tensors and prompts by their numbers."""
    return sha256(repr([_plain(part) for part in parts]).encode()).hexdigest()[:16]


def _plain(part: Any) -> Any:
    if isinstance(part, Tensor):
        return sha256(part.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
    if isinstance(part, SoftPrompt):
        return [_plain(part.tensor), _plain(part.further)]
    if isinstance(part, Mapping):
        return [(name, _plain(value)) for name, value in part.items()]
    return part


def checkpoint_of(out: Path, work: str) -> Path:
    """Where a piece of work keeps its checkpoint: in the folder of its prompt, or next to its file."""
    name = UNFINISHED.format(work)
    return out.with_name(name) if out.suffix == ".safetensors" else out / name


def finished(out: Path, work: str, *, force: bool) -> SoftPrompt | None:
    """The prompt at ``out`` if this very work made it; None if there is none, or it may be replaced.

    Args:
        out: where the prompt is to be written.
        work: the fingerprint of what is asked for.
        force: replace what is there.

    Raises:
        SoftstartError: there is a prompt of other work.
    """
    file = out if out.suffix == ".safetensors" else out / WEIGHTS_FILE
    if force or not file.exists():
        return None
    prompt = SoftPrompt.load(out)
    if prompt.info.get(WORK) == work:
        return prompt
    raise SoftstartError(
        "holds a finished prompt of other rows, settings or backbone",
        where=str(out),
        fix="Give another --out, or --force to replace it.",
    )
