"""The frozen language model as other rooms see it: prompts and token batches in, losses and text out."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from softstart.backbone import tangents
from softstart.backbone.batch import IGNORE, Batch
from softstart.backbone.decoding import Decoding
from softstart.backbone.flops import Flops, Multiplications, multiplications_of
from softstart.backbone.frozen import FrozenModel
from softstart.backbone.quantization import refuse_second_order
from softstart.errors import SoftstartError
from softstart.prompt.kinds import KINDS
from softstart.prompt.placement import find_placement, join_shown
from softstart.registry import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Reader = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(indices of rows [N], their labels [N, T]) → (sums of NLL [N], counts [N]), for texts already read."""


class Loader(Protocol):
    """The type of ``Backbone.from_pretrained``."""

    def __call__(
        self,
        name_or_path: str,
        *,
        dtype: str = ...,
        device: str | None = ...,
        revision: str | None = ...,
        placement: str = ...,
        prompt_kind: str = ...,
        device_map: str | dict[str, Any] | None = ...,
        gradient_checkpointing: bool = ...,
        compile: bool = ...,
        weights: bool = ...,
    ) -> Backbone:
        """A frozen backbone of the right family."""


class Backbone(FrozenModel, ABC):
    """A frozen pretrained language model that takes stacked soft prompts.

    Rows of a batch do not interact and no weight is trained, so one forward pass carries the prompts of many
    runs: row b uses ``prompts[batch.run[b]]``. A model family is one subclass that states what it is and how
    embeddings become logits; everything else is here. ``from_pretrained`` loads any family.

    Args:
        model: as in ``FrozenModel``.
        tokenizer: as in ``FrozenModel``.
        name: as in ``FrozenModel``.
        placement: where the prompt goes, a name of ``softstart.prompt.PLACEMENTS``; SoftstartError for any
            other, and for one that does not work for a causal model.
    """

    # What a family states: here, and in the three methods below.

    model_types: ClassVar[tuple[str, ...]] = ()
    """``config.model_type`` values of the family."""
    peft_task: ClassVar[str] = "SEQ_2_SEQ_LM"
    """PEFT's name for this kind of model."""
    continues_input: ClassVar[bool] = False
    """Whether outputs continue their inputs in one sequence, as in a causal model. Such an output begins with
    a space and without special tokens, and ends with the end token (``softstart.training.encoding``)."""

    from_pretrained: ClassVar[Loader]
    """Load a backbone by name or path: ``softstart.backbone.load_backbone``. The package sets it, because
    loading knows every family and every family knows this class."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str = "model",
        placement: str = "prefix",
    ) -> None:
        super().__init__(model, tokenizer, name)
        self.placement = placement

    @abstractmethod
    def encode(self, embeds: Tensor, mask: Tensor) -> Tensor:
        """Everything that depends on the text alone: [B, S, d] → state [B, …]."""

    @abstractmethod
    def logits(self, state: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Next-token logits for every label position: labels [B, T] → [B, T, V]."""

    @abstractmethod
    def generate_ids(self, embeds: Tensor, mask: Tensor, decoding: Decoding) -> Tensor:
        """Generated token ids [B, ≤ max_new_tokens], without the text."""

    def compile(self) -> None:
        """Let torch compile what the family has for it (layers, kernels); SoftstartError: nothing."""
        raise SoftstartError(f"'{self.name}' has nothing that torch can compile", fix="Leave compile out.")

    @property
    def placement(self) -> str:
        """The name of the placement: where the prompt goes."""
        return self._placement

    @placement.setter
    def placement(self, name: str) -> None:
        self.kind.check_placement(name)
        self._place, self._placement = find_placement(name, causal=self.continues_input), name

    @property
    def prompt_kind(self) -> str:
        """What prompts are made of, a name of ``softstart.prompt.KINDS``; setting one that does not work for
        this model or placement is a SoftstartError. ``kind`` is the kind on this backbone."""
        return self.kind.name

    @prompt_kind.setter
    def prompt_kind(self, name: str) -> None:
        kind = KINDS.find(name).of(self)
        kind.check_placement(self.placement)
        self.kind = kind

    @property
    def rows_interact(self) -> bool:
        """Whether the placement makes a row's numbers depend on its neighbors; then runs go one at a time."""
        return self._place.rows_interact

    @contextlib.contextmanager
    def sharing(self, prompts: Tensor, batch: Batch, *, twice: bool = False) -> Iterator[list[Tensor] | None]:
        """Compute what the rows of a batch need of prompts [R, P, d] once, for all ``nll`` of the block.

        Gives the tensors with their graph; ``nll`` under the same prompts reads the list, whose items may be
        replaced. None: rows share nothing. SoftstartError as ``nll``.
        """
        yield None

    def nll(
        self, prompts: Tensor, batch: Batch, *, seed: int | None = None, twice: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood of the labels, each row under the prompt of its run.

        Sums and counts, not means, so that a run's loss does not depend on how its rows are grouped.

        Args:
            prompts: [R, P, d]; P = 0 means no prompt.
            batch: token rows, ``batch.run`` in 0..R-1.
            seed: dropout seed; the same seed, batch and prompts replay the same masks. None: no dropout.
            twice: make the result differentiable twice (fused attention kernels have no double backward).

        Returns:
            (sums of NLL in nats [B], label-token counts [B]); SoftstartError: a prompt that does not fit.
        """
        with self.dropout(seed), _kernels(twice, self.name, self.quantization):
            embeds, mask = self.place(prompts, batch)
            return self.label_nll(self.encode(embeds, mask), mask, batch.labels)

    def label_nll(self, state: Tensor, mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of the labels' NLL [B] and their counts [B], from the state that ``encode`` returned."""
        return summed_nll(self.logits(state, mask, labels), labels)

    def reader(self, embeds: Tensor, mask: Tensor) -> Reader:
        """Read texts [B, S, d] once. The result is ``label_nll`` of any row indices [N] and labels [N, T]."""
        state = self.encode(embeds, mask)
        return lambda rows, labels: self.label_nll(state[rows], mask[rows], labels)

    @torch.no_grad()
    def generate(
        self, prompts: Tensor, batch: Batch, decoding: Decoding, max_tokens: int | None = None
    ) -> list[str]:
        """B outputs in row order, each row under its prompt of [R, P, d]; SoftstartError as ``nll``."""
        texts = [""] * len(batch)
        for rows, part in self.parts(batch, max_tokens, prompts.shape[1]):
            ids = self.part_ids(prompts, part, decoding)
            decoded = self.tokenizer.batch_decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            for row, text in zip(rows.tolist(), decoded, strict=True):
                texts[row] = text
        return texts

    def part_ids(self, prompts: Tensor, part: Batch, decoding: Decoding) -> Tensor:
        """Token ids [B, ≤ max_new_tokens] for the rows of one pass; SoftstartError as ``nll``."""
        return self.generate_ids(*self.place(prompts, part), decoding)

    @torch.no_grad()
    def rank(
        self,
        prompts: Tensor,
        batch: Batch,
        candidates: Tensor,
        max_tokens: int | None = None,
        of: Tensor | None = None,
    ) -> Tensor:
        """Log-likelihood of each candidate output of each row; a text is read once for all its candidates.

        Args:
            prompts: [R, P, d].
            batch: token rows; their labels are not used.
            candidates: [L, C, T] token ids, ``IGNORE`` on padding; a candidate without tokens ranks last.
            max_tokens: as in ``Batch.micro_batches``, where a text counts once for each candidate.
            of: [B] which of the L sets of candidates each row has; None: row b has set b.

        Returns:
            [B, C] summed log-likelihoods (nats), -inf where there are no tokens; SoftstartError as ``nll``.
        """
        size = (len(batch), candidates.shape[1])
        scores = torch.empty(size, dtype=self.prompt_dtype, device=self.device)
        for rows, part in self.parts(batch, max_tokens, prompts.shape[1]):
            embeds, mask = self.place(prompts, part)
            at_once = None if max_tokens is None else max(1, max_tokens // mask.shape[1])
            mine = candidates[rows if of is None else of[rows]]
            scores[rows] = _likelihoods(self.reader(embeds, mask), mine, at_once)
        return scores

    @torch.no_grad()
    def features(self, batch: Batch, max_tokens: int | None = None) -> Tensor:
        """What the backbone makes of texts: the mean of the last hidden states, [B, d]."""
        none = torch.zeros(1, 0, self.width, dtype=self.prompt_dtype, device=self.device)
        means = torch.empty(len(batch), self.width, dtype=self.prompt_dtype, device=self.device)
        for rows, part in self.parts(batch, max_tokens, 0):
            embeds, mask = self.place(none, replace(part, run=torch.zeros_like(part.run)))
            states, weights = self.hidden(embeds, mask), mask[..., None].to(self.prompt_dtype)
            means[rows] = (states.to(self.prompt_dtype) * weights).sum(1) / weights.sum(1).clamp_min(1)
        return means

    def hidden(self, embeds: Tensor, mask: Tensor) -> Tensor:
        """The last hidden states [B, S, d] of texts, those of the encoder where there is one."""
        if not self.continues_input:
            return self.encode(embeds, mask)
        # No token sees the padding after it.
        states: Tensor = self.model.base_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        return states

    def parts(
        self, batch: Batch, max_tokens: int | None, extra: int, cost: int | None = None
    ) -> Iterator[tuple[Tensor, Batch]]:
        """Cut a batch for forward passes: positions [≤ B] and their rows (see ``Batch.micro_batches``)."""
        # If rows interact, the placement says how many are padded together, in order.
        if self._place.padded_together is None:
            yield from batch.micro_batches(max_tokens, extra, cost)
            return
        for rows in torch.arange(len(batch), device=batch.run.device).split(self._place.padded_together):
            yield rows, batch.select(rows)

    def prompted_flops(self, length: int, text: float, output: float) -> Flops:
        """Model FLOPs of one row read as a whole: a prompt of P = ``length`` rows, a text and an output."""
        read = self.kind.read_rows(length)
        return self.row_flops(read + text, output, before=length - read)

    def row_flops(self, text: float, output: float, before: float = 0) -> Flops:
        """Model FLOPs of one row of ``text`` tokens, prompt included, and ``output`` label tokens, which may
        attend to tokens read ``before`` (in a causal model).
        """
        return self._multiplications.row(text, output, before)

    @cached_property
    def _multiplications(self) -> Multiplications:
        return multiplications_of(self.model)

    def whole_rows(self, batch: Batch, prompt_length: int) -> list[tuple[int, Flops]]:
        """(tokens, FLOPs) of a forward pass of each row [B] read as a whole, its padding not counted."""
        texts, prompts = batch.attention_mask.sum(1).tolist(), batch.prompt_lengths(prompt_length).tolist()
        outputs = (batch.labels != IGNORE).sum(1).tolist()
        return [
            (self.kind.read_rows(p) + s + t, self.prompted_flops(p, s, t))
            for p, s, t in zip(prompts, texts, outputs, strict=True)
        ]

    def computed_rows(self, batch: Batch, prompt_length: int) -> list[tuple[int, Flops]]:
        """As ``whole_rows``, without what is read once; the first row of a run counts what its rows share."""
        return self.whole_rows(batch, prompt_length)

    def keep_texts(self, mib: int | None, processes: int = 1) -> None:
        """Bound the memory for texts that have been read, where the family keeps any (causal models).

        Args:
            mib: of this process; 0 keeps none; None: by the environment, else an equal share of a quarter of
                the free memory.
            processes: how many share the memory.
        """

    @property
    def text_tokens_read(self) -> int:
        """Tokens of texts read so far to be kept for all later passes (``text_cache``); most families: 0."""
        return 0

    def place(self, prompts: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Embeddings [B, P+S, d] of text and prompts, and mask [B, P+S]; SoftstartError as ``nll``."""
        self.check_width(prompts)
        self.check_window(prompts.shape[1] + batch.input_ids.shape[1])
        text = self.embedding(batch.input_ids)
        # index_select, not indexing: its backward adds in a fixed order, so threads do not change the bits.
        rows = prompts.index_select(0, batch.run).to(text.dtype)
        return join_shown(self._place, rows, batch.hidden, text, batch.attention_mask)


def _kernels(twice: bool, name: str, quantization: str | None) -> contextlib.AbstractContextManager[Any]:
    if twice:
        refuse_second_order(name, quantization)
    return sdpa_kernel(SDPBackend.MATH) if twice else contextlib.nullcontext()


def _likelihoods(label_nll: Reader, candidates: Tensor, at_once: int | None) -> Tensor:
    """Log-likelihoods [b, C] of candidates [b, C, T], ``at_once`` of them in one forward pass."""
    choices, labels = candidates.shape[1], candidates.flatten(0, 1)
    parts = []
    # Pair i is row i // C with its candidate i % C.
    for pairs in torch.arange(len(labels), device=labels.device).split(at_once or len(labels)):
        sums, counts = label_nll(pairs // choices, labels[pairs])
        parts.append(torch.where(counts > 0, -sums, -torch.inf))
    return torch.cat(parts).view(-1, choices)


def summed_nll(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the labels' NLL [B] and their counts [B]: logits [B, T, V], labels [B, T]."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return token_nll(logits, labels).sum(1), (labels >= 0).sum(1)


def token_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """The NLL of every label [B, T], 0 on padding: logits [B, T, V], labels [B, T]."""
    # Over the last axis: over any other one torch adds up a large vocabulary one by one, which costs digits.
    losses = tangents.cross_entropy(logits.flatten(0, 1), labels.flatten())
    return losses.view(labels.shape)


FAMILIES: Registry[type[Backbone]] = Registry("backbone family")
"""Model families by name: a subclass of ``Backbone`` with its ``model_types``. If two claim a model type, the
one registered later is used."""
