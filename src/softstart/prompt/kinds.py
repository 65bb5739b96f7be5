"""What a prompt is made of: embeddings, or the keys and values of every layer. One class for each kind.

A prompt of any kind is a matrix [P, D]: P rows, its virtual tokens, of D entries each. A pack of them is a
stack [R, P, D]. So algorithms, optimizers, checkpoints and files serve every kind; only what a backbone does
with the entries differs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from softstart.errors import SoftstartError
from softstart.registry import Registry

Pairs = Sequence[tuple[Tensor, Tensor]]
"""Keys and values [G, N, P, h] of every layer: G heads of keys, N prompts, P rows, h entries a head."""
Read = Callable[[Tensor], Pairs]
"""Sends embeddings [N, P, d] that stand at the beginning through the layers of a causal model."""

UNIT_SHAPE = (16, 32)
"""Texts, and their tokens, that the size of keys and values is measured on."""


class Host(Protocol):
    """What a kind asks of a backbone."""

    @property
    def width(self) -> int:
        """d, the width of an embedding."""

    @property
    def vocabulary(self) -> Tensor:
        """The embedding of every token [V, d]."""

    @property
    def key_value_shape(self) -> tuple[int, int, int]:
        """Layers, heads of keys in each, entries of a head; SoftstartError: no such prompts here."""

    def keys_and_values(self, embeddings: Tensor) -> Pairs:
        """Those of embeddings [N, P, d] that stand at the beginning."""


class PromptKind(ABC):
    """What the entries of a prompt's rows are.

    ``label`` says it in words; ``peft_type`` is PEFT's name for an adapter of this kind.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    peft_type: ClassVar[str]
    card: ClassVar[tuple[str, str]]
    """The title of a prompt of this kind, and of a learned start."""
    tags: ClassVar[tuple[str, ...]]
    """Of its model card."""
    dropout: ClassVar[bool] = True
    """Whether it can be trained under dropout."""

    @classmethod
    @abstractmethod
    def of(cls, host: Host) -> Self:
        """The kind on a backbone; SoftstartError: it does not work there."""

    @classmethod
    @abstractmethod
    def from_file(cls, width: int, facts: Mapping[str, Any]) -> Self:
        """The kind of a prompt with D = ``width`` from the facts in its file; ValueError: they disagree."""

    @classmethod
    def from_peft(cls, width: int, config: Mapping[str, Any]) -> Self:
        """The kind of an adapter with D = ``width`` from its configuration; ValueError: they disagree."""
        return cls.from_file(width, config)

    @property
    @abstractmethod
    def width(self) -> int:
        """D, the entries of a row."""

    @property
    @abstractmethod
    def shape(self) -> str:
        """The sizes of a row in words, for messages."""

    @classmethod
    @abstractmethod
    def check_placement(cls, placement: str) -> None:
        """Refuse a placement that means nothing for this kind by a SoftstartError."""

    @abstractmethod
    def read_rows(self, length: int) -> int:
        """How many of a prompt's P = ``length`` rows go through the layers, as the tokens of a text do."""

    @abstractmethod
    def pairs(self, prompts: Tensor, read: Read) -> Pairs:
        """Keys and values of prompts [R, P, D] that stand at the beginning, with their graph."""

    @abstractmethod
    def made_of(self, embeddings: Tensor, host: Host) -> Tensor:
        """Prompts [N, P, D] that compute what embeddings [N, P, d] compute."""

    @abstractmethod
    def unit(self, host: Host) -> float | Tensor:
        """The usual size of an entry (root mean square): one for all, or one for each entry of a row [D]."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What a file says of the kind; nothing of embeddings."""

    @abstractmethod
    def peft_config(self) -> dict[str, Any]:
        """The part of ``adapter_config.json`` that is about the kind."""

    @abstractmethod
    def described(self, length: int) -> str:
        """A prompt of P = ``length`` rows in words."""


KINDS: Registry[type[PromptKind]] = Registry("prompt kind")
"""Kinds of prompts by name: those of ``prompt.kind`` in a study, ``--kind`` and ``Backbone.prompt_kind``."""


