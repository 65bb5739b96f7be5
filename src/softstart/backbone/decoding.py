"""How outputs are generated, as every family is asked for it and as transformers' ``generate`` takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Decoding:
    """How outputs are generated: greedy for ``num_beams=1``, else beam search.

    ``max_new_tokens``, ``repetition_penalty`` and ``length_penalty`` are those of transformers' ``generate``.
    The published protocol used 4 beams, 128 new tokens, repetition penalty 2.5 and length penalty 1.0
    (Qin et al., 2023, released files).
    """

    num_beams: int = 1
    max_new_tokens: int = 32
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of transformers' ``generate``."""
        return {
            "do_sample": False,
            "num_beams": self.num_beams,
            "max_new_tokens": self.max_new_tokens,
            "repetition_penalty": self.repetition_penalty,
            "length_penalty": self.length_penalty,
            "early_stopping": self.num_beams > 1,
        }

    @property
    def arguments_after_embeddings(self) -> dict[str, Any]:
        """Arguments of ``generate`` for rows given as embeddings.

        transformers 5 then takes a row's padding for tokens that it has written and does not penalize the
        first ones it writes; the processor here knows of no padding.
        """
        from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

        penalty = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(self.repetition_penalty)])
        return {**self.arguments, "repetition_penalty": 1.0, "logits_processor": penalty}


def penalized(logits: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Logits or log-likelihoods [B, V], lower for tokens already written [B, t] (Keskar et al., 2019)."""
    if penalty == 1.0 or not ids.shape[1]:
        return logits
    seen = logits.gather(1, ids)
    return logits.scatter(1, ids, torch.where(seen < 0, seen * penalty, seen / penalty))


def plain_generation(model: Any, tokenizer: Any) -> None:
    """Drop everything a checkpoint says about generation except its special tokens.

    Checkpoints bring sampling temperatures, minimum lengths or forbidden n-grams of the task they were made
    for (BART's: no repeated trigram); ``generate`` would apply them silently.
    """
    from transformers import GenerationConfig

    given = model.generation_config
    tokens = ("bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_bos_token_id")
    kept = {name: value for name in tokens if (value := getattr(given, name, None)) is not None}
    kept.setdefault("eos_token_id", tokenizer.eos_token_id)
    start = getattr(model.config, "decoder_start_token_id", None)
    if start is not None:
        kept.setdefault("decoder_start_token_id", start)
    model.generation_config = GenerationConfig(**kept, pad_token_id=tokenizer.pad_token_id)
