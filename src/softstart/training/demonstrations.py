"""Rows with their answers as one sequence of tokens: read before a text, or turned into a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from softstart.training.encoding import Rows


def demonstrations(
    tokenizer: Any, pairs: Iterable[tuple[Sequence[int], Sequence[int]]], separator: str | None = None
) -> list[list[int]]:
    """Token ids of (text, answer) pairs, each a text, its answer and the separator.

    Args:
        tokenizer: that of the backbone.
        pairs: token ids of texts and answers, as prompts see them; what begins and ends them is left out.
        separator: the text between demonstrations; None, or where the tokenizer has no token for it (T5's):
            the end token.
    """
    ids = [] if separator is None else list(tokenizer(separator, add_special_tokens=False).input_ids)
    between = [tokenizer.eos_token_id] if not ids or tokenizer.unk_token_id in ids else ids
    return [[*_bare(tokenizer, text), *_bare(tokenizer, answer), *between] for text, answer in pairs]


def first_answers(rows: Rows) -> list[tuple[list[int], list[int]]]:
    """(text, first answer) of every row that has one."""
    return [(rows.inputs[i], rows.outputs[i][0]) for i in rows.trainable]


def _bare(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """Token ids without the tokens that begin and end a text."""
    frame = {getattr(tokenizer, f"{name}_token_id") for name in ("bos", "cls", "eos", "sep", "pad")}
    first = next((i for i, token in enumerate(ids) if token not in frame), len(ids))
    last = next((i for i in range(len(ids), first, -1) if ids[i - 1] not in frame), first)
    return list(ids[first:last])
