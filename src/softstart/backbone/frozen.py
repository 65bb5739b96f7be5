"""A frozen transformers model with its tokenizer, and the facts that everything else asks it for."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from softstart.backbone import kernels
from softstart.backbone.devices import device_of, every_weight, refuse_sharded
from softstart.backbone.quantization import (
    keep_differentiable,
    plain_tensors,
    quantization_of,
    refuse_training,
)
from softstart.errors import SoftstartError
from softstart.prompt.kinds import Embeddings, Pairs, PromptKind
from softstart.storage.token_cache import fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class FrozenModel:
    """A pretrained language model whose weights are not trained.

    Args:
        model: the transformers model; it is frozen and put in eval mode in place. SoftstartError: it is
            sharded.
        tokenizer: its tokenizer.
        name: name or path it was loaded from, for messages and file headers.
    """

    revision: str | None = None
    """The hub revision it was loaded from."""
    carries_tangents: bool = False
    """Whether Hessian-vector products take tangents through compiled kernels (``tangents``)."""
    tangents_checked: bool = False
    """Whether such a product was found to be that of double backward."""
    weights: str = ""
    """Which weights these are, if the name leaves it open: the original ones or a rounded copy."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        refuse_sharded(model)
        self.model: Any = model.requires_grad_(False).eval()
        self.quantization = quantization_of(model.config)
        keep_differentiable(model)
        kernels.keep_freed_memory()
        for module in model.modules():
            if type(module) is nn.Linear and not self.quantization:
                module.__class__ = kernels.Linear
        self.tokenizer: Any = tokenizer
        self.name = name
        self.kind: PromptKind = Embeddings(self.width)
        """What prompts are made of."""

    @property
    def width(self) -> int:
        """d, the width of an embedding."""
        return int(self.embedding.weight.shape[1])

    @property
    def embedding(self) -> nn.Embedding:
        """The input embedding of the vocabulary, [V, d]."""
        table: nn.Embedding = self.model.get_input_embeddings()
        return table

    @property
    def vocabulary(self) -> Tensor:
        """The embedding of every token as the layers see it [V, d]: some families scale their table."""
        if type(self.embedding) is nn.Embedding and not self.embedding.weight.is_meta:
            return self.embedding.weight.detach()
        with torch.no_grad():
            table: Tensor = self.embedding(torch.arange(self.embedding.num_embeddings, device=self.device))
        return table

    @property
    def key_value_shape(self) -> tuple[int, int, int]:
        """Layers, heads of keys in each, entries of a head: of a prompt's keys and values.

        Raises:
            SoftstartError: a prompt has no keys and values that are the same for all texts.
        """
        raise SoftstartError(
            f"backbone '{self.name}' takes no key-value prompts: in an encoder a prompt's keys and values "
            "depend on the text, and PEFT's prefixes reach the decoder alone",
            fix="Use a causal backbone, or kind: embeddings.",
        )

    def keys_and_values(self, embeddings: Tensor) -> Pairs:
        """Those of embeddings [N, P, d] at the beginning of a row; SoftstartError as ``key_value_shape``."""
        raise NotImplementedError(self.key_value_shape)

    @property
    def window(self) -> int | None:
        """The longest sequence (prompt and text, for causal models the output too); None if unbounded."""
        config = self.model.config
        limit = getattr(config, "max_position_embeddings", None)
        # T5 has relative positions; the only limit its configuration names is the length of its training.
        relative = hasattr(config, "relative_attention_num_buckets")
        return None if relative or limit is None or limit <= 0 else int(limit)

    @property
    def device(self) -> torch.device:
        """The device of the embeddings; prompts and batches go there."""
        return device_of(self.embedding)

    @property
    def prompt_dtype(self) -> torch.dtype:
        """The dtype of prompts: float32, or float64 for a float64 backbone (exactness tests)."""
        return torch.promote_types(self.embedding.weight.dtype, torch.float32)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the configuration and every weight: which network this is, whatever its name."""
        return self._digest()

    def rounds_to(self, digest: str) -> bool:
        """Whether these weights in bfloat16 or float16 are the network of a digest."""
        halves = (torch.bfloat16, torch.float16)
        if self.embedding.weight.dtype in halves:
            return False
        for half in halves:
            if half not in self._half_digests:
                self._half_digests[half] = self._digest(half)
            if self._half_digests[half] == digest:
                return True
        return False

    @cached_property
    def _half_digests(self) -> dict[torch.dtype, str]:
        return {}

    def _digest(self, dtype: torch.dtype | None = None) -> str:
        config = {k: v for k, v in self.model.config.to_dict().items() if not k.startswith("_")}
        config.pop("transformers_version", None)
        if dtype is not None:
            config["dtype"] = str(dtype).removeprefix("torch.")
        digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
        for key, tensor in sorted(every_weight(self.model).items()):
            digest.update(key.encode())
            for part in plain_tensors(tensor.detach()):
                part = part.to(dtype) if dtype is not None and part.is_floating_point() else part
                digest.update(part.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def tokenizer_digest(self) -> str:
        """A digest of what the tokenizer does, whatever its name ("" for a slow tokenizer)."""
        return fingerprint(self.tokenizer) or ""

    def check_width(self, prompts: Tensor) -> None:
        """Refuse prompts [R, P, D] of another width, unless P = 0, by a SoftstartError."""
        if prompts.shape[1] and prompts.shape[-1] != self.kind.width:
            width = prompts.shape[-1]
            raise SoftstartError(
                f"the prompt has width {width} but backbone '{self.name}' takes {self.kind.shape}",
                fix="Use the backbone the prompt was trained for, or a prompt trained for this backbone.",
            )

    def check_window(self, length: int) -> None:
        """Refuse a sequence longer than the model's window by a SoftstartError."""
        if self.window is not None and length > self.window:
            raise SoftstartError(
                f"{length} tokens in a row (prompt included) but '{self.name}' reads at most {self.window}",
                fix="Lower max_input_tokens or the prompt's length.",
            )

    def trainable_copy(self) -> Self:
        """A copy whose weights can be trained (full fine-tuning); this backbone stays as it is."""
        refuse_training(self.name, self.quantization)
        twin = copy.copy(self)
        for known in ("digest", "_half_digests"):
            twin.__dict__.pop(known, None)
        twin.model = copy.deepcopy(self.model).requires_grad_(True)
        return twin

    def rebuilt_copy(self, rebuild: Callable[[Any], None]) -> Self:
        """A copy in which ``rebuild`` has replaced layers of the transformers model, such as by adapters."""
        twin = self.trainable_copy()
        rebuild(twin.model)
        return twin

    @contextlib.contextmanager
    def dropout(self, seed: int | None) -> Iterator[None]:
        """Dropout from a seed, without a trace in torch's own random state; None: no dropout."""
        if seed is None:
            yield
            return
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            self.model.train()
            try:
                yield
            finally:
                self.model.eval()
