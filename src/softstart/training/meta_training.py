"""The outer loop: sample episodes → meta-gradient → update the start → checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from softstart.algorithms import THETA, Algorithm, Episodes, Logs, further, meta_gradients
from softstart.backbone import Backbone
from softstart.errors import Damaged, Diverged, SoftstartError
from softstart.progress import Progress, silent
from softstart.storage.tensors import digest_of, load_tensors, numeric, save_tensors
from softstart.training.configs import MetaConfig, bound_of
from softstart.training.distributed import Processes, shared_gradient, this_job
from softstart.training.encoding import EncodedTask
from softstart.training.episodes import Context, EpisodeSampler, Item
from softstart.training.objective import PromptObjective, Work
from softstart.training.optimizers import StackedOptimizer
from softstart.training.rates import scaled_rates


@dataclass(frozen=True)
class MetaTrained:
    """A learned start [P, d] and the losses on the way: a dict for each step (``step``, ``query``, …).

    Exact second order adds ``kept``, the number of inner steps whose graph fitted into the memory budget.
    """

    prompt: Tensor
    curve: list[dict[str, float]]
    work: Work = field(default_factory=Work)
    """Tokens and model FLOPs of all steps, including those before a resumption."""
    further: dict[str, Tensor] = field(default_factory=dict)
    """What the algorithm learned besides the start, by name (Meta-SGD: log rates [P, 1])."""


def meta_train(
    backbone: Backbone,
    algorithm: Algorithm,
    tasks: Sequence[EncodedTask],
    start: Tensor,
    config: MetaConfig,
    *,
    samples: Sequence[int] | None = None,
    context: Context | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> MetaTrained:
    """Learn a start from source tasks.

    Under ``torchrun`` or ``accelerate launch`` every process calls this with the same arguments, takes its
    share of each meta-batch and gets the same result (``softstart.training.distributed``).

    Args:
        backbone: the frozen model.
        algorithm: MAML, FoMAML, Reptile, multi-task learning, …
        tasks: the source tasks.
        start: the prompt that learning begins with, [P, d].
        config: the outer loop.
        samples: seeds of the k-shot samples used; all of a task's samples by default.
        context: demonstrations that follow the start in the prompts of episodes; None: there are none.
        checkpoint: a file to resume from and to save to; a resumed run equals an uninterrupted one bit for
            bit on the same device.
        progress: receives every outer step.

    Raises:
        Diverged: the loss is no longer finite.
        SoftstartError: a task lacks a sample, or the checkpoint is damaged.

    >>> from softstart import Backbone, MetaConfig, TextFormat, encode_task, meta_train
    >>> from softstart.algorithms import FoMAML
    >>> from softstart.gym import load_task
    >>> backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    >>> sources = [load_task("animal_class"), load_task("film_review")]
    >>> tasks = [encode_task(task, backbone, TextFormat("{input}")) for task in sources]
    >>> start = backbone.vocabulary[300:305].clone()  # [P, d]
    >>> learned = meta_train(backbone, FoMAML(inner_lr=0.1), tasks, start, MetaConfig(steps=2, lr=0.3))
    >>> tuple(learned.prompt.shape), [sorted(step) for step in learned.curve]
    ((5, 128), [['query', 'step', 'support'], ['query', 'step', 'support']])
    """
    items = [
        Item(task.name, task.train[seed], task.dev[seed])
        for task in tasks
        for seed in (samples if samples is not None else sorted(task.train))
    ]
    algorithm = with_rate(algorithm, config, start)
    where, theta = backbone.device, start.to(backbone.device, backbone.prompt_dtype)
    pad = backbone.tokenizer.pad_token_id
    sampler = EpisodeSampler(items, algorithm, config, pad, where, context, len(start))
    rate = scaled_rates(backbone, config.lr_unit, torch.tensor([config.lr], dtype=torch.float64))
    outer = _Outer(algorithm, theta, config, rate.float(), len({task.name for task in tasks}))
    processes = this_job()
    if checkpoint or processes.world > 1:
        outer.work = digest_of(algorithm, items, theta, numeric(config), *sampler.shown)
    budget = None if config.memory_budget is None else int(config.memory_budget * 2**20)
    loss = PromptObjective(backbone, bound_of(config, backbone.device), budget, config.loss)
    first, curve = outer.resume(checkpoint, loss.work)
    if processes.world > 1 and backbone.rows_interact:
        raise SoftstartError(
            f"under placement '{backbone.placement}' rows interact, so processes cannot share meta-training",
            fix="Use one process, or placement suffix.",
        )
    processes.agree(outer.work, config, first, *outer.values().values())
    progress(first, "resumed" if first else "")
    for step in range(first, config.steps):
        logs = outer.learn(step, loss, sampler.draw(step), processes)
        kept = {"kept": float(loss.graphs.reused)} if loss.graphs.steps else {}
        curve.append({"step": step, **logs, **kept})
        due = (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps
        if checkpoint and due and processes.lead:
            outer.save(checkpoint, curve, loss.work)
        note = f", {loss.graphs.reused} of {loss.graphs.steps} graphs kept" if kept else ""
        progress(1, f"loss {list(logs.values())[-1]:.2f}{note}")
    processes.agree("done")  # and the last checkpoint written
    learned = {name: value.cpu() for name, value in outer.kept().items()}
    return MetaTrained(learned.pop(THETA), curve, loss.work, learned)


def with_rate(algorithm: Algorithm, config: MetaConfig, start: Tensor) -> Algorithm:
    """The algorithm with its inner learning rate in absolute units, for a start [P, d]."""
    rate = getattr(algorithm, "inner_lr", None)
    if rate is None or config.inner_lr_unit == "absolute":
        return algorithm
    scaled: Any = replace(cast(Any, algorithm), inner_lr=rate * float(start.double().square().mean().sqrt()))
    return cast(Algorithm, scaled)


def _in_turn(
    algorithm: Algorithm, loss: PromptObjective, values: Mapping[str, Tensor], episodes: Episodes
) -> tuple[dict[str, Tensor], Logs]:
    """Means over tasks, computed one task at a time: for placements under which rows interact."""
    turns = [Processes(task, episodes.tasks).share(episodes)[0] for task in range(episodes.tasks)]
    gradients, logs = zip(*(meta_gradients(algorithm, loss, values, turn) for turn in turns), strict=True)
    means = {name: torch.stack([of_task[name] for of_task in gradients]).mean(0) for name in values}
    return means, {name: sum(of_task[name] for of_task in logs) / len(logs) for name in logs[0]}


class _Outer:
    """All meta-parameters [1, P, ·] by name, each with its optimizer."""

    def __init__(
        self, algorithm: Algorithm, theta: Tensor, config: MetaConfig, rate: Tensor, sources: int
    ) -> None:
        self.algorithm, self.config = algorithm, config
        begin = {THETA: theta} | further(algorithm, theta, sources)
        self.stacks = {name: value[None].clone() for name, value in begin.items()}
        further_rate = torch.tensor([config.lr * getattr(algorithm, "further_lr", 1.0)])
        self.optimizers: dict[str, StackedOptimizer] = {
            name: StackedOptimizer(stack, rate if name == THETA else further_rate, config.optimizer)
            for name, stack in self.stacks.items()
        }
        self.work = ""
        """Fingerprint of the work that a checkpoint belongs to."""

    def values(self) -> dict[str, Tensor]:
        """The meta-parameters [P, ·]."""
        return {name: stack[0] for name, stack in self.stacks.items()}

    def kept(self) -> dict[str, Tensor]:
        """What is kept of them in the end, the start [P, d] under ``THETA``."""
        begin: dict[str, Tensor] = getattr(self.algorithm, "begin", lambda values: values)(self.values())
        return begin

    def learn(self, step: int, loss: PromptObjective, episodes: Episodes, processes: Processes) -> Logs:
        """Move each meta-parameter against its gradient on a meta-batch: the losses to log.

        Raises:
            Diverged: the loss is not finite.
        """
        if loss.backbone.rows_interact:
            gradients, logs = _in_turn(self.algorithm, loss, self.values(), episodes)
        else:
            gradients, logs = shared_gradient(processes, self.algorithm, loss, self.values(), episodes)
        finite = all(bool(gradient.isfinite().all()) for gradient in gradients.values())
        if not finite or not all(map(math.isfinite, logs.values())):
            raise Diverged(
                f"meta-training diverged: the loss is not finite at outer step {step}",
                fix="Lower the outer lr or inner_lr.",
            )
        if self.config.reduction == "sum" and self.algorithm.data == "episodes":
            gradients = {name: self.config.meta_batch * gradient for name, gradient in gradients.items()}
        for name, optimizer in self.optimizers.items():
            optimizer.step(self.stacks[name], gradients[name][None])
        return logs

    def save(self, path: Path, curve: list[dict[str, float]], work: Work) -> None:
        """Everything ``resume`` needs, in one file."""
        state = {
            f"{_prefix(name)}{key}": value
            for name, optimizer in self.optimizers.items()
            for key, value in optimizer.state_dict().items()
        }
        header = {"of": self.work, "curve": curve, "work": vars(work)}
        save_tensors(path, {**self.stacks, **state}, header)

    def resume(self, path: Path | None, work: Work) -> tuple[int, list[dict[str, float]]]:
        """Go on from what ``save`` wrote, if there is such a file: (steps done, curve)."""
        if path is None or not path.exists():
            return 0, []
        tensors, header = load_tensors(path, self.work)
        try:
            for name, stack in self.stacks.items():
                stack.copy_(tensors[name])
                prefix = _prefix(name)
                state = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
                self.optimizers[name].load_state_dict(state)
            curve: list[dict[str, float]] = header["curve"]
            work.add(**header["work"])
        except (KeyError, RuntimeError, TypeError, AttributeError) as problem:
            raise Damaged(
                "is not a checkpoint of this meta-training",
                where=str(path),
                fix="Delete it to start this meta-training over.",
            ) from problem
        return len(curve), curve


def _prefix(name: str) -> str:
    """What the optimizer state of a meta-parameter is named by in a checkpoint."""
    return "optimizer." if name == THETA else f"{name}.optimizer."
