"""T5 v1.0, v1.1, LM-adapted and Flan checkpoints, and mT5: encoder-decoders, prompt on the encoder side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from softstart.backbone import kernels, t5_compiled, t5_layers
from softstart.backbone.base import Backbone
from softstart.backbone.batch import IGNORE, Batch
from softstart.backbone.candidates import Tree, sets_of
from softstart.backbone.decoding import Decoding
from softstart.errors import SoftstartError


class T5Backbone(Backbone):
    """The T5 family (Raffel et al., 2020; LM adaptation: Lester et al., 2021).

    ``t5_layers`` runs forward passes and greedy decoding, unless some layers are quantized, offloaded, spread
    over devices or recomputed: transformers runs such a model. ``compile()`` lets torch compile the layers of
    first-order passes and the kernels of Hessian-vector products.
    """

    model_types: ClassVar[tuple[str, ...]] = ("t5", "mt5")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lean = _is_plain(self.model)
        self.compiled = False
        self._biases: dict[bool, tuple[int, Tensor]] = {}
        if self.lean:
            t5_layers.lay_out(self.model)

    def compile(self) -> None:
        """As ``Backbone.compile``; SoftstartError: not T5 v1.1, or layers that transformers runs."""
        if not self.lean:
            raise SoftstartError(
                "layers that are spread, offloaded or recomputed cannot be compiled",
                fix="Leave compile out, or device_map and gradient_checkpointing.",
            )
        t5_compiled.refuse(self.model)
        self.compiled = self.carries_tangents = True

    def encode(self, embeds: Tensor, mask: Tensor) -> Tensor:
        """Encoder output [B, P+S, d]."""
        encoder = self.model.encoder
        if self.lean:
            bias, settings = self._bias(encoder, mask.shape[1]), self._pass()
            states: Tensor = self._layers(settings).encode(encoder, embeds, mask, bias, settings)
            return states
        hidden: Tensor = encoder(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
        return hidden

    def logits(self, state: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Decoder logits [B, T, V] by teacher forcing."""
        if self.lean:
            return t5_layers.head(self.model, self._decode(state, mask, labels))
        shifted = self.model.prepare_decoder_input_ids_from_labels(labels)
        out: Tensor = self.model(
            encoder_outputs=(state,), attention_mask=mask, decoder_input_ids=shifted, use_cache=False
        ).logits
        return out

    def label_nll(self, state: Tensor, mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of the labels' NLL [B] and their counts [B]."""
        if not self.lean:
            return super().label_nll(state, mask, labels)
        sums = t5_layers.label_losses(self.model, self._decode(state, mask, labels), labels)
        return sums, (labels != IGNORE).sum(1)

    @torch.no_grad()
    def rank(
        self,
        prompts: Tensor,
        batch: Batch,
        candidates: Tensor,
        max_tokens: int | None = None,
        of: Tensor | None = None,
    ) -> Tensor:
        """As ``Backbone.rank``: candidates [L, C, T] → [B, C]; shared beginnings are read once for a row."""
        if not self.lean:
            return super().rank(prompts, batch, candidates, max_tokens, of)
        _, choices, length = candidates.shape
        sets, of = sets_of(candidates, of, max_tokens)
        scores = torch.full((len(batch), choices), -torch.inf, dtype=self.prompt_dtype, device=self.device)
        for rows, part in self.parts(batch, max_tokens, prompts.shape[1]):
            embeds, mask = self.place(prompts, part)
            states, text = self.encode(embeds, mask), mask.shape[1]
            for number in of[rows].unique().tolist():
                mine = (of[rows] == number).nonzero().squeeze(1)
                for tree in sets[number]:
                    bound = max_tokens or len(rows) * (len(tree) + text)
                    for some in mine.split(max(1, bound // (len(tree) + text))):
                        out = self._branches(states[some], mask[some], tree)
                        # The head is the widest layer: it takes as many positions as candidates one by one.
                        at_once = max(1, bound // text) * length // len(some)
                        values = tree.values_by(partial(t5_layers.head, self.model), out, max(1, at_once))
                        scores[rows[some][:, None], tree.columns] = tree.sums(values).to(scores.dtype)
        return scores

    def _branches(self, states: Tensor, mask: Tensor, tree: Tree) -> Tensor:
        """Decoder output [B, N, d] at each node of a tree, from encoder output [B, S, d]."""
        decoder, depths = self.model.decoder, tree.depths
        start = self.model.config.decoder_start_token_id
        ids = torch.cat((torch.full_like(tree.tokens[:1], start), tree.tokens[1:]))
        bias = self._bias(decoder, int(depths.max()) + 1)[:, :, depths[:, None], depths]
        bias = bias.masked_fill(~tree.sees, torch.finfo(bias.dtype).min)
        rows = ids.expand(len(states), -1)
        return t5_layers.decode(decoder, rows, states, mask, bias, self._pass())

    def generate_ids(self, embeds: Tensor, mask: Tensor, decoding: Decoding) -> Tensor:
        """Token ids [B, T]: greedy search by ``t5_layers``, beam search by transformers' ``generate``."""
        if self.lean and decoding.num_beams == 1 and _is_free(self.model.generation_config):
            return t5_layers.greedy(
                self.model,
                self.encode(embeds, mask),
                mask,
                self._bias(self.model.decoder, decoding.max_new_tokens),
                max_new_tokens=decoding.max_new_tokens,
                penalty=decoding.repetition_penalty,
            )
        from transformers.modeling_outputs import BaseModelOutput

        given: dict[str, Any] = {"inputs_embeds": embeds}
        if self.lean:
            given = {"encoder_outputs": BaseModelOutput(last_hidden_state=self.encode(embeds, mask))}
        ids: Tensor = self.model.generate(**given, attention_mask=mask, **decoding.arguments)
        return ids

    def parts(
        self, batch: Batch, max_tokens: int | None, extra: int, cost: int | None = None
    ) -> Iterator[tuple[Tensor, Batch]]:
        """As ``Backbone.parts``: positions [≤ B] and their rows.

        Where padding is left out, cutting by length saves nothing, so there is no ``cost``.
        """
        unpadded = self.lean and self.device.type == "cpu" and batch.seed is None
        yield from super().parts(batch, max_tokens, extra, None if unpadded else cost)

    def trainable_copy(self) -> Self:
        """As ``Backbone.trainable_copy``."""
        twin = super().trainable_copy()
        twin._biases, twin.compiled = {}, False
        return twin

    def rebuilt_copy(self, rebuild: Callable[[Any], None]) -> Self:
        """As ``Backbone.rebuilt_copy``; layers that are not T5's own are run by transformers."""
        twin = super().rebuilt_copy(rebuild)
        twin.lean = _is_plain(twin.model)
        return twin

    def _decode(self, state: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        decoder, settings = self.model.decoder, self._pass()
        shifted = self.model.prepare_decoder_input_ids_from_labels(labels)
        bias = self._bias(decoder, labels.shape[1])
        hidden: Tensor = self._layers(settings).decode(decoder, shifted, state, mask, bias, settings)
        return hidden

    def _layers(self, settings: t5_layers.Pass) -> Any:
        return t5_compiled if self.compiled and t5_compiled.serves(settings) else t5_layers

    def _pass(self) -> t5_layers.Pass:
        config = self.model.config
        return t5_layers.Pass(
            config.dropout_rate if self.model.training else 0.0,
            # Where a second derivative is needed, ``Backbone.nll`` allows only the math kernel.
            not torch.backends.cuda.flash_sdp_enabled(),
            config.dense_act_fn,
        )

    def _bias(self, stack: Any, length: int) -> Tensor:
        """The position bias [1, H, length, length], from a longer one that is kept.

        It depends on distances alone, so a long one contains all shorter ones.
        """
        table = stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight
        if table.requires_grad and torch.is_grad_enabled():
            return t5_layers.position_bias(stack, length)
        bias: Tensor
        version, bias = self._biases.get(stack.is_decoder, (-1, table))
        if version != table._version or bias.shape[-1] < length:
            with torch.no_grad():
                bias = t5_layers.position_bias(stack, math.ceil(length / 64) * 64)
            self._biases[stack.is_decoder] = (table._version, bias)
        part: Tensor = bias[:, :, :length, :length]
        return part


def _is_plain(model: Any) -> bool:
    """Whether every layer is transformers' own, unchanged."""
    from transformers import MT5ForConditionalGeneration, T5ForConditionalGeneration

    known = type(model) in (T5ForConditionalGeneration, MT5ForConditionalGeneration)
    # Hooks of accelerate and layer recomputation replace the ``forward`` of single modules.
    return known and all(
        "forward" not in vars(module)
        and (not isinstance(module, torch.nn.Linear) or type(module) is kernels.Linear)
        for module in model.modules()
    )


def _is_free(config: Any) -> bool:
    """Whether a generation configuration puts no constraint on greedy search."""
    rules = ("min_length", "min_new_tokens", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size")
    bans = ("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias")
    forced = ("forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty")
    ends = config.eos_token_id
    return isinstance(ends, int) and not any(getattr(config, name, None) for name in (*rules, *bans, *forced))
