"""What an outer step learns from: episodes of source tasks, or a mixture of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from softstart.algorithms import Algorithm, Episodes
from softstart.backbone import Batch
from softstart.errors import SoftstartError
from softstart.prompt.kinds import Embeddings
from softstart.training.configs import MetaConfig
from softstart.training.encoding import Rows, epoch_slice, rng_for, to_batch
from softstart.training.starts import BEHIND, Demonstrator, seeded


@dataclass(frozen=True)
class Item:
    """One sample of one source task: what an episode is drawn from."""

    name: str
    train: Rows
    dev: Rows


@dataclass(frozen=True)
class Context:
    """Demonstrations that follow the start in the prompts of episodes: D rows from an episode's train rows.

    Args:
        make: makes them, with the frequent words that follow where a task's demonstrations take fewer rows.
        length: D.
        leave_one_out: whether a support row is read without the demonstrations that are itself.

    Raises:
        SoftstartError: prompts of keys and values.
    """

    make: Demonstrator
    length: int
    leave_one_out: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.make.backbone.kind, Embeddings):
            raise SoftstartError(BEHIND, fix="Set prompt.kind: embeddings, or demonstrated: target.")

    def demonstrate(self, rows: Rows, seed: int) -> tuple[Tensor, Tensor]:
        """Demonstrations [D, d] of train rows, and the row that each comes from [D]."""
        rows_, origins = self.make(rows, self.length, seeded(seed))
        return rows_.to(self.make.backbone.prompt_dtype), origins


@dataclass
class EpisodeSampler:
    """Draws the meta-batch of any step from the step's number alone, so that resuming needs no state.

    Items (source task x sample) are walked in reshuffled epochs. Support rows come from an item's train file
    without replacement where it is large enough, query rows from its dev file (Qin et al., 2023). A mixture
    walks the shuffled union of all train and dev rows.

    Raises:
        SoftstartError: no item has a train row with an answer.
    """

    items: Sequence[Item]
    algorithm: Algorithm
    config: MetaConfig
    pad: int
    device: torch.device
    context: Context | None = None
    """Demonstrations of every episode; None: there are none."""
    length: int = 0
    """P, the rows of the start."""
    mixture: list[tuple[Rows, int]] = field(init=False)

    def __post_init__(self) -> None:
        if not any(item.train.trainable for item in self.items):
            raise SoftstartError("no source task has an example to learn from", fix="Check the gym's files.")
        self.mixture = [(r, i) for item in self.items for r in (item.train, item.dev) for i in r.trainable]

    @property
    def shown(self) -> tuple[int, ...]:
        """Numbers that say how demonstrations are made, for the fingerprint of a checkpoint."""
        return () if self.context is None else (self.context.length, int(self.context.leave_one_out))

    def draw(self, step: int) -> Episodes:
        """The episodes of one outer step."""
        if self.algorithm.data == "mixture":
            return self._mixture(step)
        count, seed = self.config.meta_batch, self.config.seed
        order = epoch_slice(len(self.items), step * count, count, seed, reshuffle=self.config.reshuffle)
        rng = rng_for(seed, step, 1)
        drawn = [self._episode(self.items[i], rng) for i in order]
        support = [
            self._batch([each.support[k] for each in drawn], step, k)
            for k in range(self.algorithm.inner_steps)
        ]
        query = (
            self._batch([e.query for e in drawn], step, len(support)) if self.algorithm.query_size else None
        )
        names = list(dict.fromkeys(item.name for item in self.items))
        sources = torch.tensor([names.index(self.items[i].name) for i in order])
        if self.context is None:
            return Episodes(count, support, query, sources=sources)
        draws = rng_for(seed, step, 7).integers(2**31, size=count).tolist()
        shown = [
            self.context.demonstrate(self.items[i].train, draw) for i, draw in zip(order, draws, strict=True)
        ]
        if self.context.leave_one_out:
            origins = [of for _, of in shown]
            support = [
                self._without(batch, [each.rows[k] for each in drawn], origins)
                for k, batch in enumerate(support)
            ]
            if query is not None:
                query = self._without(query, [each.query_rows for each in drawn], origins)
        context = torch.stack([rows for rows, _ in shown]).to(self.device)
        return Episodes(count, support, query, context, sources)

    def _episode(self, item: Item, rng: Any) -> _Episode:
        size, steps = self.algorithm.support_size, self.algorithm.inner_steps
        rows = _draw(item.train.trainable, size * steps, rng)
        pairs = item.train.pick(rows, rng)
        dev = item.dev if item.dev.trainable else item.train
        query = _draw(dev.trainable, self.algorithm.query_size, rng)
        return _Episode(
            [pairs[k * size : (k + 1) * size] for k in range(steps)],
            dev.pick(query, rng),
            [_places(item.train, rows[k * size : (k + 1) * size]) for k in range(steps)],
            _places(item.train, query) if dev is item.train else [-2] * len(query),
        )

    def _without(self, batch: Batch, rows: Sequence[Sequence[int]], origins: Sequence[Tensor]) -> Batch:
        """A batch whose rows are read without the demonstrations that are themselves.

        ``rows`` are the places of every task's rows among those with an answer, ``origins`` those of the rows
        that its demonstrations come from.
        """
        own = torch.zeros(self.length, dtype=torch.bool)
        hidden = [
            torch.cat((own, of == place))
            for places, of in zip(rows, origins, strict=True)
            for place in places
        ]
        return replace(batch, hidden=torch.stack(hidden).to(self.device))

    def _mixture(self, step: int) -> Episodes:
        size = self.algorithm.query_size
        order = epoch_slice(
            len(self.mixture), step * size, size, self.config.seed, reshuffle=self.config.reshuffle
        )
        rng = rng_for(self.config.seed, step, 1)
        pairs = [self.mixture[i][0].pick([self.mixture[i][1]], rng)[0] for i in order]
        return Episodes(1, [], self._batch([pairs], step, 0))

    def _batch(self, tasks: Sequence[Sequence[Any]], step: int, part: int) -> Any:
        pairs = [(given, self._cut(output)) for rows in tasks for given, output in rows]
        runs = [m for m, rows in enumerate(tasks) for _ in rows]
        seed = int(rng_for(self.config.seed, step, 2, part).integers(2**31)) if self.config.dropout else None
        return to_batch(pairs, runs, self.pad, seed).to(self.device)

    def _cut(self, output: list[int]) -> list[int]:
        limit = self.config.max_output_tokens
        return output if limit is None or len(output) <= limit else [*output[: limit - 1], output[-1]]


@dataclass(frozen=True)
class _Episode:
    """(text, output) pairs of the support of every step and of the query, and which train rows they are."""

    support: list[list[Any]]
    query: list[Any]
    rows: list[list[int]]
    query_rows: list[int]


def _places(rows: Rows, indices: Sequence[int]) -> list[int]:
    """The places of rows among those with an answer."""
    return [rows.trainable.index(i) for i in indices]


def _draw(population: Sequence[int], count: int, rng: Any) -> list[int]:
    """Distinct members, or with repetition where there are fewer than ``count``."""
    chosen: list[int] = (
        rng.choice(population, count, replace=len(population) < count).tolist() if count else []
    )
    return chosen
