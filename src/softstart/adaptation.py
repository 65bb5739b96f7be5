"""Prompt-tune a pack of runs in shared batches; each has its own optimizer, stopping and best prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from softstart.backbone import Backbone, Batch
from softstart.encoding import EncodedTask, epoch_slice, rng_for, to_batch
from softstart.errors import SoftstartError
from softstart.evaluation import Evaluation, Job, evaluate
from softstart.objective import row_work, run_gradients
from softstart.optim import OptimizerConfig, StackedOptimizer, make_optimizer
from softstart.progress import Progress, silent
from softstart.storage import load_tensors, save_tensors

Select = Literal["best", "last"]


@dataclass(frozen=True)
class AdaptConfig:
    """How a target task is learned.

    The defaults are those of Qin et al. (2023), released files, but for ``select`` (they tested the last
    prompt) and the dev evaluation before the first step.
    """

    steps: int = 3000
    batch_size: int = 8
    eval_every: int = 50
    budgets: tuple[int, ...] = ()
    """Steps at which the prompt chosen so far is kept beside the final one; each is a dev evaluation too."""
    eval_start: bool = True
    """Evaluate the start itself, before any step; it can be the best prompt."""
    patience: int | None = None
    """Stop a run after so many dev evaluations without a better score (a plateau); None: never."""
    rungs: tuple[int, ...] = ()
    """Successive halving (Jamieson & Talwalkar, 2016): at these steps only the better half of the running
    runs of a ``group`` goes on, by best dev score, ties to the earlier run. Each is a dev evaluation too."""
    select: Select = "best"
    """Which prompt a run ends with: the one with the best dev score, or the last one."""
    optimizer: OptimizerConfig = OptimizerConfig()
    dropout: bool = False
    """Dropout while training. Masks depend on the pack's layout, so packed = alone only without it."""
    max_tokens: int | None = 16384
    """Bound on the tokens of one forward pass."""


@dataclass(frozen=True, eq=False)
class AdaptRun:
    """One run: a start [P, d], a sample of a target task, a learning rate.

    Runs with the same ``seed`` see a sample's rows in the same order whatever their start or learning rate,
    so that methods are compared on equal data.
    """

    start: Tensor
    task: EncodedTask
    sample: int
    lr: float
    seed: int = 0
    group: str | None = None
    """Runs of one group compete at the rungs, so all of them belong in one pack; None: a run of its own."""


@dataclass
class Adapted:
    """How a run went: the selected prompt [P, d], its best dev score and step, and the dev curve.

    ``curve`` holds (step, dev score, mean training loss in nats since the last evaluation). ``kept`` holds,
    by step, the prompts chosen at the budgets and at the end; see ``chosen_step``.
    ``status`` is ``"done"``, ``"stopped"`` (by patience or at a rung, after ``steps``) or ``"diverged"``
    (loss no longer finite; the best prompt until then is kept). ``tokens`` and ``flops`` count the training
    steps as ``objective.Work`` does, without the dev evaluations.
    """

    prompt: Tensor
    dev: float = math.nan
    best_step: int = 0
    steps: int = 0
    status: str = "running"
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    kept: dict[int, Tensor] = field(default_factory=dict)
    tokens: int = 0
    flops: float = 0.0


