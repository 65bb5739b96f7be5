"""Encoder-decoder language models of any family, with the prompt on the encoder side."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from softstart.backbone.base import Backbone
from softstart.backbone.decoding import Decoding, plain_generation


class Seq2SeqBackbone(Backbone):
    """BART, mBART, PEGASUS, UMT5 and similar families; T5 and mT5 have their own class."""

    model_types: ClassVar[tuple[str, ...]] = ("bart", "mbart", "pegasus", "umt5")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        plain_generation(self.model, self.tokenizer)

    def encode(self, embeds: Tensor, mask: Tensor) -> Tensor:
        """Encoder output [B, P+S, d]."""
        encoder = self.model.get_encoder()
        hidden: Tensor = encoder(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
        return hidden

    def logits(self, state: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Decoder logits [B, T, V] by teacher forcing."""
        # mBART looks for the last token of every row, so a row without tokens (a missing candidate) gets one.
        empty = (labels < 0).all(1)
        labels = labels.clone()
        labels[empty, 0] = self.tokenizer.eos_token_id
        shifted = self.model.prepare_decoder_input_ids_from_labels(labels)
        out: Tensor = self.model(
            encoder_outputs=(state,), attention_mask=mask, decoder_input_ids=shifted, use_cache=False
        ).logits
        return out.to(labels.device)

    def generate_ids(self, embeds: Tensor, mask: Tensor, decoding: Decoding) -> Tensor:
        """Token ids [B, T] by transformers' ``generate``, greedy or with beams."""
        ids: Tensor = self.model.generate(inputs_embeds=embeds, attention_mask=mask, **decoding.arguments)
        return ids
