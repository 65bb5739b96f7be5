"""The stored prompt: a tensor [P, d], or of another kind [P, D], and what it belongs to."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor

from softstart.errors import SoftstartError
from softstart.prompt import formats, hub, multitask
from softstart.prompt.card import model_card
from softstart.prompt.formats import TENSOR
from softstart.prompt.kinds import Embeddings, PromptKind
from softstart.prompt.placement import peft_places
from softstart.prompt.shipped import shipped_start


class Owner(Protocol):
    """The facts of a backbone that a prompt records."""

    name: str
    revision: str | None
    peft_task: ClassVar[str]

    weights: str

    def rounds_to(self, digest: str) -> bool:
        """Whether its weights in half precision are those of a digest."""

    @property
    def placement(self) -> str:
        """Where prompts go."""

    @property
    def kind(self) -> PromptKind:
        """What prompts are made of."""

    @property
    def digest(self) -> str:
        """A digest of its weights."""

    @property
    def tokenizer_digest(self) -> str:
        """A digest of its tokenizer."""


@dataclass(frozen=True, eq=False)
class SoftPrompt:
    """A soft prompt, or a prompt of another kind, and the backbone it was made for.

    The file format is PEFT's prompt-tuning adapter (``prompt_embeddings`` [P, d] in
    ``adapter_model.safetensors``, next to ``adapter_config.json``), so ``PeftModel.from_pretrained`` loads a
    learned start; a key-value prompt [P, D] is PEFT's prefix tuning. PEFT only knows prefix prompts; others
    are stored without its configuration.

    Args:
        tensor: [P, d], float32; [P, D] of another kind.
        backbone: name or path of the backbone.
        backbone_digest: ``Backbone.digest`` of the network it was trained on ("" if unknown).
        placement: where it goes, a name of ``PLACEMENTS``.
        info: how it was made (method, setting, task, learning rate, seed, …); JSON-compatible.
        revision: hub revision of the backbone ("" if unknown).
        tokenizer_digest: ``Backbone.tokenizer_digest`` ("" if unknown).
        peft_task: PEFT's name for the kind of model: ``SEQ_2_SEQ_LM`` or ``CAUSAL_LM`` ("" if unknown).
        further: tensors learned with it, by name: ``log_rates`` [P, 1] of Meta-SGD; ``sources`` [N, P, d],
            ``embeddings`` [N, P, d] and ``start`` [P, d] of SPoT. They are in its file; PEFT ignores them.
        weights: which weights the backbone has, in words, where its name alone does not say ("" otherwise).
        kind: what its entries are; by default embeddings.

    >>> import tempfile, torch
    >>> from softstart import Backbone
    >>> backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    >>> prompt = SoftPrompt.of(backbone, backbone.vocabulary[10:30], {"task": "sentiment"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     prompt.save_pretrained(folder)  # PeftModel.from_pretrained(model, folder) loads it too
    ...     loaded = SoftPrompt.from_pretrained(folder)
    >>> torch.equal(loaded.check_for(backbone), prompt.tensor)
    True
    >>> loaded.info["task"], loaded.backbone, loaded.placement
    ('sentiment', 'softstart/tiny', 'prefix')
    """

    tensor: Tensor
    backbone: str = ""
    backbone_digest: str = ""
    placement: str = "prefix"
    info: dict[str, Any] = field(default_factory=dict)
    revision: str = ""
    tokenizer_digest: str = ""
    peft_task: str = ""
    further: Mapping[str, Tensor] = field(default_factory=dict)
    weights: str = ""
    kind: PromptKind = field(default=cast(PromptKind, None))

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", self.kind or Embeddings(int(self.tensor.shape[-1])))

    @classmethod
    def of(
        cls,
        backbone: Owner,
        tensor: Tensor,
        info: Mapping[str, Any] | None = None,
        further: Mapping[str, Tensor] | None = None,
    ) -> SoftPrompt:
        """A prompt [P, D] made on this backbone; one in a folder is noted by its whole path."""
        local = (Path(backbone.name) / "config.json").is_file()
        return cls(
            tensor.detach().cpu().to(torch.float32),
            str(Path(backbone.name).resolve()) if local else backbone.name,
            backbone.digest,
            backbone.placement,
            dict(info or {}),
            **made_on(backbone),
            further=dict(further or {}),
            kind=backbone.kind,
        )

    def check_for(self, backbone: Owner, where: str = "prompt") -> Tensor:
        """The tensor [P, D], if the prompt belongs to this backbone.

        A prompt that records the name of another backbone but no digest of its weights is used with a
        warning: the same weights may lie under two names.

        Raises:
            SoftstartError: naming both sides of what differs: kind of prompt, width, weights (and revisions),
                tokenizer, placement or kind of model.
        """
        self.check(
            kind=backbone.kind,
            digest=_digest_of(backbone, self.backbone_digest),
            placement=backbone.placement,
            backbone=backbone.name,
            where=where,
            revision=backbone.revision or "",
            tokenizer=backbone.tokenizer_digest,
            peft_task=backbone.peft_task,
        )
        return self.tensor

    def check(
        self,
        *,
        kind: PromptKind,
        digest: str,
        placement: str,
        backbone: str,
        where: str = "prompt",
        revision: str = "",
        tokenizer: str = "",
        peft_task: str = "",
    ) -> None:
        """Refuse a prompt of another kind, backbone or placement; unknown facts are not compared.

        Raises:
            SoftstartError: naming both sides of the mismatch.
        """
        trained_on = _at(self.backbone or "an unknown backbone", self.revision)
        used_on = _at(backbone, revision)
        _check_kind(self.kind, kind, trained_on, backbone, where)
        if peft_task and self.peft_task not in ("", peft_task):
            raise SoftstartError(
                f"the prompt was trained for task type {self.peft_task}, but backbone '{backbone}' is of "
                f"task type {peft_task}",
                where=where,
                fix=f"It was trained for {trained_on}: use that one.",
            )
        weights = bool(self.backbone_digest) and self.backbone_digest != digest
        revisions = not self.backbone_digest and revision and self.revision not in ("", revision)
        if weights or revisions:
            raise SoftstartError(
                f"the prompt was trained on {trained_on} with other weights than {used_on}",
                where=where,
                fix="Load the same checkpoint and revision it was trained on.",
            )
        if self.backbone and not self.backbone_digest and Path(self.backbone).name != Path(backbone).name:
            warnings.warn(
                f"{where}: the prompt was trained on {trained_on} and is used on {used_on}; whether these "
                "are the same weights is not recorded",
                stacklevel=3,
            )
        if tokenizer and self.tokenizer_digest not in ("", tokenizer):
            raise SoftstartError(
                f"the prompt was trained with tokenizer {self.tokenizer_digest[:12]} of {trained_on}, "
                f"but {used_on} has tokenizer {tokenizer[:12]}",
                where=where,
                fix="Use the tokenizer files it was trained with.",
            )
        if self.placement != placement:
            raise SoftstartError(
                f"the prompt was trained as {self.placement} but is used as {placement}",
                where=where,
                fix=f"Set placement: {self.placement}.",
            )

    def save(self, path: Path, others: Mapping[str, Tensor] | None = None, *, durable: bool = True) -> None:
        """Write one ``.safetensors`` file, or a PEFT adapter folder if the path has another ending.

        Without ``durable`` a power failure may empty it until it is synced (``softstart.storage.files``).
        ``others`` are more prompts [P, D] to keep in the same file; ``load`` reads them by their names.
        """
        further = {f"{formats.FURTHER}{name}": tensor for name, tensor in self.further.items()}
        tensors = {TENSOR: self.tensor, **further, **(others or {})}
        exact = {name: t.to(torch.float32) for name, t in tensors.items()}
        formats.write(path, exact, self._facts(), durable=durable)

    @classmethod
    def load(cls, path: Path, name: str = TENSOR) -> SoftPrompt:
        """Read a prompt file or folder; ``name`` is that of one of ``others`` in ``save``.

        Formats: what ``save`` writes, PEFT's prompt-tuning and prefix-tuning adapters (safetensors or
        ``.bin``), the ``.pt`` files of Qin et al. (2023), ``.npy`` of the prompt-tuning code of Lester et al.
        (2021). No file can run code. From a PEFT adapter with 2P rows (PEFT's default for encoder-decoders)
        the first P are taken, and ``info["note"]`` says so: PEFT never uses the others.

        Raises:
            SoftstartError: missing or damaged files, no prompt [P, d] in them, or NaN or infinity in it.
        """
        tensor, facts = formats.read(path, name)
        return cls(tensor.to(torch.float32), **facts)

    @property
    def fits_peft(self) -> bool:
        """Whether it can be saved as a PEFT adapter: PEFT puts every prompt before the text."""
        return peft_places(self.placement)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that ``PeftModel.from_pretrained`` loads: adapter, configuration, model card.

        Raises:
            SoftstartError: PEFT cannot place the prompt, for instance a suffix.
        """
        if not self.fits_peft:
            raise SoftstartError(
                f"a {self.placement} prompt cannot be a PEFT adapter: PEFT puts every prompt before the text",
                where=str(folder),
                fix="Train with placement: prefix, or save the prompt as a .safetensors file.",
            )
        self.save_with_card(Path(folder))

    def save_with_card(self, path: Path) -> None:
        """Write what ``save`` writes and, into a folder, a model card; for every placement."""
        self.save(path)
        if path.suffix != ".safetensors":
            formats.write_text(path / "README.md", self.model_card())

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, revision: str | None = None) -> SoftPrompt:
        """Load a prompt from a file, a folder, or a repository of the Hugging Face hub.

        Args:
            name_or_path: anything ``load`` reads, ``FILE#NAME`` for one of several prompts in a file, the
                name of a start that is shipped (``softstart starts``), or a hub id.
            revision: hub revision; a commit, to be reproducible.

        Raises:
            SoftstartError: as ``load``, or no such start, repository or revision.
        """
        local, one = Path(name_or_path), formats.one_of(str(name_or_path))
        if one or local.exists() or local.suffix in formats.SUFFIXES:
            if revision is not None:
                raise SoftstartError(
                    "a local prompt has no revision", where=str(local), fix="Leave the revision out."
                )
            return cls.load(*one) if one else cls.load(local)
        shipped = shipped_start(str(name_or_path))
        return cls.load(shipped or hub.download(str(name_or_path), revision))

    def push_to_hub(self, repo_id: str, *, private: bool = False, message: str = "Upload soft prompt") -> str:
        """Upload what ``save_pretrained`` writes to the hub, and return the address of the commit.

        huggingface_hub's login is used (``hf auth login`` or ``HF_TOKEN``).

        Raises:
            SoftstartError: the hub refuses or cannot be reached, or PEFT cannot place the prompt.
        """
        return hub.upload(self.save_pretrained, repo_id, private=private, message=message)

    def model_card(self) -> str:
        """README.md of the adapter: what it is, how it was made, how to use it."""
        return model_card(len(self.tensor), self.kind, self._facts())

    def _facts(self) -> dict[str, Any]:
        return {
            "backbone": self.backbone,
            "backbone_digest": self.backbone_digest,
            "placement": self.placement,
            "info": self.info,
            "revision": self.revision,
            "tokenizer_digest": self.tokenizer_digest,
            "peft_task": self.peft_task,
            **({"weights": self.weights} if self.weights else {}),
            **({"kind": facts} if (facts := self.kind.facts()) else {}),
        }


def save_tasks(prompt: SoftPrompt, folder: Path) -> None:
    """Write a folder that PEFT loads as ``MULTITASK_PROMPT_TUNING``, with the prompts of all its tasks.

    ``SoftPrompt.load`` reads it again as this prompt.

    Raises:
        SoftstartError: the prompt has no tasks, or PEFT cannot place it.
    """
    if not multitask.has_tasks(prompt.further):
        raise SoftstartError(
            "the prompt has no prompts of source tasks: multitask prompt tuning did not learn it",
            where=str(folder),
            fix="Learn one: softstart meta-train --algorithm multitask_prompt.",
        )
    if not prompt.fits_peft:
        raise SoftstartError(
            f"a {prompt.placement} prompt cannot be a PEFT adapter: PEFT puts every prompt before the text",
            where=str(folder),
            fix="Train with placement: prefix.",
        )
    formats.write_tasks(folder, prompt.further, prompt._facts())


def made_on(backbone: Owner) -> dict[str, str]:
    """Facts of the backbone that a prompt records besides its name and digest, by field of ``SoftPrompt``."""
    return {
        "revision": backbone.revision or "",
        "tokenizer_digest": backbone.tokenizer_digest,
        "peft_task": backbone.peft_task,
        **({"weights": backbone.weights} if backbone.weights else {}),
    }


def _digest_of(backbone: Owner, wanted: str) -> str:
    """A backbone's digest; the one that is wanted, if it is that of the same weights in half precision."""
    return wanted if wanted not in ("", backbone.digest) and backbone.rounds_to(wanted) else backbone.digest


def _check_kind(kind: PromptKind, wanted: PromptKind, trained_on: str, backbone: str, where: str) -> None:
    if kind.name != wanted.name:
        raise SoftstartError(
            f"the prompt holds {kind.name} but is used as {wanted.name}",
            where=where,
            fix=f"Set kind: {kind.name} (in Python: prompt_kind of the backbone).",
        )
    if kind != wanted:
        raise SoftstartError(
            f"the prompt has {kind.shape} but backbone '{backbone}' takes {wanted.shape}",
            where=where,
            fix=f"It was trained for {trained_on}: use that one.",
        )


def _at(name: str, revision: str) -> str:
    return f"'{name}' at revision {revision}" if revision else f"'{name}'"
