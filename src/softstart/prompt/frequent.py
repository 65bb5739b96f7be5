"""Frequent words of a tokenizer: ordinary tokens by frequency, without what no text is written in."""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Any

_MARKUP = re.compile(r"[<>\[\]{}|\\]|unused|\ufffd|^\W*$")
"""Tags, placeholders, unused entries, parts of characters, and tokens without a letter or a digit."""


def frequent_words(tokenizer: Any, top: int) -> list[int]:
    """The ``top`` most frequent token ids that are words or parts of words.

    Left out are special and added tokens, bytes, unused entries, markup, and tokens without a letter or a
    digit. The order is that of merges (BPE), of scores (Unigram), else of the ids: tokenizers learn what is
    frequent first.

    Args:
        tokenizer: a fast tokenizer of transformers.
        top: how many.
    """
    added = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    ranks = _ranks(tokenizer)
    order = sorted(range(len(tokens)), key=lambda i: (ranks.get(tokens[i], len(tokens)), i))
    words = (i for i in order if i not in added and tokens[i] and _is_word(tokenizer, tokens[i]))
    return list(islice(words, top))


def _is_word(tokenizer: Any, token: str) -> bool:
    # A character that begins no word is a byte of the alphabet that longer tokens are made of.
    return len(token) > 1 and not _MARKUP.search(tokenizer.convert_tokens_to_string([token]))


def _ranks(tokenizer: Any) -> dict[str, int]:
    """Token → its place by frequency; empty where the ids are the order."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    model = json.loads(backend.to_str())["model"] if backend is not None else {}
    if model.get("type") == "BPE":
        pairs = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"]]
        ranks: dict[str, int] = {}
        for place, (left, right) in enumerate(pairs):
            ranks.setdefault(left + right, place)
        return ranks
    if model.get("type") == "Unigram":
        by_score = sorted(range(len(model["vocab"])), key=lambda i: -model["vocab"][i][1])
        return {model["vocab"][i][0]: place for place, i in enumerate(by_score)}
    return {}
