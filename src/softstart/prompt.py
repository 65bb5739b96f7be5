"""The soft prompt: a tensor [P, d] and what it belongs to; where it starts; how it is stored.

The file format is PEFT's prompt-tuning adapter (``prompt_embeddings`` [P, d] in
``adapter_model.safetensors`` beside ``adapter_config.json``), so a learned start drops into
``PeftModel.from_pretrained``. PEFT only knows prefix prompts; a suffix prompt is stored without the PEFT
configuration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from softstart.errors import SoftstartError
from softstart.files import atomic
from softstart.storage import load_tensors, save_tensors

TENSOR = "prompt_embeddings"
WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"


@dataclass(frozen=True, eq=False)
class SoftPrompt:
    """A soft prompt and the backbone it was made for.

    Args:
        tensor: [P, d], float32.
        backbone: name or path of the backbone.
        backbone_digest: ``Backbone.digest`` of the network it was trained on ("" if unknown).
        placement: where it goes, ``"prefix"`` or ``"suffix"``.
        info: how it came to be (method, setting, task, learning rate, seed, …); JSON-compatible.
    """

    tensor: Tensor
    backbone: str = ""
    backbone_digest: str = ""
    placement: str = "prefix"
    info: dict[str, Any] = field(default_factory=dict)

    def check(self, *, width: int, digest: str, placement: str, backbone: str, where: str = "prompt") -> None:
        """Refuse a prompt that belongs to another backbone or placement.

        Raises:
            SoftstartError: naming both sides of the mismatch.
        """
        if self.tensor.shape[1] != width:
            raise SoftstartError(
                f"the prompt has width {self.tensor.shape[1]} but backbone '{backbone}' embeds {width}",
                where=where,
                mend=f"It was trained for '{self.backbone or 'an unknown backbone'}': use that one.",
            )
        if self.backbone_digest and self.backbone_digest != digest:
            raise SoftstartError(
                f"the prompt was trained on '{self.backbone}' with other weights than '{backbone}'",
                where=where,
                mend="Load the same checkpoint and revision it was trained on.",
            )
        if self.placement != placement:
            raise SoftstartError(
                f"the prompt was trained as {self.placement} but is used as {placement}",
                where=where,
                mend=f"Set placement: {self.placement}.",
            )

    def save(self, path: Path) -> None:
        """Write one ``.safetensors`` file, or a PEFT adapter folder when the path has another ending."""
        header = {
            "backbone": self.backbone,
            "backbone_digest": self.backbone_digest,
            "placement": self.placement,
            "info": self.info,
        }
        tensors = {TENSOR: self.tensor.to(torch.float32)}
        if path.suffix == ".safetensors":
            save_tensors(path, tensors, header)
            return
        save_tensors(path / WEIGHTS_FILE, tensors, header)
        if self.placement == "prefix":
            with atomic(path / CONFIG_FILE) as temporary:
                temporary.write_text(json.dumps(self._peft_config(), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> SoftPrompt:
        """Read a prompt file or a PEFT prompt-tuning adapter folder.

        Raises:
            SoftstartError: missing or damaged files, or no prompt [P, d] in them.
        """
        file = path / WEIGHTS_FILE if path.is_dir() else path
        tensors, header = load_tensors(file)
        tensor = tensors.get(TENSOR)
        if tensor is None or tensor.ndim != 2 or not tensor.is_floating_point():
            raise SoftstartError(
                f"holds no soft prompt ('{TENSOR}' of shape [P, d])",
                where=str(file),
                mend="Give a prompt written by Softstart or a PEFT prompt-tuning adapter.",
            )
        return cls(
            tensor.to(torch.float32),
            header.get("backbone", ""),
            header.get("backbone_digest", ""),
            header.get("placement", "prefix"),
            header.get("info", {}),
        )

    def _peft_config(self) -> dict[str, Any]:
        return {
            "peft_type": "PROMPT_TUNING",
            "task_type": "SEQ_2_SEQ_LM",
            "base_model_name_or_path": self.backbone,
            "num_virtual_tokens": self.tensor.shape[0],
            "token_dim": self.tensor.shape[1],
            # PEFT's own default for encoder-decoders is 2, whose second half never gets a gradient.
            "num_transformer_submodules": 1,
            "prompt_tuning_init": "RANDOM",
            "inference_mode": True,
        }


Initializer = Callable[[int, Generator], Tensor]
"""(prompt length P, generator) → [P, d]."""


def vocabulary(embedding: Tensor, ids: Sequence[int]) -> Initializer:
    """Rows of distinct tokens drawn from ``ids`` (Lester et al., 2021: the most frequent tokens).

    Args:
        embedding: the backbone's input embedding [V, d].
        ids: token ids to draw from.
    """

    def draw(length: int, generator: Generator) -> Tensor:
        if length > len(ids):
            raise SoftstartError(
                f"prompt_length {length} is more than the {len(ids)} tokens to draw from",
                mend="Use a shorter prompt or another init.",
            )
        chosen = torch.randperm(len(ids), generator=generator)[:length]
        return embedding[torch.tensor(ids)[chosen].to(embedding.device)].float().clone()

    return draw


def task_names(embedding: Tensor, tokenized: Sequence[Sequence[int]], rest: Initializer) -> Initializer:
    """One row a task name, the mean of its tokens' embeddings; the remaining rows from ``rest``.

    The start of Qin et al. (2023), released files: names first, then frequent tokens.

    Args:
        embedding: [V, d].
        tokenized: the token ids of every name.
        rest: where the rows beyond the names come from.
    """

    def draw(length: int, generator: Generator) -> Tensor:
        names = [embedding[torch.tensor(ids, device=embedding.device)].float().mean(0) for ids in tokenized]
        if len(names) >= length:
            return torch.stack(names[:length])
        return torch.cat((torch.stack(names), rest(length - len(names), generator)))

    return draw


def gaussian(width: int, std: float = 1.0) -> Initializer:
    """Independent normal entries: the default of PEFT, kept as a baseline."""
    return lambda length, generator: torch.randn(length, width, generator=generator) * std


def from_tensor(tensor: Tensor) -> Initializer:
    """Always the given prompt [P, d]: a learned start."""

    def draw(length: int, generator: Generator) -> Tensor:
        if length != tensor.shape[0]:
            raise SoftstartError(
                f"the start has length {tensor.shape[0]} but prompt_length is {length}",
                mend=f"Set prompt_length: {tensor.shape[0]}.",
            )
        return tensor.clone()

    return draw