@KINDS.register("embeddings")
@dataclass(frozen=True)
class Embeddings(PromptKind):
    """Vectors that are read as if they were the embeddings of tokens: soft prompts (Lester et al., 2021)."""

    size: int
    """d."""

    name: ClassVar[str] = "embeddings"
    label: ClassVar[str] = "embeddings, read like those of tokens"
    peft_type: ClassVar[str] = "PROMPT_TUNING"
    card: ClassVar[tuple[str, str]] = ("A soft prompt", "A learned start for prompt tuning")
    tags: ClassVar[tuple[str, ...]] = ("prompt-tuning", "soft-prompt")

    @classmethod
    def of(cls, host: Host) -> Self:
        """As ``PromptKind.of``."""
        return cls(host.width)

    @classmethod
    def from_file(cls, width: int, facts: Mapping[str, Any]) -> Self:
        """As ``PromptKind.from_file``."""
        return cls(width)

    @property
    def width(self) -> int:
        """D = d."""
        return self.size

    @property
    def shape(self) -> str:
        """As ``PromptKind.shape``."""
        return f"width {self.size}"

    @classmethod
    def check_placement(cls, placement: str) -> None:
        """All placements are of embeddings."""

    def read_rows(self, length: int) -> int:
        """All P."""
        return length

    def pairs(self, prompts: Tensor, read: Read) -> Pairs:
        """As ``PromptKind.pairs``, of [R, P, d]: by a pass through the layers."""
        return read(prompts)

    def made_of(self, embeddings: Tensor, host: Host) -> Tensor:
        """The embeddings [N, P, d] themselves."""
        return embeddings

    def unit(self, host: Host) -> float:
        """The root mean square of an entry of the embedding as the layers see it: the median over tokens."""
        return float(host.vocabulary.float().square().mean(1).sqrt().median())

    def facts(self) -> dict[str, Any]:
        """Nothing: files of older versions say nothing either."""
        return {}

    def peft_config(self) -> dict[str, Any]:
        """As ``PromptKind.peft_config``."""
        return {"token_dim": self.size, "prompt_tuning_init": "RANDOM"}

    def described(self, length: int) -> str:
        """As ``PromptKind.described``."""
        return f"{length} vectors of width {self.size}"


