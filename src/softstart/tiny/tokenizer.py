"""The tokenizer of the tiny model: whole words of the world, single bytes for everything else.

A Unigram model over the byte-level alphabet whose vocabulary we write ourselves, so that any UTF-8 text
survives encoding and decoding, and every word of the world is one token. Words come first, most frequent
first, because prompts are initialized from frequent tokens.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from softstart.tiny.corpus import word_counts
from softstart.tiny.world import World

SPECIALS = ("<pad>", "</s>", "<unk>")
SENTINELS = tuple(f"<extra_id_{i}>" for i in range(32))
_SPACE = "Ġ"  # the byte-level image of a space


def vocabulary(w: World, counts: Counter[str]) -> list[tuple[str, float]]:
    """Pieces with scores: specials, words by frequency, bytes, sentinels."""
    frequent = {x for x, n in counts.items() if n >= 20 and (len(x) > 1 or x in "ai")}
    words = sorted(frequent | set(w.words), key=lambda x: (-counts[x], x))
    total = sum(counts.values())
    pieces = [(token, 0.0) for token in SPECIALS]
    pieces += [(_SPACE + x, math.log((counts[x] + 1) / total)) for x in words]
    pieces += [(byte, -30.0) for byte in sorted(pre_tokenizers.ByteLevel.alphabet())]
    return pieces


def build(w: World, seed: int = 0, documents: int = 20_000) -> Tokenizer:
    """Build the tokenizer from the words of the world and their frequency in the corpus."""
    tokenizer = Tokenizer(
        models.Unigram(vocabulary(w, word_counts(w, seed, documents)), unk_id=2, byte_fallback=False)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*SPECIALS, *SENTINELS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` for ``AutoTokenizer.from_pretrained``."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": 512,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
