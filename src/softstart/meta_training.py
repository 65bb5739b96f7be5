"""The outer loop: sample episodes → meta-gradient → update the start → checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softstart.algorithms import Algorithm, Episodes
from softstart.backbone import Backbone
from softstart.encoding import EncodedTask, Rows, epoch_slice, rng_for, to_batch
from softstart.errors import Diverged, SoftstartError
from softstart.objective import PromptObjective, Work
from softstart.optim import OptimizerConfig, make_optimizer
from softstart.progress import Progress, silent
from softstart.storage import load_tensors, save_tensors


@dataclass(frozen=True)
class MetaConfig:
    """The outer loop; the defaults are those of Qin et al. (2023), released files."""

    steps: int = 5000
    meta_batch: int = 2
    """Episodes a meta-update (not used by multi-task learning, whose batch is one mixture)."""
    lr: float = 0.5
    optimizer: OptimizerConfig = OptimizerConfig()
    seed: int = 42
    dropout: bool = False
    max_tokens: int | None = 16384
    """Bound on the tokens of one forward pass."""
    memory_budget: float | None = None
    """MiB for graphs of inner gradients that exact second order would else compute again; 0: compute all
    again; None: keep the last one where it fits into an eighth of the device's memory."""
    checkpoint_every: int = 50


@dataclass(frozen=True)
class MetaTrained:
    """A learned start [P, d] and the losses on the way: one dict a step (``step``, ``query``, …).

    Exact second order adds ``kept``, the inner steps whose graph the memory budget let it keep.
    """

    prompt: Tensor
    curve: list[dict[str, float]]
    work: Work = field(default_factory=Work)
    """Tokens and model FLOPs of all steps, those before a resumption included."""


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
    """

    items: Sequence[Item]
    algorithm: Algorithm
    config: MetaConfig
    pad: int
    device: torch.device
    mixture: list[tuple[Rows, int]] = field(init=False)

    def __post_init__(self) -> None:
        if not any(item.train.trainable for item in self.items):
            raise SoftstartError("no source task has an example to learn from", mend="Check the gym's files.")
        self.mixture = [(r, i) for item in self.items for r in (item.train, item.dev) for i in r.trainable]

    def draw(self, step: int) -> Episodes:
        """The episodes of one outer step."""
        if self.algorithm.data == "mixture":
            return self._mixture(step)
        count, seed = self.config.meta_batch, self.config.seed
        order = epoch_slice(len(self.items), step * count, count, seed)
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
        order = epoch_slice(len(self.mixture), step * size, size, self.config.seed)
        rng = rng_for(self.config.seed, step, 1)
        pairs = [self.mixture[i][0].pick([self.mixture[i][1]], rng)[0] for i in order]
        return Episodes(1, [], self._batch([pairs], step, 0))

    def _batch(self, tasks: Sequence[Sequence[Any]], step: int, part: int) -> Any:
        pairs = [pair for rows in tasks for pair in rows]
        runs = [m for m, rows in enumerate(tasks) for _ in rows]
        seed = int(rng_for(self.config.seed, step, 2, part).integers(2**31)) if self.config.dropout else None
        return to_batch(pairs, runs, self.pad, seed).to(self.device)


def meta_train(
    backbone: Backbone,
    algorithm: Algorithm,
    tasks: Sequence[EncodedTask],
    start: Tensor,
    config: MetaConfig,
    *,
    samples: Sequence[int] | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> MetaTrained:
    """Learn a start from source tasks.

    Args:
        backbone: the frozen model.
        algorithm: MAML, FoMAML, Reptile, multi-task learning, …
        tasks: the source tasks.
        start: where the start itself starts, [P, d].
        config: the outer loop.
        samples: seeds of the k-shot samples used; all of a task's samples by default.
        checkpoint: a file to resume from and to save to; a resumed run equals an uninterrupted one bit for
            bit on the same device.
        progress: told about every outer step.

    Raises:
        Diverged: the loss is no longer finite.
        SoftstartError: a task lacks a sample, or the checkpoint is damaged.
    """
    items = [
        Item(task.name, task.train[seed], task.dev[seed])
        for task in tasks
        for seed in (samples if samples is not None else sorted(task.train))
    ]
    sampler = EpisodeSampler(items, algorithm, config, backbone.tokenizer.pad_token_id, backbone.device)
    theta = start.to(backbone.device, backbone.prompt_dtype)[None].clone()  # [1, P, d]
    optimizer = make_optimizer(theta, torch.tensor([config.lr]), config.optimizer)
    budget = None if config.memory_budget is None else int(config.memory_budget * 2**20)
    loss = PromptObjective(backbone, config.max_tokens, budget)
    first, curve = _resume(checkpoint, theta, optimizer, loss.work)
    progress(first, "resumed" if first else "")
    for step in range(first, config.steps):
        gradient, logs = algorithm.meta_gradient(loss, theta[0], sampler.draw(step))
        if not all(map(math.isfinite, logs.values())) or not bool(gradient.isfinite().all()):
            raise Diverged(
                f"meta-training diverged: the loss is not finite at outer step {step}",
                mend="Lower the outer lr or inner_lr.",
            )
        optimizer.step(theta, gradient[None])
        kept = {"kept": float(loss.graphs.reused)} if loss.graphs.steps else {}
        curve.append({"step": step, **logs, **kept})
        if checkpoint and ((step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps):
            _save(checkpoint, theta, optimizer, curve, loss.work)
        of = f", {loss.graphs.reused} of {loss.graphs.steps} graphs kept" if kept else ""
        progress(1, f"loss {list(logs.values())[-1]:.2f}{of}")
    return MetaTrained(theta[0].cpu(), curve, loss.work)


def _draw(population: Sequence[int], count: int, rng: Any) -> list[int]:
    replace = len(population) < count
    chosen: list[int] = rng.choice(population, count, replace=replace).tolist() if count else []
    return chosen


def _save(path: Path, theta: Tensor, optimizer: Any, curve: list[dict[str, float]], work: Work) -> None:
    state = {f"optimizer.{key}": value for key, value in optimizer.state_dict().items()}
    save_tensors(path, {"theta": theta, **state}, {"curve": curve, "work": vars(work)})


def _resume(
    path: Path | None, theta: Tensor, optimizer: Any, work: Work
) -> tuple[int, list[dict[str, float]]]:
    if path is None or not path.exists():
        return 0, []
    tensors, header = load_tensors(path)
    try:
        theta.copy_(tensors.pop("theta"))
        optimizer.load_state_dict({k.removeprefix("optimizer."): v for k, v in tensors.items()})
        curve: list[dict[str, float]] = header["curve"]
        work.add(**header["work"])
    except (KeyError, RuntimeError) as problem:
        raise SoftstartError(
            "is not a checkpoint of this meta-training",
            where=str(path),
            mend="Delete it to start this meta-training over.",
        ) from problem
    return len(curve), curve
