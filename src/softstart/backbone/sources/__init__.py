"""Where a backbone's files come from: a name we know, a GGUF file, a folder, the hub."""

from __future__ import annotations

from softstart.backbone.sources.locate import Located, locate
from softstart.backbone.sources.named import NAMED, NamedBackbone, State, fetch, state_of

__all__ = ["NAMED", "Located", "NamedBackbone", "State", "fetch", "locate", "state_of"]
