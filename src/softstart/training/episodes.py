"""What an outer step learns from: episodes of source tasks, or a mixture of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from softstart.algorithms import Algorithm, Episodes
from softstart.errors import SoftstartError
from softstart.training.configs import MetaConfig
from softstart.training.encoding import Rows, epoch_slice, rng_for, to_batch


@dataclass(frozen=True)
class Item:
    """One sample of one source task: what an episode is drawn from."""

    name: str
    train: Rows
    dev: Rows


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
    mixture: list[tuple[Rows, int]] = field(init=False)

    def __post_init__(self) -> None:
        if not any(item.train.trainable for item in self.items):
            raise SoftstartError("no source task has an example to learn from", fix="Check the gym's files.")
        self.mixture = [(r, i) for item in self.items for r in (item.train, item.dev) for i in r.trainable]

    def draw(self, step: int) -> Episodes:
        """The episodes of one outer step."""
        if self.algorithm.data == "mixture":
            return self._mixture(step)
        count, seed = self.config.meta_batch, self.config.seed
        order = epoch_slice(len(self.items), step * count, count, seed, reshuffle=self.config.reshuffle)
        rng = rng_for(seed, step, 1)
        drawn = [self._episode(self.items[i], rng) for i in order]
        support = [
            self._batch([pairs[k] for pairs, _ in drawn], step, k) for k in range(self.algorithm.inner_steps)
        ]
        query = self._batch([q for _, q in drawn], step, len(support)) if self.algorithm.query_size else None
        return Episodes(count, support, query)

    def _episode(self, item: Item, rng: Any) -> tuple[list[list[Any]], list[Any]]:
        size, steps = self.algorithm.support_size, self.algorithm.inner_steps
        rows = _draw(item.train.trainable, size * steps, rng)
        pairs = item.train.pick(rows, rng)
        support = [pairs[k * size : (k + 1) * size] for k in range(steps)]
        dev = item.dev if item.dev.trainable else item.train
        return support, dev.pick(_draw(dev.trainable, self.algorithm.query_size, rng), rng)

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


def _draw(population: Sequence[int], count: int, rng: Any) -> list[int]:
    """Distinct members, or with repetition where there are fewer than ``count``."""
    chosen: list[int] = (
        rng.choice(population, count, replace=len(population) < count).tolist() if count else []
    )
    return chosen
