"""Files that hold soft prompts: ours and PEFT's (the same), the paper's ``.pt``, NumPy's ``.npy``."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softstart.errors import SoftstartError
from softstart.prompt import multitask
from softstart.prompt.facts import check_facts
from softstart.prompt.kinds import KINDS, PromptKind, recorded_kind
from softstart.prompt.placement import peft_places
from softstart.storage.files import atomic, check_output_folder
from softstart.storage.tensors import is_written_here, load_tensors, save_tensors

TENSOR = "prompt_embeddings"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLED_FILE = "adapter_model.bin"
CONFIG_FILE = "adapter_config.json"
UNFINISHED = "unfinished-{}.safetensors"
"""Name of the checkpoint of a meta-training in the folder of its prompt, by the digest of its work."""
FURTHER = "further."
"""Prefix of the names of further tensors that belong to a prompt."""
PAPER_KEY = "promptembedding"
"""Key of the tensor in the files released with Qin et al. (2023)."""
SUFFIXES = (".safetensors", ".pt", ".bin", ".npy")
OF = "#"
"""Between a file and the name of one of several prompts in it: ``FILE#NAME``."""

FACTS = (
    "backbone", "backbone_digest", "placement", "info", "revision", "tokenizer_digest", "peft_task",
    "weights", "kind",
)  # fmt: skip

Read = tuple[dict[str, Tensor], dict[str, Any]]


def write(
    path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, durable: bool = True
) -> None:
    """Write one ``.safetensors`` file or a folder, with PEFT's configuration if PEFT knows the placement."""
    if path.suffix == ".safetensors":
        save_tensors(path, tensors, facts, durable=durable)
        return
    check_prompt_output(path)
    save_tensors(path / WEIGHTS_FILE, tensors, facts, durable=durable)
    if peft_places(facts["placement"]):
        length, width = tensors[TENSOR].shape
        kind = recorded_kind(width, facts.get("kind"))
        write_text(path / CONFIG_FILE, json.dumps(peft_config(length, kind, facts), indent=2) + "\n")


