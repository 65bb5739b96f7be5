"""Frozen backbones: one class a model family, one way to load them all."""

from __future__ import annotations

from softstart.backbone.base import FAMILIES, Backbone
from softstart.backbone.batch import IGNORE, Batch, candidates_tensor, collate
from softstart.backbone.causal import CausalBackbone
from softstart.backbone.decoding import Decoding
from softstart.backbone.devices import prefer_device
from softstart.backbone.frozen import FrozenModel
from softstart.backbone.loading import TINY, load_backbone
from softstart.backbone.seq2seq import Seq2SeqBackbone
from softstart.backbone.t5 import T5Backbone

__all__ = [
    "FAMILIES",
    "IGNORE",
    "TINY",
    "Backbone",
    "Batch",
    "CausalBackbone",
    "Decoding",
    "FrozenModel",
    "Seq2SeqBackbone",
    "T5Backbone",
    "candidates_tensor",
    "collate",
    "load_backbone",
    "prefer_device",
]

Backbone.from_pretrained = staticmethod(load_backbone)
