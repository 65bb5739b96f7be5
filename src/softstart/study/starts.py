"""Where prompts start before anything is learned."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from softstart.backbone import Backbone
from softstart.encoding import rng_for
from softstart.prompt import Initializer, gaussian, ordinary_tokens, task_names, vocabulary
from softstart.study.spec import PromptSpec


def draw_start(backbone: Backbone, spec: PromptSpec, names: Sequence[str], *key: int) -> Tensor:
    """The unlearned start [P, d] of a run or a meta-training.

    Args:
        backbone: whose vocabulary it is drawn from.
        spec: kind and length.
        names: task names, for the ``task_names`` start: the target task, or all source tasks.
        key: seeds; equal keys give equal starts.
    """
    generator = torch.Generator().manual_seed(int(rng_for(*key, 3).integers(2**31)))
    return initializer(backbone, spec, names)(spec.length, generator).to(torch.float32).cpu()


def initializer(backbone: Backbone, spec: PromptSpec, names: Sequence[str]) -> Initializer:
    """The initializer a study names."""
    table = backbone.vocabulary
    if spec.init == "gaussian":
        return gaussian(backbone.width)
    frequent = vocabulary(table, ordinary_tokens(backbone.tokenizer, spec.top))
    if spec.init == "vocabulary":
        return frequent
    words = [re.sub("[_-]+", " ", name) for name in names]
    return task_names(table, backbone.tokenizer(words, add_special_tokens=False).input_ids, frequent)
