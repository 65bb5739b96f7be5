"""GGUF files as checkpoints of transformers: read slowly once, then kept as safetensors."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from softstart.backbone.sources.gguf_files import FAMILIES, left_over, read_header
from softstart.errors import SoftstartError, listed
from softstart.storage.cache import check_space, whole_folder

Say = Callable[[str], None]
"""Receives a line on what is going on."""

FLOAT32 = "float32"
MANIFEST = "softstart.json"
FORM = 1
"""Version of converted folders; raised when the same file would be converted to something else."""


def stored_dtype(dtype: str) -> str:
    """What weights are stored in that are to be loaded in ``dtype``: bfloat16 alone needs no more bits."""
    return dtype if dtype == "bfloat16" else FLOAT32


def is_whole(folder: Path) -> bool:
    """Whether a folder is what ``convert`` made: every file there, with its size."""
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in facts["files"]}
        return bool(facts["form"] == FORM and facts["files"] == sizes)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def convert(file: Path, target: Path, dtype: str, say: Say, name: str) -> None:
    """Write a GGUF file as a transformers checkpoint; whole or not at all.

    Args:
        file: the GGUF file.
        target: the folder to make; its parent must be held (``storage.cache.exclusive``).
        dtype: ``float32``, which keeps every bit of the file's values, or ``bfloat16``.
        say: receives a line before the work.
        name: of the backbone, for messages.

    Raises:
        SoftstartError: the file cannot be a backbone, tensors are missing or left over, or no space.
    """
    header = read_header(file)
    say(f"{name}: reading the GGUF file and keeping it as safetensors, a minute or two, once")
    model, tokenizer = read_gguf(file, dtype, name)
    tensors = model.state_dict()
    size = sum(t.numel() * t.element_size() for t in {t.data_ptr(): t for t in tensors.values()}.values())
    check_space(target.parent, size + (16 << 20))
    with whole_folder(target) as folder, _disk_errors(), _silent():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for path in folder.glob("*.safetensors"):  # its writer makes them readable to their owner alone
            path.chmod((folder / "config.json").stat().st_mode)
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        facts = {"form": FORM, "from": file.name, "precision": header.precision, "files": files}
        (folder / MANIFEST).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def read_gguf(file: Path, dtype: str, name: str) -> tuple[Any, Any]:
    """The model of a GGUF file, as if it had never been one, and its tokenizer.

    Raises:
        SoftstartError: the file cannot be a backbone, or tensors are missing or left over.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from softstart.backbone.strict_loading import strictly_loaded

    header = read_header(file)
    try:
        with _silent():
            place = {"gguf_file": file.name}
            tokenizer = AutoTokenizer.from_pretrained(str(file.parent), trust_remote_code=False, **place)
            found = strictly_loaded(
                AutoModelForCausalLM, str(file.parent), name, dtype=getattr(torch, dtype), **place
            )
    except SoftstartError:
        raise
    except Exception as problem:  # readers of foreign files fail with anything
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise SoftstartError(
            f"a GGUF file that transformers cannot read ({reason})",
            where=str(file),
            fix="Give a transformers checkpoint of the model.",
        ) from problem
    kind = found.config.model_type
    if kind != FAMILIES[header.architecture]:
        raise SoftstartError(
            f"a GGUF file read as '{kind}', which is not supported",
            where=str(file),
            fix="Give a transformers checkpoint of the model.",
        )
    if surplus := left_over(header, found):
        raise SoftstartError(
            f"the GGUF file holds tensors that {kind} has no place for: {listed(surplus)}",
            where=str(file),
            fix="Give a transformers checkpoint of the model.",
        )
    _check_capping(header.metadata, header.architecture, found.config, file)
    # transformers marks it as quantized, which it no longer is, and would refuse to save it.
    del found.config.quantization_config, found.hf_quantizer
    found.is_quantized = False
    return found, tokenizer


def _check_capping(metadata: dict[str, Any], architecture: str, config: Any, file: Path) -> None:
    """Soft caps of Gemma 2 are not taken over from the file: those of the family have to be its own."""
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        value = metadata.get(f"{architecture}.{name}")
        if value is not None and value != getattr(config, name, None):
            raise SoftstartError(
                f"{architecture}.{name} is {value}, which transformers ignores when it reads GGUF",
                where=str(file),
                fix="Give a transformers checkpoint of the model.",
            )


@contextmanager
def _silent() -> Iterator[None]:
    """No log and no bars, those of the GGUF reader included, which nothing else switches off."""
    from softstart.backbone.strict_loading import quiet

    with quiet(), redirect_stderr(io.StringIO()):
        yield


@contextmanager
def _disk_errors() -> Iterator[None]:
    """What the writer of safetensors says of a full disk, as the operating system would."""
    try:
        yield
    except SafetensorError as problem:
        raise OSError(str(problem)) from problem


def to_stderr(line: str) -> None:
    """Say a line on standard error."""
    print(line, file=sys.stderr, flush=True)