@KINDS.register("key_values")
@dataclass(frozen=True)
class KeyValues(PromptKind):
    """Keys and values of P virtual tokens in every layer of a causal model: prefix tuning without its network
    (Li & Liang, 2021), the key-value form of Context Tuning (Lu et al., 2025).

    A row holds [layers, 2, heads, head_width] entries, as PEFT stores a prefix: rows of P virtual tokens are
    the tensor [layers, 2, heads, P, head width] of a prompt. Keys are those that attention uses, rotary
    positions included; the text that follows begins at position P.
    """

    layers: int
    heads: int
    """Of keys, in each layer."""
    head_width: int
    """Entries of a head."""

    name: ClassVar[str] = "key_values"
    label: ClassVar[str] = "keys and values of every layer"
    peft_type: ClassVar[str] = "PREFIX_TUNING"
    card: ClassVar[tuple[str, str]] = (
        "A key-value prompt (prefix tuning)", "A learned start for prefix tuning",
    )  # fmt: skip
    tags: ClassVar[tuple[str, ...]] = ("prefix-tuning", "key-value-prompt")
    dropout: ClassVar[bool] = False

    @classmethod
    def of(cls, host: Host) -> Self:
        """As ``PromptKind.of``; SoftstartError: the backbone is no causal model of a known family."""
        return cls(*host.key_value_shape)

    @classmethod
    def from_file(cls, width: int, facts: Mapping[str, Any]) -> Self:
        """As ``PromptKind.from_file``.

        Raises:
            ValueError: the sizes in the file do not give D.
        """
        made = cls(*(int(facts[name]) for name in ("layers", "heads", "head_width")))
        if min(asdict(made).values()) < 1 or made.width != width:
            raise ValueError(
                f"rows of {width} entries, not {made.layers} x 2 x {made.heads} x {made.head_width}"
            )
        return made

    @classmethod
    def from_peft(cls, width: int, config: Mapping[str, Any]) -> Self:
        """As ``PromptKind.from_peft``.

        Raises:
            ValueError: the configuration names no sizes, or others.
        """
        names = ("num_layers", "num_attention_heads", "token_dim")
        try:
            layers, heads, entries = (int(config[name]) for name in names)
            return cls.from_file(width, {"layers": layers, "heads": heads, "head_width": entries // heads})
        except (KeyError, TypeError, ZeroDivisionError, OverflowError) as problem:
            raise ValueError(f"it does not give {', '.join(names)}") from problem

    @property
    def width(self) -> int:
        """D = layers x 2 x heads x head width."""
        return self.layers * 2 * self.heads * self.head_width

    @property
    def shape(self) -> str:
        """As ``PromptKind.shape``."""
        return f"keys and values [{self.layers}, 2, {self.heads}, {self.head_width}]"

    @classmethod
    def check_placement(cls, placement: str) -> None:
        """As ``PromptKind.check_placement``; SoftstartError: any other than before the text."""
        if placement != "prefix":
            raise SoftstartError(
                f"a key-value prompt has no place '{placement}': its keys and values come before the text",
                fix="Set placement: prefix.",
            )

    def read_rows(self, length: int) -> int:
        """None of the P."""
        return 0

    def pairs(self, prompts: Tensor, read: Read) -> Pairs:
        """As ``PromptKind.pairs``, of [R, P, D]: the entries themselves."""
        runs, length, _ = prompts.shape
        rows = prompts.view(runs, length, self.layers * 2, self.heads, self.head_width)
        parts = rows.permute(2, 3, 0, 1, 4).unbind(0)  # 2 x layers of [G, R, P, h]
        return list(zip(parts[::2], parts[1::2], strict=True))

    def made_of(self, embeddings: Tensor, host: Host) -> Tensor:
        """The keys and values [N, P, D] that embeddings [N, P, d] have in the backbone."""
        pairs = host.keys_and_values(embeddings)
        stacked = torch.stack([torch.stack(pair) for pair in pairs])  # [layers, 2, G, N, P, h]
        return stacked.permute(3, 4, 0, 1, 2, 5).flatten(2)

    def unit(self, host: Host) -> Tensor:
        """One size for the keys and one for the values of each layer [D]: medians over random tokens.

        The first token of a text, which many models treat as a place to attend to for nothing, is an outlier.
        """
        generator = torch.Generator().manual_seed(0)
        table = host.vocabulary
        ids = torch.randint(len(table), UNIT_SHAPE, generator=generator)
        rows = self.made_of(table[ids.to(table.device)], host).float().flatten(0, 1)
        parts = rows.view(len(rows), self.layers * 2, -1)
        sizes = parts.square().mean(2).sqrt().median(0).values  # [2 x layers]
        return sizes.repeat_interleave(self.heads * self.head_width)

    def facts(self) -> dict[str, Any]:
        """As ``PromptKind.facts``."""
        return {"name": self.name, **asdict(self)}

    def peft_config(self) -> dict[str, Any]:
        """As ``PromptKind.peft_config``."""
        width = self.heads * self.head_width
        return {
            "num_layers": self.layers, "num_attention_heads": self.heads, "token_dim": width,
            "encoder_hidden_size": width, "prefix_projection": False,
        }  # fmt: skip

    def described(self, length: int) -> str:
        """As ``PromptKind.described``."""
        sizes = "(layers, 2, heads, head width)"
        return f"{self.shape} {sizes} of {length} virtual tokens: {length * self.width:,} entries"


def recorded_kind(width: int, facts: Mapping[str, Any] | None, where: str | None = None) -> PromptKind:
    """The kind of a stored prompt with D = ``width``, by what its file says; None: of embeddings.

    Raises:
        SoftstartError: no such kind, or a width that is not the one of its facts.
    """
    if facts is None:
        return Embeddings(width)
    try:
        return KINDS.find(facts["name"], where).from_file(width, facts)
    except (KeyError, TypeError, ValueError) as problem:
        raise SoftstartError(
            f"its header says something else than its prompt holds ({problem})",
            where=where,
            fix="Give a prompt written by Softstart or a PEFT adapter.",
        ) from problem
