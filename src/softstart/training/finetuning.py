"""Training weights of the backbone, all or those of adapters. One plain loop for each run, no packs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from softstart.backbone import Backbone, Batch
from softstart.backbone.flops import Flops
from softstart.progress import Progress, silent
from softstart.training.configs import FineTuneConfig, steps_of
from softstart.training.encoding import EncodedTask, Rows, rng_for, to_batch
from softstart.training.evaluation import Assessment, Evaluation, Job, assess, evaluate, no_prompt
from softstart.training.gradients import weight_loss
from softstart.training.losses import RowLoss
from softstart.training.objective import counting


class Trainable(Protocol):
    """What of a backbone is trained, and how."""

    def copy(self, backbone: Backbone) -> Backbone:
        """A copy whose trained parameters require a gradient."""

    def optimizer(self, model: torch.nn.Module, lr: float, decay: float) -> torch.optim.Optimizer:
        """The optimizer of what requires a gradient; ``decay`` is ``FineTuneConfig.weight_decay``."""

    def price(self, flops: Flops) -> float:
        """What of a row's FLOPs is computed for a gradient."""


class EveryWeight:
    """Full fine-tuning by Adafactor."""

    def copy(self, backbone: Backbone) -> Backbone:
        """As ``Backbone.trainable_copy``."""
        return backbone.trainable_copy()

    def optimizer(self, model: torch.nn.Module, lr: float, decay: float) -> torch.optim.Optimizer:
        """Adafactor (no relative step, no parameter scaling), without decay of biases and norms."""
        return optimizer_of(model, lr, decay)

    def price(self, flops: Flops) -> float:
        """Forward, and backward with the gradient of every weight."""
        return flops.full_gradient


EVERY_WEIGHT = EveryWeight()


@dataclass
class FineTuned:
    """The outcome of a run; ``weights`` is a copy of the best trained weights, on the CPU. Other fields are
    those of ``Adapted``.
    """

    dev: float = math.nan
    best_step: int = 0
    steps: int = 0
    status: str = "running"
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    tokens: int = 0
    flops: float = 0.0
    computed_tokens: int = 0
    computed_flops: float = 0.0


def finetune(
    backbone: Backbone,
    task: EncodedTask,
    sample: int,
    lr: float,
    config: FineTuneConfig,
    evaluation: Evaluation,
    *,
    seed: int = 0,
    progress: Progress = silent,
    at_budget: Callable[[FineTuned, Backbone], None] | None = None,
    trainable: Trainable = EVERY_WEIGHT,
) -> FineTuned:
    """Fine-tune a copy of the backbone on one sample, with no prompt; ``backbone`` stays as it is.

    Args:
        backbone: where the weights start.
        task: the target task.
        sample: which k-shot sample.
        lr: the learning rate.
        config: steps, batches, evaluation.
        evaluation: decoding of the dev evaluations.
        seed: data order, as in ``AdaptRun``.
        progress: receives the number of steps done.
        at_budget: called at every budget, and at the end, with the result so far and the copy in training:
            test its weights then, for only the best ones are kept.
        trainable: what is trained, and by which optimizer.

    >>> from softstart import Backbone, Evaluation, FineTuneConfig, TextFormat, encode_task, finetune
    >>> from softstart.gym import load_task
    >>> backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    >>> task = encode_task(load_task("film_review"), backbone, TextFormat("{input}"))
    >>> config = FineTuneConfig(steps=2, eval_every=2)
    >>> tuned = finetune(backbone, task, sample=13, lr=1e-3, config=config, evaluation=Evaluation())
    >>> tuned.steps, tuned.status
    (2, 'done')
    """
    model = trainable.copy(backbone)
    optimizer = trainable.optimizer(model.model, lr, config.weight_decay)
    rows, job = task.train[sample], Job(0, task, task.dev[sample])
    result, losses, waited = FineTuned(), [], 0
    steps = steps_of(config, len(rows.trainable))
    for step in range(steps):
        batches = _batches(model, rows, config, step, (seed, sample))
        loss = _descend(model, batches, optimizer, config.loss, trainable.price, result)
        if not math.isfinite(loss):
            result.status = "diverged"
            progress(config.steps - step, "diverged")
            break
        losses.append(loss)
        result.steps = step + 1
        progress(1, f"loss {loss:.2f}")
        budget = result.steps in config.budgets
        if result.steps % config.eval_every == 0 or result.steps == steps or budget:
            (dev,) = evaluate(model, no_prompt(model), [job], evaluation)
            result.curve.append((result.steps, dev, sum(losses) / len(losses)))
            losses, waited = [], waited + 1
            if not result.dev >= dev and not math.isnan(dev):
                result.dev, result.best_step, waited = dev, result.steps, 0
                result.weights = {}  # the old ones go first
                result.weights = _copied(model.model)
            elif config.patience is not None and waited >= config.patience:
                result.status = "stopped"
                progress(config.steps - result.steps, "stopped")
                break
            if at_budget and budget:
                at_budget(result, model)
    if result.status == "running":
        result.status = "done"
        progress(config.steps - steps)
    if at_budget:
        at_budget(result, model)
    return result


