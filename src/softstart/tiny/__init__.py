"""The embedded tiny language model: its world, corpus, tokenizer, pretraining and shipped weights."""

from __future__ import annotations

from pathlib import Path

from softstart.errors import SoftstartError

__all__ = ["weights_path"]


def weights_path() -> Path:
    """The folder of the shipped weights, for ``from_pretrained``."""
    folder = Path(__file__).parent / "weights"
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise SoftstartError(
                f"the embedded model has no {name}",
                where=str(folder),
                fix="Regenerate it: run `softstart tiny pretrain`.",
            )
    return folder
