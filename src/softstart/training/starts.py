"""Where prompts start before anything is learned."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Protocol

import torch
from torch import Tensor

from softstart.backbone import Backbone
from softstart.errors import SoftstartError
from softstart.prompt import (
    Initializer,
    Material,
    demonstration_origins,
    find_initializer,
    frequent_words,
    make_initializer,
    vocabulary,
)
from softstart.prompt.kinds import Embeddings
from softstart.training.configs import PromptSpec
from softstart.training.demonstrations import demonstrations, first_answers
from softstart.training.encoding import EncodedTask, Rows, rng_for

DEMONSTRATIONS = "demonstrations"
"""The initializer of prompt rows that follow others."""
APART = 6
"""Sets the draws of these rows apart from those of the others."""


BEHIND = (
    "keys and values depend on the rows before them, so no demonstrations can follow those of a learned start"
)


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

    ``spec.demonstrations`` are not part of it.

    Args:
        backbone: whose vocabulary it is drawn from.
        spec: initializer and length.
        tasks: the target task, or all source tasks: some initializers need their names, labels or rows.
        key: seeds: of the study, and of a run's sample; equal keys give equal starts.
        draw: the number of the start within its seed, where every run has a start of its own.

    Raises:
        SoftstartError: the tasks lack what the initializer needs, or the prompt is too long for it.
    """
    start, _ = _draw(backbone, spec, tasks, *key, draw=draw)
    return of_kind(backbone, start)


@dataclass(frozen=True)
class RunStart:
    """Where a run begins: a prompt [P, d], and which train row each of its rows comes from [P], -1: none.

    Train rows are counted among those with an answer. ``origins`` is None where no row comes from any.
    """

    prompt: Tensor
    origins: Tensor | None = None


def run_start(
    backbone: Backbone,
    spec: PromptSpec,
    task: EncodedTask,
    seed: int,
    sample: int,
    *,
    draw: int = 0,
    learned: Tensor | None = None,
) -> RunStart:
    """The start of a run: a learned start [P, d] or an unlearned one, then ``spec.demonstrations``.

    Raises:
        SoftstartError: as ``draw_start``, or no row with an answer to demonstrate.
    """
    parts: list[tuple[Tensor, Tensor | None]] = []
    if learned is None and spec.length:
        parts.append(_draw(backbone, spec, [task], seed, sample, draw=draw))
    if spec.demonstrations is not None:
        if learned is not None and not isinstance(backbone.kind, Embeddings):
            raise SoftstartError(
                BEHIND, fix="Set prompt.kind: embeddings, or begin with demonstrations alone."
            )
        length = prompt_rows(backbone, spec, task, sample) - spec.length
        shown = Demonstrator(backbone, spec)(task.train[sample], length, seeded(seed, sample, APART))
        parts.append(shown)
    rows = [part.to(torch.float32).cpu() for part, _ in parts]
    origins = [torch.full((len(part),), -1) if of is None else of for part, of in parts]
    if learned is None:
        rows = [of_kind(backbone, torch.cat(rows))]
    else:
        rows, origins = [learned.to(torch.float32).cpu(), *rows], [torch.full((len(learned),), -1), *origins]
    known = any(of is not None for _, of in parts)
    return RunStart(torch.cat(rows), torch.cat(origins) if known else None)


class Demonstrator:
    """Makes prompt rows that begin as demonstrations.

    Args:
        backbone: whose vocabulary is used.
        spec: which frequent words follow where all demonstrations take fewer rows than asked for.
    """

    def __init__(self, backbone: Backbone, spec: PromptSpec) -> None:
        self.backbone, self.frequent = backbone, Material(backbone, top=spec.top).frequent
        if spec.frequent == "words":
            self.frequent = vocabulary(backbone.vocabulary, frequent_words(backbone.tokenizer, spec.top))

    def __call__(self, rows: Rows, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Demonstrations of train rows, cut to a length: prompt rows [length, d], and their origins [length].

        Raises:
            SoftstartError: no row has an answer.
        """
        shown = demonstrations(self.backbone.tokenizer, first_answers(rows))
        given = Material(self.backbone, rows=shown, draw_frequent=self.frequent)
        origins = demonstration_origins(shown)(length, generator.clone_state())
        start = make_initializer(DEMONSTRATIONS, given)(length, generator)
        return start.to(torch.float32).cpu(), origins


def prompt_rows(backbone: Backbone, spec: PromptSpec, task: EncodedTask, sample: int) -> int:
    """P of a run's prompt, demonstrations included.

    Raises:
        SoftstartError: the window has no room for any demonstration.
    """
    if spec.demonstrations == "all":
        return spec.length + _room(backbone, task, sample, spec.length)
    return spec.length + (spec.demonstrations or 0)


def _room(backbone: Backbone, task: EncodedTask, sample: int, before: int) -> int:
    """The rows that all demonstrations of a sample take, or that the window has room for.

    The longest text and its output have to fit, too, and ``before`` rows of the prompt.
    """
    needed = sum(map(len, demonstrations(backbone.tokenizer, first_answers(task.train[sample]))))
    if backbone.window is None:
        return needed
    splits = (task.train[sample], task.dev[sample], task.test)
    longest = max((len(ids) for rows in splits for ids in rows.inputs), default=0)
    left = backbone.window - before - longest - (task.max_new_tokens if backbone.continues_input else 0)
    if left < 1:
        raise SoftstartError(
            f"a text of {longest} tokens leaves no room for demonstrations within {backbone.window}",
            where=f"task '{task.name}'",
            fix="Lower text.max_input_tokens.",
        )
    return min(needed, left)


def _draw(
    backbone: Backbone, spec: PromptSpec, tasks: Sequence[TaskWords], *key: int, draw: int = 0
) -> tuple[Tensor, Tensor | None]:
    """An unlearned start [P, d], and the train rows that its rows come from [P] if they do."""
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
    start = make_initializer(spec.init, given)(spec.length, seeded(*key)).to(torch.float32).cpu()
    origins = find_initializer(spec.init)[0].origins
    return start, None if origins is None else origins(given)(spec.length, seeded(*key))


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
