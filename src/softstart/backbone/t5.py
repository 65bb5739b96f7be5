"""T5 v1.0, v1.1, LM-adapted and Flan checkpoints, and mT5: encoder-decoder, prompt on the encoder side."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from softstart.backbone.base import Backbone, Decoding


class T5Backbone(Backbone):
    """The T5 family (Raffel et al., 2020; LM adaptation: Lester et al., 2021)."""

    model_types: ClassVar[tuple[str, ...]] = ("t5", "mt5")

    def encode(self, embeds: Tensor, mask: Tensor) -> Tensor:
        """Encoder output [B, P+S, d]."""
        hidden: Tensor = self.model.encoder(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
        return hidden

    def logits(self, state: Any, mask: Tensor, labels: Tensor) -> Tensor:
        """Decoder logits [B, T, V] by teacher forcing."""
        shifted = self.model.prepare_decoder_input_ids_from_labels(labels)
        out: Tensor = self.model(
            encoder_outputs=(state,), attention_mask=mask, decoder_input_ids=shifted, use_cache=False
        ).logits
        return out

    def repeat_state(self, state: Any, times: int) -> Any:
        """Repeat encoder rows."""
        return state.repeat_interleave(times, 0)

    def generate_ids(self, embeds: Tensor, mask: Tensor, decoding: Decoding) -> Tensor:
        """Greedy or beam search by transformers' own ``generate``."""
        ids: Tensor = self.model.generate(
            inputs_embeds=embeds,
            attention_mask=mask,
            do_sample=False,
            num_beams=decoding.num_beams,
            max_new_tokens=decoding.max_new_tokens,
            repetition_penalty=decoding.repetition_penalty,
            length_penalty=decoding.length_penalty,
            early_stopping=decoding.num_beams > 1,
        )
        return ids
