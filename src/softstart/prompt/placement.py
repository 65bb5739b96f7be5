"""Where the soft prompt goes: one registered ``Placement`` each.

A placement joins the prompts of the rows [B, P, d] to right-padded text embeddings [B, S, d] with their mask
[B, S]. ``prefix`` and ``suffix`` keep a row's numbers independent of its padding, so rows of any length can
share a batch; ``after_padding`` does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from softstart.errors import SoftstartError
from softstart.registry import Registry

Join = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(prompts [B, P, d], text [B, S, d], mask [B, S]) → (embeddings [B, P+S, d], mask [B, P+S])."""


@dataclass(frozen=True)
class Placement:
    """Where the soft prompt goes, and what follows from it.

    Args:
        join: joins prompts [B, P, d] and text [B, S, d] with its mask [B, S].
        label: the place in words, for tables and reports.
        padded_together: how many rows of a batch, in order, share a forward pass and its padding; None: a
            row's numbers do not depend on its neighbors, so rows are grouped as is cheapest.
        causal: whether a causal model can continue from where the joined row ends; False where padding can
            stand before its end.
        peft: whether PEFT's prompt tuning puts prompts there, so that they can be saved as its adapters.
        first: what a row of a causal model begins with, ``"prompt"`` or ``"text"``: it does not depend on
            what follows, so it can be read once for many rows. None: rows are read as a whole.
    """

    join: Join
    label: str
    padded_together: int | None = None
    causal: bool = True
    peft: bool = False
    first: Literal["prompt", "text"] | None = None

    @property
    def rows_interact(self) -> bool:
        """Whether a row's numbers depend on its neighbors: then one run at a time, and never in a pack."""
        return self.padded_together is not None


def find_placement(name: str, *, causal: bool) -> Placement:
    """The placement of a name or an import path.

    Raises:
        SoftstartError: there is none, or it does not work for a ``causal`` model.
    """
    place = PLACEMENTS.find(name)
    if causal and not place.causal:
        raise SoftstartError(
            f"placement '{name}' does not work for a causal model, whose output continues its input",
            fix=f"Use one of {', '.join(name for name, place in PLACEMENTS.items() if place.causal)}.",
        )
    return place


def registered_placement(name: str) -> str:
    """The placement that a prompt's file names, if it is registered: a file must not name code to import.

    Raises:
        SoftstartError: it is not.
    """
    if name not in PLACEMENTS:
        raise SoftstartError(
            f"the prompt was trained under placement '{name}', which is not registered",
            fix="Load it in Python, after importing the module that defines this placement.",
        )
    return name


def peft_places(name: str) -> bool:
    """Whether PEFT puts prompts where this placement does; False for one that is not registered.

    The name may come from a file: it is never imported.
    """
    return name in PLACEMENTS and PLACEMENTS[name].peft


def prefix(prompts: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """``[prompt | text | padding]``: the placement of Lester et al. (2021) and of PEFT.

    Args:
        prompts: [B, P, d].
        text: [B, S, d].
        mask: [B, S].

    Returns:
        (embeddings [B, P+S, d], mask [B, P+S]).
    """
    ones = mask.new_ones(prompts.shape[:2])
    return torch.cat((prompts, text), 1), torch.cat((ones, mask), 1)


def suffix(prompts: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """``[text | prompt | padding]``: after the text as in MPT (Qin et al., 2023), but before its padding.

    Args:
        prompts: [B, P, d].
        text: [B, S, d].
        mask: [B, S].

    Returns:
        (embeddings [B, P+S, d], mask [B, P+S]).
    """
    (rows, length, width), size = text.shape, prompts.shape[1]
    texts = mask.sum(1, keepdim=True)  # [B, 1] text lengths
    place = torch.arange(length + size, device=text.device).expand(rows, -1)
    # Every place of the result takes its vector from [text with padding | prompt]: first the text, then the
    # prompt, which begins at column S there, then the padding, which the prompt has pushed P places on.
    source = torch.where(
        place < texts, place, torch.where(place < texts + size, place - texts + length, place - size)
    )
    joined = torch.cat((text, prompts), 1).gather(1, source[..., None].expand(-1, -1, width))
    return joined, (place < texts + size).to(mask.dtype)


def after_padding(prompts: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """``[text | padding | prompt]``: MPT to the letter (Qin et al., 2023, released files).

    How far the prompt is from the text, and with it every number, depends on the longest row of the batch.

    Args:
        prompts: [B, P, d].
        text: [B, S, d].
        mask: [B, S].

    Returns:
        (embeddings [B, P+S, d], mask [B, P+S]).
    """
    ones = mask.new_ones(prompts.shape[:2])
    return torch.cat((text, prompts), 1), torch.cat((mask, ones), 1)


def join_shown(
    place: Placement, prompts: Tensor, hidden: Tensor | None, text: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """What ``place.join`` gives without the prompt rows that are ``hidden`` from a row.

    Rows close up, so each is what it would be under the shorter prompt. A row that is hidden gets no
    gradient from it.

    Args:
        place: where the prompts go.
        prompts: [B, P, d].
        hidden: [B, P], True where a prompt row is left out; None: nowhere.
        text: [B, S, d].
        mask: [B, S].

    Returns:
        (embeddings [B, ≤ P+S, d], mask of the same length).

    Raises:
        SoftstartError: a placement under which rows interact: its padding has to stay where it is.
    """
    if hidden is None:
        return place.join(prompts, text, mask)
    if place.rows_interact:
        raise SoftstartError(
            f"no prompt row can be hidden where the prompt goes {place.label}", fix="Set placement: suffix."
        )
    embeds, there = place.join(prompts, text, mask)
    # To a placement, flags are embeddings of width 1: it takes them to where the vectors went.
    flags, _ = place.join((~hidden)[..., None].to(mask.dtype), mask[..., None], mask)
    shown = there * flags[..., 0]
    order = torch.argsort(shown, dim=1, descending=True, stable=True)[:, : int(shown.sum(1).max())]
    return embeds.gather(1, order[..., None].expand(-1, -1, embeds.shape[2])), shown.gather(1, order)


PLACEMENTS: Registry[Placement] = Registry("placement", accepts=lambda entry: isinstance(entry, Placement))
"""Placements by name, as ``prompt.placement`` of a study and ``Backbone.placement`` name them."""

PLACEMENTS.add("prefix", Placement(prefix, "before the text", peft=True, first="prompt"))
PLACEMENTS.add("suffix", Placement(suffix, "after the text", first="text"))
# 16 rows: an evaluation batch of the published protocol.
PLACEMENTS.add(
    "after_padding",
    Placement(after_padding, "after the text and its padding", padded_together=16, causal=False),
)
