"""Files that are either whole or absent: tensors with a JSON header, written atomically, never pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from softstart.errors import SoftstartError
from softstart.files import atomic

HEADER = "softstart"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header as one safetensors file, atomically."""
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with atomic(path) as temporary:
        save_file(plain, temporary, metadata={HEADER: json.dumps(header), "format": "pt"})


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_tensors`` wrote.

    Raises:
        SoftstartError: no such file, not a safetensors file, or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, header  # noqa: SIM118
    except FileNotFoundError as problem:
        raise SoftstartError("no such file", where=str(path)) from problem
    except (SafetensorError, ValueError, OSError) as problem:
        raise SoftstartError(
            f"not a readable safetensors file ({problem})",
            where=str(path),
            mend="It is damaged or of another kind: delete it and run again, or give another file.",
        ) from problem