def _batches(
    model: Backbone, rows: Rows, config: FineTuneConfig, step: int, key: tuple[int, int]
) -> list[Batch]:
    """The parts of the batch of a step; ``key`` is the seed and the sample."""
    size, parts = config.batch_size, config.batch_parts
    _, pairs = rows.of_step(step, size, *key, reshuffle=config.reshuffle)
    masks = int(rng_for(key[0], step, 2).integers(2**31)) if config.dropout else None
    dealt = [pairs[i::parts] for i in range(parts)]
    pad = model.tokenizer.pad_token_id
    return [to_batch(part, [0] * len(part), pad, masks).to(model.device) for part in dealt]


def _descend(
    model: Backbone,
    batches: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    loss: RowLoss,
    price: Callable[[Flops], float],
    result: FineTuned,
) -> float:
    """Take one step, unless the loss is not finite: the mean loss of the batches; their work is counted."""
    total = 0.0
    for batch in batches:
        with counting(lambda run: result, model, batch, 0, price):
            value = weight_loss(model, batch, loss) / len(batches)
            total += float(value.detach())
            if math.isfinite(total):
                value.backward()
    if math.isfinite(total):
        optimizer.step()
        optimizer.zero_grad()  # an evaluation needs the memory
    return total


def score_finetuned(
    backbone: Backbone,
    results: Sequence[FineTuned],
    task: EncodedTask,
    evaluation: Evaluation,
    twin: Backbone | None = None,
    trainable: Trainable = EVERY_WEIGHT,
) -> list[Assessment]:
    """The test score of each fine-tuned state; NaN where a run diverged before its first evaluation.

    Args:
        backbone: what was fine-tuned.
        results: the states.
        task: the target task.
        evaluation: decoding and scoring.
        twin: a copy of the backbone, in training, to score in; it stays as it is. By default one is made.
        trainable: what was trained.
    """
    model = twin or trainable.copy(backbone)
    scores: list[Assessment] = []
    for result in results:
        if not result.weights:
            scores.append(Assessment(math.nan, {}))
            continue
        state = model.model.state_dict(keep_vars=True)
        pairs = {state[name]: weight for name, weight in result.weights.items()}
        _exchange(pairs)
        try:
            scores += assess(model, no_prompt(model), [Job(0, task, task.test)], evaluation)
        finally:
            _exchange(pairs)
    return scores


def _copied(model: torch.nn.Module) -> dict[str, Tensor]:
    """The trained part of a model's state on the CPU; tied weights stay one tensor."""
    state = {name: t for name, t in model.state_dict(keep_vars=True).items() if t.requires_grad}
    copies = {tensor: tensor.detach().to("cpu", copy=True) for tensor in set(state.values())}
    return {name: copies[tensor] for name, tensor in state.items()}


@torch.no_grad()
def _exchange(pairs: Mapping[Tensor, Tensor]) -> None:
    """Exchange values pair by pair: needs memory for the largest of them only."""
    for one, other in pairs.items():
        kept = other.clone()
        other.copy_(one)
        one.copy_(kept)


def optimizer_of(model: torch.nn.Module, lr: float, decay: float) -> torch.optim.Optimizer:
    """Fine-tuning's Adafactor, without decay of biases and norms."""
    from transformers.optimization import Adafactor

    plain: list[torch.nn.Parameter] = []
    decayed: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        exempt = name.endswith("bias") or "layer_norm" in name
        (plain if exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer: torch.optim.Optimizer = Adafactor(
        groups, lr=lr, scale_parameter=False, relative_step=False, warmup_init=False
    )
    return optimizer
