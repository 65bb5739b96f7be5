"""Where the soft prompt goes: one small function a placement.

Every function joins the prompts of the rows [B, P, d] to right-padded text embeddings [B, S, d] with mask
[B, S] and returns embeddings [B, P+S, d] and mask [B, P+S]. ``prefix`` and ``suffix`` keep a row's numbers
independent of its padding, so rows of any length can share a batch; ``after_padding`` does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Placement = Literal["prefix", "suffix", "after_padding"]
AFTER_PADDING = "after_padding"
PADDED_TOGETHER = 16
"""Rows padded together there: an evaluation batch of the published protocol."""


def prefix(prompts: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """``[prompt | text | padding]``: the placement of Lester et al. (2021) and of PEFT."""
    ones = mask.new_ones(prompts.shape[:2])
    return torch.cat((prompts, text), 1), torch.cat((ones, mask), 1)


def suffix(prompts: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """``[text | prompt | padding]``: after the text as in MPT (Qin et al., 2023), but before its padding."""
    (rows, length, width), size = text.shape, prompts.shape[1]
    texts = mask.sum(1, keepdim=True)  # [B, 1] text length
    place = torch.arange(length + size, device=text.device).expand(rows, -1)
    source = torch.where(
        place < texts, place, torch.where(place < texts + size, place - texts + length, place - size)
    )
    joined = torch.cat((text, prompts), 1).gather(1, source[..., None].expand(-1, -1, width))
    return joined, (place < texts + size).to(mask.dtype)


def after_padding(prompts: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """``[text | padding | prompt]``: MPT to the letter (Qin et al., 2023, released files).

    How far the prompt lies from the text, and with it every number, depends on the longest row of the batch:
    only for one run at a time.
    """
    ones = mask.new_ones(prompts.shape[:2])
    return torch.cat((text, prompts), 1), torch.cat((mask, ones), 1)


PLACEMENTS: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "prefix": prefix,
    "suffix": suffix,
    AFTER_PADDING: after_padding,
}
