"""Learning rates that fit a backbone: absolute, or in units of its embedding's entries.

An adaptive optimizer (Adafactor, AdamW) moves every entry by about the learning rate. How far that is depends
on the size of what the backbone reads: entries of the embedded model are ten times those of SmolLM2.
"""

from __future__ import annotations

from typing import Literal
from weakref import WeakKeyDictionary

from torch import nn

from softstart.backbone import Backbone

LrUnit = Literal["absolute", "embedding"]

_SIZES: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()


def embedding_size(backbone: Backbone) -> float:
    """The root mean square of an entry of the embedding as the layers see it: the median over tokens."""
    table = backbone.embedding
    if table not in _SIZES:
        _SIZES[table] = float(backbone.vocabulary.float().square().mean(1).sqrt().median())
    return _SIZES[table]


def lr_scale(backbone: Backbone, unit: LrUnit) -> float:
    """What a learning rate is multiplied by."""
    return embedding_size(backbone) if unit == "embedding" else 1.0
