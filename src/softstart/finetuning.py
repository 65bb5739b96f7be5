"""Full fine-tuning, the baseline that trains every weight. It does not pack: one plain loop a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from softstart.backbone import Backbone
from softstart.encoding import EncodedTask, epoch_slice, rng_for, to_batch
from softstart.evaluation import Assessment, Evaluation, Job, assess, evaluate, no_prompt
from softstart.objective import row_work
from softstart.progress import Progress, silent
from softstart.tuning import FineTuneConfig as FineTuneConfig
from softstart.tuning import steps_of


@dataclass
class FineTuned:
    """How a run went; ``weights`` is a copy of the best state, on the CPU. Fields as in ``Adapted``."""

    dev: float = math.nan
    best_step: int = 0
    steps: int = 0
    status: str = "running"
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    tokens: int = 0
    flops: float = 0.0


def finetune(
    backbone: Backbone,
    task: EncodedTask,
    sample: int,
    lr: float,
    config: FineTuneConfig,
    how: Evaluation,
    *,
    seed: int = 0,
    progress: Progress = silent,
    at_budget: Callable[[FineTuned], None] | None = None,
) -> FineTuned:
    """Fine-tune a copy of the backbone on one sample, with no prompt; ``backbone`` stays as it is.

    Args:
        backbone: where the weights start.
        task: the target task.
        sample: which k-shot sample.
        lr: Adafactor's learning rate (no relative step, no parameter scaling).
        config: steps, batches, evaluation.
        how: decoding of the dev evaluations.
        seed: data order, as in ``AdaptRun``.
        progress: told the number of steps done.
        at_budget: called at every budget, and at the end, with the result so far: test its weights then,
            for only the best ones are kept.
    """
    model = backbone.trainable_copy()
    optimizer = _optimizer(model.model, lr, config.weight_decay)
    rows, dev_rows = task.train[sample], task.dev[sample]
    nothing, result, losses, waited = no_prompt(model), FineTuned(), [], 0
    steps, size, of = steps_of(config, len(rows.trainable)), config.batch_size, config.batch_parts
    for step in range(steps):
        order = epoch_slice(len(rows.trainable), step * size, size, seed, sample, reshuffle=config.reshuffle)
        pairs = rows.pick([rows.trainable[i] for i in order], rng_for(seed, sample, step, 1))
        dropout = int(rng_for(seed, step, 2).integers(2**31)) if config.dropout else None
        optimizer.zero_grad()
        total = 0.0
        for part in (pairs[i::of] for i in range(of)):
            batch = to_batch(part, [0] * len(part), model.tokenizer.pad_token_id).to(model.device)
            for tokens, flops in row_work(model, batch, 0):
                result.tokens += tokens
                result.flops += flops.full_gradient
            sums, counts = model.nll(nothing, batch, seed=dropout)
            loss = sums.sum() / counts.sum() / of
            total += float(loss.detach())
            if math.isfinite(total):
                loss.backward()
        if not math.isfinite(total):
            result.status = "diverged"
            progress(config.steps - step, "diverged")
            break
        optimizer.step()
        losses.append(total)
        result.steps = step + 1
        progress(1, f"loss {losses[-1]:.2f}")
        budget = result.steps in config.budgets
        if result.steps % config.eval_every == 0 or result.steps == steps or budget:
            (dev,) = evaluate(model, nothing, [Job(0, task, dev_rows)], how)
            result.curve.append((result.steps, dev, sum(losses) / len(losses)))
            losses, waited = [], waited + 1
            if not result.dev >= dev and not math.isnan(dev):
                result.dev, result.best_step, waited = dev, result.steps, 0
                result.weights = {k: v.detach().cpu().clone() for k, v in model.model.state_dict().items()}
            elif config.patience is not None and waited >= config.patience:
                result.status = "stopped"
                progress(config.steps - result.steps, "stopped")
                break
            if at_budget and budget:
                at_budget(result)
    if result.status == "running":
        result.status = "done"
        progress(config.steps - steps)
    if at_budget:
        at_budget(result)
    return result


def score_finetuned(
    backbone: Backbone, results: Sequence[FineTuned], task: EncodedTask, how: Evaluation
) -> list[Assessment]:
    """The test score of each fine-tuned state; NaN where a run diverged before its first evaluation."""
    model = backbone.trainable_copy()
    model.model.requires_grad_(False)
    scores: list[Assessment] = []
    for result in results:
        if not result.weights:
            scores.append(Assessment(math.nan, {}))
            continue
        model.model.load_state_dict(result.weights)
        scores += assess(model, no_prompt(model), [Job(0, task, task.test)], how)
    return scores


def _optimizer(model: torch.nn.Module, lr: float, decay: float) -> torch.optim.Optimizer:
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
