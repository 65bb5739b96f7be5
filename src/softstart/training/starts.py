"""Where prompts start before anything is learned."""

from __future__ import annotations

import random
from collections.abc import Sequence
from importlib import resources
from typing import Protocol

import torch
from torch import Tensor

from softstart.backbone import Backbone
from softstart.errors import SoftstartError
from softstart.prompt import (
    Initializer,
    Material,
    find_initializer,
    frequent_words,
    make_initializer,
    vocabulary,
)
from softstart.training.configs import PromptSpec
from softstart.training.demonstrations import demonstrations, first_answers
from softstart.training.encoding import EncodedTask, rng_for


class TaskWords(Protocol):
    """What a start can be made from of a task."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The label words of a classification task."""


def draw_start(
    backbone: Backbone, spec: PromptSpec, tasks: Sequence[TaskWords], *key: int, draw: int = 0
) -> Tensor:
    """The unlearned start [P, d] of a run or a meta-training; [P, D] where prompts are of another kind.

    Args:
        backbone: whose vocabulary it is drawn from.
        spec: initializer and length.
        tasks: the target task, or all source tasks: some initializers need their names, labels or rows.
        key: seeds: of the study, and of a run's sample; equal keys give equal starts.
        draw: the number of the start within its seed, where every run has a start of its own.

    Raises:
        SoftstartError: the tasks lack what the initializer needs, or the prompt is too long for it.
    """
    draw_frequent, sample = None, key[1] if len(key) > 1 else None
    if spec.draw_per == "seed":
        key = key[:1]
    if spec.frequent == "c4":
        # As published: one generator for all runs of a grid, seeded once.
        seed = key[0] if spec.draw_per == "run" else seeded(*key).initial_seed()
        draw_frequent = _published(backbone, spec.top, seed, draw)
    elif spec.draw_per == "run":
        key = (*key, draw)
    if spec.frequent == "words":
        draw_frequent = vocabulary(backbone.vocabulary, frequent_words(backbone.tokenizer, spec.top))
    given = Material(
        backbone,
        names=[task.name for task in tasks],
        labels=[label for task in tasks for label in task.labels],
        rows=_rows(backbone, spec, tasks, sample),
        top=spec.top,
        draw_frequent=draw_frequent,
    )
    return of_kind(backbone, make_initializer(spec.init, given)(spec.length, seeded(*key)))


def of_kind(backbone: Backbone, embeddings: Tensor) -> Tensor:
    """Embeddings [..., P, d] as prompts of the backbone's kind [..., P, D] that compute the same, float32."""
    rows = embeddings.to(backbone.device).reshape(-1, *embeddings.shape[-2:])
    made = backbone.kind.made_of(rows, backbone).to(torch.float32).cpu()
    return made.reshape(*embeddings.shape[:-1], -1)


def _rows(
    backbone: Backbone, spec: PromptSpec, tasks: Sequence[TaskWords], sample: int | None
) -> list[list[int]]:
    """Train rows with their answers, of one sample or of all, for initializers that need them."""
    if find_initializer(spec.init)[0].needs != "rows":
        return []
    splits = [
        rows
        for task in tasks
        if isinstance(task, EncodedTask)
        for name, rows in task.train.items()
        if sample in (None, name)
    ]
    return [ids for rows in splits for ids in demonstrations(backbone.tokenizer, first_answers(rows))]


def seeded(*key: int) -> torch.Generator:
    """The generator of a start: equal keys give equal starts."""
    return torch.Generator().manual_seed(int(rng_for(*key, 3).integers(2**31)))


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
    """The tokens of start number ``draw`` after seeding, by as many calls of Python's ``random.sample``."""
    rng, ids = random.Random(seed), c4_tokens(top)
    for _ in range(draw):
        rng.sample(ids, count)
    return rng.sample(ids, count)


def _published(backbone: Backbone, top: int, seed: int, draw: int) -> Initializer:
    if backbone.tokenizer.convert_ids_to_tokens([3, 5, 6, 8]) != ["▁", ".", ",", "▁the"]:
        raise SoftstartError(
            f"backbone '{backbone.name}' does not have T5's vocabulary, whose tokens were counted in C4",
            fix="Set prompt.frequent: tokenizer.",
        )

    def sample(length: int, generator: torch.Generator) -> Tensor:
        ids = torch.tensor(published_tokens(top, length, seed, draw))
        return backbone.vocabulary[ids.to(backbone.device)].float()

    return sample
