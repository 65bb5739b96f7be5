"""Inputs in a tokenizer's chat format: the text is the user's turn, the output is the assistant's.

``<|im_start|>user TEXT<|im_end|><|im_start|>assistant`` and then the label: an instruct model has learned to
answer there. The soft prompt goes before all of it (``prefix``: as in PEFT) or after the words that open the
assistant's turn, right before the label (``suffix``); never inside a turn.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from softstart.errors import SoftstartError

CHAT = "chat"
"""The template that is the tokenizer's own; ``chat:TEXT`` fills TEXT and makes it the user's turn."""

_MENTIONED: set[str] = set()
"""Backbones with a chat format that this process has warned of."""

_SLOT = "\x1asoftstart\x1a"


def chat_ids(tokenizer: Any, name: str, texts: Sequence[str], limit: int | None) -> list[list[int]]:
    """Token ids of the user's turns and of what opens the assistant's; turns are cut to fit ``limit``.

    The format brings the special tokens itself, once; the tokenizer adds none.

    Raises:
        SoftstartError: the tokenizer has no chat template, one that cannot be filled, or the format alone is
            longer than ``limit``.
    """
    before, after = _around(tokenizer, name)
    whole: list[list[int]] = tokenizer(
        [f"{before}{text}{after}" for text in texts], add_special_tokens=False, verbose=False
    ).input_ids
    if limit is None or all(len(ids) <= limit for ids in whole):
        return whole
    opening, closing = (tokenizer(part, add_special_tokens=False).input_ids for part in (before, after))
    room = limit - len(opening) - len(closing)
    if room < 1:
        raise SoftstartError(
            f"the chat format of backbone '{name}' takes {len(opening) + len(closing)} tokens of {limit}",
            fix="Raise max_input_tokens.",
        )
    cut = tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=room).input_ids
    return [
        ids if len(ids) <= limit else [*opening, *turn, *closing]
        for ids, turn in zip(whole, cut, strict=True)
    ]


def chat_text(tokenizer: Any, name: str, text: str) -> str:
    """The user's turn and what opens the assistant's, as one text.

    Raises:
        SoftstartError: the tokenizer has no chat template, or one that cannot be filled.
    """
    before, after = _around(tokenizer, name)
    return f"{before}{text}{after}"


def mention_chat(tokenizer: Any, name: str) -> None:
    """Warn once that a model with a chat format is used without it."""
    if not getattr(tokenizer, "chat_template", None) or name in _MENTIONED:
        return
    _MENTIONED.add(name)
    warnings.warn(
        f"backbone '{name}' has a chat format and is used without: template: chat (--chat) may fit it better",
        stacklevel=4,
    )


def _around(tokenizer: Any, name: str) -> tuple[str, str]:
    """What the format puts before and after the user's text."""
    if not getattr(tokenizer, "chat_template", None):
        raise SoftstartError(
            f"the tokenizer of backbone '{name}' has no chat template", fix="Use another template."
        )
    turn = [{"role": "user", "content": _SLOT}]
    try:
        filled: str = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    except Exception as problem:  # templates are programs of others
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise SoftstartError(
            f"the chat template of backbone '{name}' cannot be filled ({reason})", fix="Use another template."
        ) from problem
    before, slot, after = filled.partition(_SLOT)
    if not slot:
        raise SoftstartError(
            f"the chat template of backbone '{name}' leaves the text out", fix="Use another template."
        )
    return before, after
