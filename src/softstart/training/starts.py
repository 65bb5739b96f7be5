"""Where prompts start before anything is learned."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import torch
from torch import Tensor

from softstart.backbone import Backbone
from softstart.errors import SoftstartError
from softstart.prompt import Initializer, gaussian, ordinary_tokens, task_names, vocabulary
from softstart.training.configs import PromptSpec
from softstart.training.encoding import rng_for


def draw_start(
    backbone: Backbone, spec: PromptSpec, names: Sequence[str], *key: int, draw: int = 0
) -> Tensor:
    """The unlearned start [P, d] of a run or a meta-training.

    Args:
        backbone: whose vocabulary it is drawn from.
        spec: kind and length.
        names: task names, for the ``task_names`` start: the target task, or all source tasks.
        key: seeds: of the study, and of a run's sample; equal keys give equal starts.
        draw: which start of its seed a run has, where every run has one of its own.
    """
    rest = None
    if spec.draw_per == "seed":
        key = key[:1]
    if spec.frequent == "c4":
        # As published: one generator for all runs of a grid, seeded once.
        seed = key[0] if spec.draw_per == "run" else seeded(*key).initial_seed()
        rest = _published(backbone, spec.top, seed, draw)
    elif spec.draw_per == "run":
        key = (*key, draw)
    return initializer(backbone, spec, names, rest)(spec.length, seeded(*key)).to(torch.float32).cpu()


def seeded(*key: int) -> torch.Generator:
    """What a start is drawn with: equal keys give equal starts."""
    return torch.Generator().manual_seed(int(rng_for(*key, 3).integers(2**31)))


def initializer(
    backbone: Backbone, spec: PromptSpec, names: Sequence[str], rest: Initializer | None = None
) -> Initializer:
    """The initializer a study names; ``rest`` draws frequent words in its own way."""
    table = backbone.vocabulary
    if spec.init == "gaussian":
        return gaussian(backbone.width)
    frequent = rest or vocabulary(table, ordinary_tokens(backbone.tokenizer, spec.top))
    if spec.init == "vocabulary":
        return frequent
    return task_names(table, words_of(backbone.tokenizer, names), frequent)


def c4_tokens(top: int) -> list[int]:
    """The most frequent tokens of T5's vocabulary in C4, in order of their count (released files).

    Raises:
        SoftstartError: more than the 5,000 that are known.
    """
    text = resources.files(__package__).joinpath("c4_tokens.txt").read_text(encoding="ascii")
    ids = list(map(int, text.split()))
    if top > len(ids):
        raise SoftstartError(
            f"only the {len(ids):,} most frequent tokens of C4 are known", fix="Lower prompt.top."
        )
    return ids[:top]


def published_tokens(top: int, count: int, seed: int, draw: int) -> list[int]:
    """The tokens of the start number ``draw`` after seeding: Python's ``random.sample``, call by call."""
    rng, ids = random.Random(seed), c4_tokens(top)
    for _ in range(draw):
        rng.sample(ids, count)
    return rng.sample(ids, count)


def _published(backbone: Backbone, top: int, seed: int, draw: int) -> Initializer:
    if backbone.tokenizer.convert_ids_to_tokens([3, 5, 6, 8]) != ["▁", ".", ",", "▁the"]:
        raise SoftstartError(
            f"backbone '{backbone.name}' has not T5's vocabulary, whose tokens were counted in C4",
            fix="Set prompt.frequent: tokenizer.",
        )

    def sample(length: int, generator: torch.Generator) -> Tensor:
        ids = torch.tensor(published_tokens(top, length, seed, draw))
        return backbone.vocabulary[ids.to(backbone.device)].float()

    return sample


def words_of(tokenizer: Any, names: Sequence[str]) -> list[list[int]]:
    """The tokens of every task name, read as words."""
    words = [re.sub("[_-]+", " ", name) for name in names]
    ids: list[list[int]] = tokenizer(words, add_special_tokens=False).input_ids
    return ids