def adapt(
    backbone: Backbone,
    runs: Sequence[AdaptRun],
    config: AdaptConfig,
    how: Evaluation = Evaluation(),
    *,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> list[Adapted]:
    """Prompt-tune all runs as one pack; every run ends as it would alone.

    Args:
        backbone: the frozen model.
        runs: the pack; starts must share one shape [P, d].
        config: steps, batches, evaluation, selection.
        how: decoding of the dev evaluations.
        checkpoint: a file to resume from and to save to at every dev evaluation.
        progress: told the number of run-steps done.

    Raises:
        SoftstartError: a sample the task does not have, an empty train file, or a damaged checkpoint.
    """
    pack = _Pack(backbone, runs, config, how)
    pack.resume(checkpoint)
    progress(float(sum(result.steps for result in pack.results)), "resumed" if pack.step else "")
    if pack.step == 0 and config.eval_start:
        pack.evaluate()
    while pack.step < config.steps and bool(pack.active.any()):
        running = int(pack.active.sum())
        pack.train_step()
        marks = (config.steps, *config.budgets, *config.rungs)
        if pack.step % config.eval_every == 0 or pack.step in marks:
            pack.evaluate()
            if pack.step in config.rungs and pack.step < config.steps:
                pack.halve()
            if pack.step in config.budgets:
                pack.keep()
            if checkpoint:
                pack.save(checkpoint)
        progress(running, f"dev {pack.mean_dev():.2f}")
    return pack.finish()


class _Pack:
    """The state of a pack between two steps."""

    def __init__(
        self, backbone: Backbone, runs: Sequence[AdaptRun], config: AdaptConfig, how: Evaluation
    ) -> None:
        for run in runs:
            if run.sample not in run.task.train:
                raise SoftstartError(
                    f"task '{run.task.name}' has no sample {run.sample}",
                    mend=f"It has {', '.join(map(str, run.task.train))}.",
                )
            if not run.task.train[run.sample].trainable:
                raise SoftstartError("the train file has no example", where=f"{run.task.name} {run.sample}")
        self.backbone, self.runs, self.config, self.how = backbone, runs, config, how
        starts = torch.stack([run.start for run in runs])
        self.prompts = starts.to(backbone.device, backbone.prompt_dtype).clone()  # [R, P, d]
        self.best = self.prompts.clone()
        lrs = torch.tensor([run.lr for run in runs], dtype=torch.float64)
        self.optimizer: StackedOptimizer = make_optimizer(self.prompts, lrs, config.optimizer)
        self.results = [Adapted(prompt) for prompt in self.best]
        self.waited = [0] * len(runs)  # evaluations since the best one
        self.losses: list[list[float]] = [[] for _ in runs]
        self.step = 0

    @property
    def active(self) -> Tensor:
        """[R] bool: runs still training."""
        return torch.tensor([r.status == "running" for r in self.results], device=self.prompts.device)

    def train_step(self) -> None:
        """One step of every active run, all rows in shared forward passes."""
        active = self.active
        batch = self._batch(active)
        losses, gradient = run_gradients(self.backbone, self.prompts, batch, self.config.max_tokens)
        work = row_work(self.backbone, batch, self.prompts.shape[1])
        for r, (tokens, flops) in zip(batch.run.tolist(), work, strict=True):
            self.results[r].tokens += tokens
            self.results[r].flops += flops.gradient
        finite = losses.isfinite() & gradient.flatten(1).isfinite().all(1)
        self.optimizer.step(self.prompts, gradient, active & finite)
        self.step += 1
        values, fine = losses.tolist(), finite.tolist()
        for r in active.nonzero().flatten().tolist():
            if fine[r]:
                self.losses[r].append(values[r])
                self.results[r].steps = self.step
            else:
                self.results[r].status = "diverged"

    def evaluate(self) -> None:
        """Score the active runs on dev; copy new best prompts; stop the ones out of patience."""
        which = self.active.nonzero().flatten().tolist()
        jobs = [Job(r, self.runs[r].task, self.runs[r].task.dev[self.runs[r].sample]) for r in which]
        for r, dev in zip(which, evaluate(self.backbone, self.prompts, jobs, self.how), strict=True):
            result, losses = self.results[r], self.losses[r]
            result.curve.append((self.step, dev, sum(losses) / len(losses) if losses else math.nan))
            self.losses[r] = []
            # NaN (an undefined correlation) is worse than any number.
            if not result.dev >= dev and not math.isnan(dev):
                result.dev, result.best_step, self.waited[r] = dev, self.step, 0
                self.best[r] = self.prompts[r]
            else:
                self.waited[r] += 1
                if self.config.patience is not None and self.waited[r] >= self.config.patience:
                    result.status = "stopped"

    def halve(self) -> None:
        """Stop the worse half of the running runs of every group; one of an odd number more goes on."""
        groups: dict[str, list[int]] = {}
        for r, (run, result) in enumerate(zip(self.runs, self.results, strict=True)):
            if run.group is not None and result.status == "running":
                groups.setdefault(run.group, []).append(r)
        for rivals in groups.values():
            best_first = sorted(rivals, key=lambda r: -_or_worst(self.results[r].dev))
            for r in best_first[(len(rivals) + 1) // 2 :]:
                self.results[r].status = "stopped"

    def mean_dev(self) -> float:
        """Mean best dev score so far over the runs that have one."""
        known = [r.dev for r in self.results if not math.isnan(r.dev)]
        return sum(known) / len(known) if known else math.nan

    def finish(self) -> list[Adapted]:
        """The results, each with a copy of its selected prompt."""
        for result, (step, prompt) in zip(self.results, self.keep(), strict=True):
            result.prompt = result.kept[step] = prompt
            result.status = "done" if result.status == "running" else result.status
        return self.results

    def keep(self) -> list[tuple[int, Tensor]]:
        """Keep a copy of every run's prompt chosen so far: (step it is of, prompt [P, d]) of each run."""
        chosen = []
        for r, result in enumerate(self.results):
            best = self.config.select == "best" or result.status == "diverged"
            step = result.best_step if best else result.steps
            prompt = (self.best if best else self.prompts)[r].cpu().clone()
            chosen.append((step, result.kept.setdefault(step, prompt)))
        return chosen

    def _batch(self, active: Tensor) -> Batch:
        pairs, owners, size = [], [], self.config.batch_size
        for r in active.nonzero().flatten().tolist():
            run = self.runs[r]
            rows = run.task.train[run.sample]
            key = (run.seed, run.sample)
            order = epoch_slice(len(rows.trainable), self.step * size, size, *key)
            pairs += rows.pick([rows.trainable[i] for i in order], rng_for(*key, self.step, 1))
            owners += [r] * size
        seed = int(rng_for(self.runs[0].seed, self.step, 2).integers(2**31)) if self.config.dropout else None
        return to_batch(pairs, owners, self.backbone.tokenizer.pad_token_id, seed).to(self.prompts.device)

    def save(self, path: Path) -> None:
        """Everything ``resume`` needs, in one file."""
        state = {f"optimizer.{key}": value for key, value in self.optimizer.state_dict().items()}
        results = [{**vars(r), "prompt": None, "kept": sorted(r.kept)} for r in self.results]
        kept = {f"kept.{r}.{s}": p for r, result in enumerate(self.results) for s, p in result.kept.items()}
        save_tensors(
            path,
            {"prompts": self.prompts, "best": self.best, **kept, **state},
            {"step": self.step, "waited": self.waited, "losses": self.losses, "results": results},
        )

    def resume(self, path: Path | None) -> None:
        """Take up where ``save`` left off, if there is such a file."""
        if path is None or not path.exists():
            return
        tensors, header = load_tensors(path)
        try:
            self.prompts.copy_(tensors.pop("prompts"))
            self.best.copy_(tensors.pop("best"))
            kept = [
                {s: tensors.pop(f"kept.{r}.{s}") for s in saved["kept"]}
                for r, saved in enumerate(header["results"])
            ]
            self.optimizer.load_state_dict({k.removeprefix("optimizer."): v for k, v in tensors.items()})
            self.step, self.waited, self.losses = header["step"], header["waited"], header["losses"]
            for r, saved in enumerate(header["results"]):
                curve = [(int(s), d, loss) for s, d, loss in saved["curve"]]
                self.results[r] = Adapted(
                    **{**saved, "prompt": self.best[r], "curve": curve, "kept": kept[r]}
                )
        except (KeyError, RuntimeError, IndexError, TypeError) as problem:
            raise SoftstartError(
                "is not a checkpoint of this pack", where=str(path), mend="Delete it to start the pack over."
            ) from problem


def _or_worst(dev: float) -> float:
    return -math.inf if math.isnan(dev) else dev


def whole_groups(groups: Sequence[str | None], size: int) -> list[list[int]]:
    """Cut runs into packs of at most ``size`` without parting a group; a larger group is a pack of its own.

    Args:
        groups: the group of every run, in order.
        size: the most runs of a pack.

    Returns:
        Indices of the runs of each pack, groups in the order of their first run.
    """
    members: dict[str | int, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(i if group is None else group, []).append(i)
    packs: list[list[int]] = []
    for rivals in members.values():
        if packs and len(packs[-1]) + len(rivals) <= size:
            packs[-1] += rivals
        else:
            packs.append(list(rivals))
    return packs