def write_tasks(path: Path, further: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a folder with what multitask prompt tuning learned, as PEFT's adapter of that kind."""
    check_prompt_output(path)
    tensors, more = multitask.to_peft(further)
    shared = further[multitask.SHARED]
    save_tensors(path / WEIGHTS_FILE, {TENSOR: shared, **tensors}, facts)
    length, width = shared.shape
    config = {**peft_config(length, recorded_kind(width, None), facts), **more}
    write_text(path / CONFIG_FILE, json.dumps(config, indent=2) + "\n")


def check_prompt_output(path: Path) -> None:
    """Refuse a place for a prompt that cannot be written, or where files of others would be overwritten.

    A folder is ours if it holds a prompt that Softstart wrote, or the checkpoint of a meta-training.

    Raises:
        SoftstartError: naming the place, and what is there.
    """
    if path.suffix != ".safetensors":
        check_output_folder(path, lambda folder: any(map(is_written_here, _prompts_in(folder))))
    elif path.exists() and not is_written_here(path):
        raise SoftstartError(
            "holds something that Softstart did not write", where=str(path), fix="Choose another name."
        )


def _prompts_in(folder: Path) -> list[Path]:
    return [folder / WEIGHTS_FILE, *folder.glob(UNFINISHED.format("*"))]


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def peft_config(length: int, kind: PromptKind, facts: Mapping[str, Any]) -> dict[str, Any]:
    """``adapter_config.json`` of PEFT's prompt tuning or prefix tuning."""
    return {
        "peft_type": kind.peft_type,
        "task_type": facts["peft_task"] or "SEQ_2_SEQ_LM",
        "base_model_name_or_path": facts["backbone"],
        "revision": facts["revision"] or None,
        "num_virtual_tokens": length,
        # PEFT's own default for encoder-decoders is 2, whose second half never gets a gradient.
        "num_transformer_submodules": 1,
        **kind.peft_config(),
        "inference_mode": True,
    }


def one_of(source: str) -> tuple[Path, str] | None:
    """A file and the name of one of its prompts, if that is what FILE#NAME means; None: it is not."""
    file, mark, name = source.partition(OF)
    path = Path(file)
    there = mark and path.suffix in SUFFIXES and not Path(source).exists() and path.is_file()
    return (path, name) if there else None


def names_in(path: Path) -> tuple[str, ...]:
    """The names of the prompts in a safetensors file: the usual one, or all matrices if it has several.

    Raises:
        SoftstartError: the file is missing or damaged.
    """
    tensors, _ = load_tensors(path)
    if TENSOR in tensors:
        return (TENSOR,)
    return tuple(sorted(name for name, tensor in tensors.items() if _is_prompt(tensor, path)))


def prompts_in(folder: str | Path, where: str | None = None) -> dict[str, Path]:
    """The prompts of a folder by name: files, and folders of PEFT adapters.

    Raises:
        SoftstartError: there are none, naming ``where``, or two have one name.
    """
    root = Path(folder)
    files = sorted(
        path for path in (root.iterdir() if root.is_dir() else ())
        if path.suffix in SUFFIXES or (path / WEIGHTS_FILE).exists()
    )  # fmt: skip
    if not files:
        raise SoftstartError(
            "no prompts in this folder",
            where=where or str(folder),
            fix=f"It must hold {', '.join(SUFFIXES)} files or folders of PEFT adapters.",
        )
    found: dict[str, Path] = {}
    for path in files:
        name = path.name if path.is_dir() else path.stem
        if name in found:
            raise SoftstartError(f"two prompts are named '{name}'", where=str(folder), fix="Rename one.")
        found[name] = path
    return found


def is_prompt_folder(path: str | Path) -> bool:
    """Whether a folder holds prompts and is none itself."""
    root = Path(path)
    if not root.is_dir() or (root / WEIGHTS_FILE).exists():
        return False
    return any(one.suffix in SUFFIXES or (one / WEIGHTS_FILE).exists() for one in root.iterdir())


def read(path: Path, name: str = TENSOR) -> tuple[Tensor, dict[str, Any]]:
    """The prompt [P, D] of a file or folder, and its facts; other tensors of it are in ``facts["further"]``.

    Raises:
        SoftstartError: missing or damaged files, no prompt [P, d] in them, or NaN or infinity in it.
    """
    file, folder = path, path.parent
    if path.is_dir():
        file, folder = path / WEIGHTS_FILE, path
        if not file.exists() and (path / PICKLED_FILE).exists():
            file = path / PICKLED_FILE
        if not file.exists() and next(path.glob("adapter_model-*-of-*"), None):
            raise SoftstartError(
                "the adapter is in several files", where=str(path), fix=f"Save it as one, {WEIGHTS_FILE}."
            )
    # The weights of an adapter mean what the configuration next to them says.
    config = _config(folder / CONFIG_FILE) if file.name in (WEIGHTS_FILE, PICKLED_FILE) else {}
    readers = {".pt": _torch_file, ".bin": _torch_file, ".npy": _numpy_file}
    tensors, header = readers.get(file.suffix, load_tensors)(file)
    tensor = tensors.get(name)
    if tensor is None or not _is_prompt(tensor, file):
        fix = "Give a prompt written by Softstart or a PEFT prompt-tuning adapter"
        if others := sorted(key for key, each in tensors.items() if _is_prompt(each, file)):
            near = get_close_matches(name, others, n=1) or others
            fix += f", or name one of its {len(others)} matrices: {file}{OF}{near[0]}"
        raise SoftstartError(
            f"holds no soft prompt ('{name}' of shape [P, d])", where=str(file), fix=f"{fix}."
        )
    facts = {key: header[key] for key in FACTS if key in header}
    check_facts(facts, str(file))
    if config.get("peft_type") == multitask.PEFT_TYPE:
        length = config.get("num_virtual_tokens")
        length = length if isinstance(length, int) and length > 0 else len(tensor)
        found = multitask.from_peft(tensor, tensors, length, str(file))
        tensor = found.pop("start")
        tensors = {f"{FURTHER}{key}": of for key, of in found.items()}
    if further := {k.removeprefix(FURTHER): t for k, t in tensors.items() if k.startswith(FURTHER)}:
        facts["further"] = further
    if not facts and config:
        tensor, facts = _from_peft(tensor, config, folder / CONFIG_FILE)
        check_facts({**facts, "kind": None}, str(path))
    else:
        facts["kind"] = recorded_kind(tensor.shape[1], facts.get("kind"), str(file))
    for of, values in {name: tensor, **facts.get("further", {})}.items():
        _check_finite(of, values, file)
    return tensor, facts


def _check_finite(name: str, tensor: Tensor, file: Path) -> None:
    """Refuse NaN and infinity, also where only float32 cannot hold a number."""
    wrong = ~torch.isfinite(tensor.to(torch.float32))
    if wrong.any():
        row = int(wrong.flatten(1).any(1).nonzero()[0]) if tensor.ndim > 1 else 0
        raise SoftstartError(
            f"{int(wrong.sum())} of {tensor.numel()} entries of '{name}' are NaN or infinite, the first in "
            f"row {row + 1}",
            where=str(file),
            fix="Its training diverged, or the file is damaged: give another prompt.",
        )


def _is_prompt(tensor: Tensor, file: Path) -> bool:
    """Whether it is a plain matrix, and no larger than its file: a view can claim any size."""
    plain = tensor.layout == torch.strided and tensor.ndim == 2 and tensor.is_floating_point()
    return plain and 0 < tensor.numel() * tensor.element_size() <= file.stat().st_size


def _from_peft(tensor: Tensor, config: Mapping[str, Any], file: Path) -> tuple[Tensor, dict[str, Any]]:
    facts: dict[str, Any] = {
        "backbone": config.get("base_model_name_or_path") or "",
        "revision": config.get("revision") or "",
        "peft_task": config.get("task_type") or "",
        "info": {"from": "PEFT"},
        "kind": _kind_of_peft(tensor.shape[1], config, file),
    }
    length = config.get("num_virtual_tokens")
    length = length if isinstance(length, int) and length > 0 else len(tensor)
    if len(tensor) == 2 * length:
        facts["info"]["note"] = (
            f"the adapter held {2 * length} rows for {length} virtual tokens: PEFT puts the first {length} "
            "before the text and never uses or trains the others, which are left out"
        )
        tensor = tensor[:length].clone()
    elif len(tensor) != length:
        raise SoftstartError(
            f"says {length} virtual tokens, but the prompt next to it has {len(tensor)} rows",
            where=str(file),
            fix="Give the adapter as it was saved.",
        )
    return tensor, facts


def _kind_of_peft(width: int, config: Mapping[str, Any], file: Path) -> PromptKind:
    of = "PROMPT_TUNING" if config["peft_type"] == multitask.PEFT_TYPE else config["peft_type"]
    (known,) = [each for each in KINDS.values() if each.peft_type == of]
    try:
        return known.from_peft(width, config)
    except ValueError as problem:
        raise SoftstartError(
            f"does not fit the prompt next to it ({problem})",
            where=str(file),
            fix="Give the adapter as it was saved.",
        ) from problem


def _config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = config.get("peft_type")
    except (OSError, ValueError, AttributeError, RecursionError) as problem:
        raise SoftstartError(f"not a readable PEFT configuration ({problem})", where=str(path)) from problem
    known = [*(each.peft_type for each in KINDS.values()), multitask.PEFT_TYPE]
    if kind not in known:
        raise SoftstartError(
            f"an adapter of the kind {kind}, not a soft prompt",
            where=str(path),
            fix=f"Give an adapter of the kind {' or '.join(known)}.",
        )
    loaded: dict[str, Any] = config
    return loaded


def _torch_file(path: Path) -> Read:
    """A ``.pt`` of the paper, or PEFT's old ``.bin``; only tensors are read, never objects."""
    try:
        _refuse_packed(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as problem:
        raise SoftstartError("no such file", where=str(path)) from problem
    except Exception as problem:  # torch and NumPy raise errors of any type here
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        if isinstance(problem, UnpicklingError):  # torch says how to open it all the same
            reason = "it is no file of torch's, or holds something else than tensors"
        raise SoftstartError(
            f"not a readable file of tensors ({reason})",
            where=str(path),
            fix="Save tensors only: a file with other objects in it is not opened.",
        ) from problem
    values = content if isinstance(content, dict) else {TENSOR: content}
    tensors = {str(key): value for key, value in values.items() if isinstance(value, Tensor)}
    if PAPER_KEY in tensors:
        # The paper's code puts the prompt after the text and its padding.
        return {TENSOR: tensors[PAPER_KEY]}, {"placement": "suffix", "info": {"from": "Qin et al. (2023)"}}
    return tensors, {}


def _refuse_packed(path: Path) -> None:
    """Refuse a compressed archive: torch never writes one, but would unpack a small file to any size."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise ValueError("a compressed archive, which torch does not write")


def _numpy_file(path: Path) -> Read:
    try:
        # Mapped, so that a file cannot claim more than it holds.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        with np.errstate(over="ignore"):
            # Half as large as float32, which would seem to be more than the file holds.
            kept = np.float16 if array.dtype == np.float16 else np.float32
            tensor = torch.from_numpy(np.array(array, dtype=kept, order="C"))
    except FileNotFoundError as problem:
        raise SoftstartError("no such file", where=str(path)) from problem
    except Exception as problem:  # torch and NumPy raise errors of any type here
        raise SoftstartError(f"not a readable array ({problem})", where=str(path)) from problem
    return {TENSOR: tensor}, {"info": {"from": "NumPy"}}
