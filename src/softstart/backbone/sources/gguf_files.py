"""GGUF files: what they hold, and why one cannot be a backbone, before anything is loaded.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. transformers reads the tensors; it ignores
what it does not know, so everything that would change a number is checked here.
"""

from __future__ import annotations

import importlib.util
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from softstart.errors import SoftstartError

SUFFIX = ".gguf"

FAMILIES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "gpt2": "gpt2",
}
"""GGUF's name of an architecture → the listed family that transformers reads it as."""

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"
}  # fmt: skip
_LONGEST = 1 << 28
"""No string or array of a sane file is longer."""


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself: scalar and string metadata, and its tensors' names."""

    metadata: dict[str, Any]
    tensors: tuple[str, ...]

    @property
    def architecture(self) -> str:
        """GGUF's name of the family."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def precision(self) -> str:
        """How most weights are stored: "Q4_1", "F16"; "" where the file does not say."""
        from gguf import LlamaFileType

        try:
            return LlamaFileType(self.metadata["general.file_type"]).name.removeprefix("MOSTLY_")
        except (KeyError, ValueError):
            return ""


def read_header(path: Path) -> Header:
    """The header of a GGUF file that can be a backbone.

    Raises:
        SoftstartError: no such file, not a GGUF file, one that is cut short or in pieces, of a family that
            is not read from GGUF, or with settings that transformers ignores; or ``gguf`` is not installed.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != _MAGIC:
                raise SoftstartError("not a GGUF file", where=str(path), fix="Give a file of a GGUF model.")
            check_installed(str(path))
            header, needed = _parse(file)
        size = path.stat().st_size
    except (struct.error, UnicodeDecodeError, ValueError, OverflowError) as problem:
        raise SoftstartError(
            f"a GGUF file that is cut short or damaged ({problem})", where=str(path), fix="Fetch it again."
        ) from problem
    except OSError as problem:
        raise SoftstartError(
            f"cannot read the GGUF file ({problem.strerror})", where=str(path), fix="Check the path."
        ) from problem
    if size < needed:
        raise SoftstartError(
            f"a GGUF file that is cut short ({size:,} of {needed:,} bytes)",
            where=str(path),
            fix="Fetch it again.",
        )
    _check_supported(header, path)
    return header


def check_installed(where: str) -> None:
    """Refuse GGUF files where the packages that read them are missing.

    Raises:
        SoftstartError: one of them is.
    """
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise SoftstartError(
                f"reading GGUF files takes the package {package}",
                where=where,
                fix="pip install 'softstart[gguf]'",
            )


def left_over(header: Header, model: Any) -> list[str]:
    """Tensors of the file that the model has no place for; transformers would leave them out in silence."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next(key for key, name in MODEL_ARCH_NAMES.items() if name == header.architecture)
    names = get_tensor_name_map(arch, model.config.num_hidden_layers)
    known = {names.get_name(key, try_suffixes=(".weight", ".bias")) for key in model.state_dict()}
    return sorted(set(header.tensors) - known)


def _check_supported(header: Header, path: Path) -> None:
    known, arch = ", ".join(FAMILIES), header.architecture
    if arch not in FAMILIES:
        raise SoftstartError(
            f"a GGUF file of the family '{arch or 'unknown'}', which is not read from GGUF",
            where=str(path),
            fix=f"Read are {known}; give a transformers checkpoint of the model.",
        )
    if header.metadata.get("split.count", 1) > 1:
        raise SoftstartError(
            f"one of {header.metadata['split.count']} pieces of a GGUF file",
            where=str(path),
            fix="Join them with llama.cpp's gguf-split --merge.",
        )
    for key in sorted(header.metadata):
        name = key.removeprefix(f"{arch}.")
        if name != key and _ignored(name, header.metadata[key]):
            raise SoftstartError(
                f"{key} is {header.metadata[key]}, which transformers ignores when it reads GGUF: "
                "the model would compute something else",
                where=str(path),
                fix="Give a transformers checkpoint of the model.",
            )


def _ignored(name: str, value: Any) -> bool:
    """Whether a setting changes what the model computes and is not taken over (transformers 5.23)."""
    if name == "rope.scaling.type":
        return value not in ("none", "linear")  # linear by a factor of 1 is none
    if name in ("rope.scaling.factor", "rope.scale_linear"):
        return value not in (0.0, 1.0)
    return name == "expert_count" and value > 0


def _parse(file: BinaryIO) -> tuple[Header, int]:
    """The header that follows the magic bytes, and how many bytes the file must have."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    version, tensors, keys = struct.unpack("<IQQ", _bytes(file, 20))
    if version not in _VERSIONS:
        raise ValueError(f"version {version}")
    metadata: dict[str, Any] = {}
    for _ in range(_count(keys)):
        key = _string(file)
        metadata[key] = _value(file, _number(file, "<I"))
    ends, names = [0], []
    for _ in range(_count(tensors)):
        names.append(_string(file))
        shape = [_number(file, "<Q") for _ in range(_count(_number(file, "<I")))]
        kind, offset = struct.unpack("<IQ", _bytes(file, 12))
        per_block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        ends.append(offset + math.prod(shape) // per_block * size)
    alignment = metadata.get("general.alignment", 32)
    return Header(metadata, tuple(names)), math.ceil(file.tell() / alignment) * alignment + max(ends)


def _value(file: BinaryIO, kind: int) -> Any:
    """One value; an array is read over, for only vocabularies are arrays here."""
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _number(file, _format(kind))
    of, count = struct.unpack("<IQ", _bytes(file, 12))
    if of == _STRING:
        for _ in range(_count(count)):
            file.seek(_count(_number(file, "<Q")), 1)
    else:
        file.seek(_count(count) * struct.calcsize(_format(of)), 1)
    return None


def _format(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"a value of the unknown type {kind}")
    return _SCALARS[kind]


def _number(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, _bytes(file, struct.calcsize(form)))[0]


def _string(file: BinaryIO) -> str:
    return _bytes(file, _count(_number(file, "<Q"))).decode()


def _count(number: int) -> int:
    if number > _LONGEST:
        raise ValueError(f"a length of {number:,}")
    return number


def _bytes(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise ValueError("it ends within its header")
    return data
