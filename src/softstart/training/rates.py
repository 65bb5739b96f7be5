"""Learning rates that fit a backbone: absolute, or in units of a prompt's entries.

An adaptive optimizer (Adafactor, AdamW) moves every entry by about the learning rate. How far that is depends
on the size of what the backbone reads: entries of the embedded model are ten times those of SmolLM2, and the
keys and values of one layer are many times those of another.
"""

from __future__ import annotations

from typing import Literal
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from softstart.backbone import Backbone

LrUnit = Literal["absolute", "embedding"]

_SIZES: WeakKeyDictionary[nn.Module, dict[str, float | Tensor]] = WeakKeyDictionary()


def entry_size(backbone: Backbone) -> float | Tensor:
    """The root mean square of an entry of what prompts are made of, see ``PromptKind.unit``: one number, or
    one for each entry of a row [D].
    """
    sizes = _SIZES.setdefault(backbone.embedding, {})
    if backbone.prompt_kind not in sizes:
        sizes[backbone.prompt_kind] = backbone.kind.unit(backbone)
    return sizes[backbone.prompt_kind]


def scaled_rates(backbone: Backbone, unit: LrUnit, rates: Tensor) -> Tensor:
    """Learning rates in absolute numbers.

    Args:
        backbone: what is tuned for.
        unit: of the rates.
        rates: [R], or [R, P] where the rows of a prompt have different ones; float64.

    Returns:
        As given; [R, 1, D] or [R, P, D] where the entries of a row differ in size.
    """
    size = entry_size(backbone) if unit == "embedding" else 1.0
    if isinstance(size, Tensor):
        return rates.reshape(len(rates), -1, 1) * size.to(rates)
    return rates * size
