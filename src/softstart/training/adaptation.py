"""Prompt-tune a pack of runs in shared batches; each run has its own optimizer, stopping and best prompt."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from softstart.backbone import Backbone, Batch
from softstart.errors import Damaged, SoftstartError
from softstart.progress import Progress, silent
from softstart.storage.tensors import digest_of, load_tensors, numeric, save_tensors
from softstart.training.configs import AdaptConfig, steps_of
from softstart.training.distributed import this_job
from softstart.training.encoding import EncodedTask, rng_for, to_batch
from softstart.training.evaluation import Evaluation, Job, evaluate
from softstart.training.objective import counting, run_gradients
from softstart.training.optimizers import StackedOptimizer
from softstart.training.rates import scaled_rates


@dataclass(frozen=True, eq=False)
class AdaptRun:
    """One run: a start [P, d], a sample of a target task, a learning rate.

    Runs with the same ``seed`` see the rows of a sample in the same order, whatever their start or learning
    rate, so that methods are compared on equal data.
    """

    start: Tensor
    task: EncodedTask
    sample: int
    lr: float
    seed: int = 0
    group: str | None = None
    """Runs of one group compete at the rungs, so all of them belong in one pack; None: no rivals."""
    rates: Tensor | None = None
    """Learning rates of the prompt's rows relative to each other [P, 1] (Meta-SGD), scaled so that their mean
    is ``lr``; None: ``lr`` for all rows."""
    origins: Tensor | None = None
    """The train row that each row of the prompt began as [P], counted among those with an answer, -1: none.
    A train row is read without the prompt rows that began as itself (leave-one-out masking, Lu et al., 2025).
    None: every row is read with the whole prompt."""
    token_dropout: float = 0.0
    """A train row is read without this share of the prompt's rows, drawn anew in every step."""

    def hidden(self, rows: Sequence[int], *key: int) -> Tensor | None:
        """Which prompt rows some train rows are read without [rows, P]; None: none. ``key``: of the draws."""
        length, shown = len(self.start), torch.tensor(list(rows))
        if self.origins is None and not self.token_dropout:
            return None
        hidden = torch.zeros(len(shown), length, dtype=torch.bool)
        if self.origins is not None:
            hidden |= shown[:, None] == self.origins
        if self.token_dropout:
            draws = rng_for(self.seed, self.sample, *key, 5).random((len(shown), length))
            hidden |= torch.from_numpy(draws < self.token_dropout)
        return hidden


@dataclass
class Adapted:
    """The outcome of a run: the selected prompt [P, d], its best dev score and step, and the dev curve.

    ``curve`` holds (step, dev score, mean training loss since the last evaluation). ``kept`` holds, by step,
    the prompts chosen at the budgets and at the end.
    ``status`` is ``"done"``, ``"stopped"`` (by patience or at a rung, after ``steps``) or ``"diverged"``
    (loss no longer finite; the best prompt until then is kept). ``tokens``, ``flops`` and what was computed
    of them count the training steps as ``objective.Work`` does, without the dev evaluations.
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
    computed_tokens: int = 0
    computed_flops: float = 0.0


def adapt(
    backbone: Backbone,
    runs: Sequence[AdaptRun],
    config: AdaptConfig,
    evaluation: Evaluation = Evaluation(),
    *,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> list[Adapted]:
    """Prompt-tune all runs as one pack; every run ends as it would alone.

    Under ``torchrun`` or ``accelerate launch`` every process takes its share of the runs and gets all
    results. Each process has its own checkpoint; only a job with the same number of processes can resume
    from it.

    Args:
        backbone: the frozen model.
        runs: the pack; starts must share one shape [P, d].
        config: steps, batches, evaluation, selection.
        evaluation: decoding of the dev evaluations.
        checkpoint: a file to resume from and to save to at every dev evaluation.
        progress: receives the number of run-steps done.

    Raises:
        SoftstartError: a sample the task does not have, an empty train file, a damaged checkpoint, or
            processes that were given different runs.

    >>> from softstart import AdaptConfig, AdaptRun, Backbone, TextFormat, adapt, encode_task
    >>> from softstart.gym import load_task
    >>> backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    >>> task = encode_task(load_task("film_review"), backbone, TextFormat("{input}"))
    >>> start = backbone.vocabulary[300:305].clone()  # [P, d]
    >>> runs = [AdaptRun(start, task, sample=13, lr=lr) for lr in (0.5, 0.2)]
    >>> results = adapt(backbone, runs, AdaptConfig(steps=2, eval_every=2))
    >>> [(tuple(result.prompt.shape), result.steps, result.status) for result in results]
    [((5, 128), 2, 'done'), ((5, 128), 2, 'done')]
    """
    processes = this_job()
    if processes.world == 1:
        return _adapt(backbone, runs, config, evaluation, checkpoint, progress)
    processes.agree(_fingerprint(runs, config), config, evaluation)
    if checkpoint:
        checkpoint = checkpoint.with_stem(f"{checkpoint.stem}-{processes.rank}-of-{processes.world}")

    def adapt_share(indices: list[int]) -> list[tuple[int, Adapted]]:
        share = [runs[i] for i in indices]
        results = _adapt(backbone, share, config, evaluation, checkpoint, progress)
        return list(zip(indices, results, strict=True))

    results = dict(processes.spread(whole_groups([run.group for run in runs], 1), adapt_share))
    return [results[i] for i in range(len(runs))]


def whole_groups(groups: Sequence[str | None], size: int) -> list[list[int]]:
    """Cut runs into packs of at most ``size`` that keep groups whole; a larger group is a pack by itself.

    Args:
        groups: the group of every run, in order.
        size: upper bound on the runs of a pack.

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


def _adapt(
    backbone: Backbone,
    runs: Sequence[AdaptRun],
    config: AdaptConfig,
    evaluation: Evaluation,
    checkpoint: Path | None,
    progress: Progress,
) -> list[Adapted]:
    pack = _Pack(backbone, runs, config, evaluation)
    pack.resume(checkpoint)
    progress(float(sum(result.steps for result in pack.results)), "resumed" if pack.step else "")
    if pack.step == 0 and config.eval_start:
        pack.evaluate()
    while pack.step < config.steps and bool(pack.active.any()):
        running = int(pack.active.sum())
        pack.train_step()
        marks = (config.steps, *config.budgets, *config.rungs)
        if pack.step % config.eval_every == 0 or pack.step in marks:
            pack.evaluate(None if pack.step in marks else [*pack.due(), *pack.last()])
            pack.end_epochs()
            if pack.step in config.rungs and pack.step < config.steps:
                pack.halve()
            if pack.step in config.budgets:
                pack.keep()
            if checkpoint:
                pack.save(checkpoint)
        elif pack.step in pack.limits:
            pack.evaluate(pack.last())
            pack.end_epochs()
        progress(running, f"dev {pack.mean_dev():.2f}")
    return pack.finish()


class _Pack:
    """The state of a pack between two steps: R runs, of which the active ones are still training."""

    def __init__(
        self, backbone: Backbone, runs: Sequence[AdaptRun], config: AdaptConfig, evaluation: Evaluation
    ) -> None:
        for run in runs:
            if run.sample not in run.task.train:
                raise SoftstartError(
                    f"task '{run.task.name}' has no sample {run.sample}",
                    fix=f"It has {', '.join(map(str, run.task.train))}.",
                )
            if not run.task.train[run.sample].trainable:
                raise SoftstartError("the train file has no example", where=f"{run.task.name} {run.sample}")
        if len({run.start.shape for run in runs}) > 1:
            raise SoftstartError("the prompts of a pack differ in length", fix="Adapt each length by itself.")
        if backbone.rows_interact and len(runs) > 1:
            raise SoftstartError(
                f"runs under placement '{backbone.placement}' cannot share a pack: their numbers would mix",
                fix="Set pack_size: 1, or placement: suffix.",
            )
        self.backbone, self.runs, self.config, self.evaluation = backbone, runs, config, evaluation
        self.limits = [steps_of(config, len(run.task.train[run.sample].trainable)) for run in runs]
        starts = torch.stack([run.start for run in runs])
        self.prompts = starts.to(backbone.device, backbone.prompt_dtype).clone()  # [R, P, d]
        self.best = self.prompts.clone()
        rates = scaled_rates(backbone, config.lr_unit, _rates(runs))
        self.optimizer = StackedOptimizer(self.prompts, rates, config.optimizer)
        self.results = [Adapted(prompt) for prompt in self.best]
        self.losses: list[list[float]] = [[] for _ in runs]
        self.step = 0

    @property
    def active(self) -> Tensor:
        """[R] bool: runs still training."""
        return torch.tensor([r.status == "running" for r in self.results], device=self.prompts.device)

    def train_step(self) -> None:
        """One step of every active run, all rows in shared forward passes."""
        active = self.active
        parts = []
        for part in range(self.config.batch_parts):
            batch = self._batch(active, part)
            with counting(self.results.__getitem__, self.backbone, batch, self.prompts.shape[1]):
                parts.append(
                    run_gradients(
                        self.backbone, self.prompts, batch, self.config.max_tokens, loss=self.config.loss
                    )
                )
        losses, gradient = (torch.stack(t).mean(0) for t in zip(*parts, strict=True))
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

    def evaluate(self, among: Sequence[int] | None = None) -> None:
        """Score the active runs (``among``) on dev; copy new best prompts; stop runs out of patience."""
        scored = [r for r in self.active.nonzero().flatten().tolist() if among is None or r in among]
        patience = math.inf if self.config.patience is None else self.config.patience
        jobs = [Job(r, self.runs[r].task, self.runs[r].task.dev[self.runs[r].sample]) for r in scored]
        for r, dev in zip(scored, evaluate(self.backbone, self.prompts, jobs, self.evaluation), strict=True):
            result, losses = self.results[r], self.losses[r]
            result.curve.append((self.step, dev, sum(losses) / len(losses) if losses else math.nan))
            self.losses[r] = []
            # NaN (an undefined correlation) is worse than any number.
            if not result.dev >= dev and not math.isnan(dev):
                result.dev, result.best_step = dev, self.step
                self.best[r] = self.prompts[r]
            elif self.flat(r) >= patience:
                result.status = "stopped"

    def flat(self, r: int) -> int:
        """For how long a run's best dev score has not improved, in units of ``eval_every`` steps."""
        return self.step // self.config.eval_every - self.results[r].best_step // self.config.eval_every

    def due(self) -> list[int]:
        """Runs to evaluate at a multiple of ``eval_every``: the gaps double, up to ``eval_backoff``."""
        most = self.config.eval_backoff
        flat = [self.flat(r) for r in range(len(self.runs))]
        # n & (n - 1) clears the lowest bit: it is 0 for 0 and for powers of two.
        return [r for r, n in enumerate(flat) if n % most == 0 or (n < most and n & (n - 1) == 0)]

    def last(self) -> list[int]:
        """The runs whose last epoch ends with this step."""
        return [r for r, limit in enumerate(self.limits) if limit == self.step]

    def end_epochs(self) -> None:
        """Mark the runs whose last epoch ends with this step as done."""
        for r in self.last():
            if self.results[r].status == "running":
                self.results[r].status = "done"

    def halve(self) -> None:
        """Stop the worse half of the running runs of every group, rounded down."""
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
        """Keep a copy of the prompt [P, d] chosen so far for each run; the steps and prompts kept."""
        chosen = []
        for r, result in enumerate(self.results):
            best = self.config.select == "best" or result.status == "diverged"
            step = result.best_step if best else result.steps
            prompt = (self.best if best else self.prompts)[r].cpu().clone()
            chosen.append((step, result.kept.setdefault(step, prompt)))
        return chosen

    def _batch(self, active: Tensor, part: int) -> Batch:
        pairs, owners, size, parts = [], [], self.config.batch_size, self.config.batch_parts
        masks: list[Tensor | None] = []
        for r in active.nonzero().flatten().tolist():
            run = self.runs[r]
            rows, key = run.task.train[run.sample], (run.seed, run.sample)
            order, picked = rows.of_step(self.step, size, *key, reshuffle=self.config.reshuffle)
            picked = picked[part::parts]
            pairs += picked
            owners += [r] * len(picked)
            masks.append(run.hidden(order[part::parts], self.step, part))
        dropped = rng_for(self.runs[0].seed, self.step, 2, *([part] if part else []))
        seed = int(dropped.integers(2**31)) if self.config.dropout else None
        batch = to_batch(pairs, owners, self.backbone.tokenizer.pad_token_id, seed)
        return replace(batch, hidden=self._stacked(masks, owners)).to(self.prompts.device)

    def _stacked(self, masks: Sequence[Tensor | None], owners: Sequence[int]) -> Tensor | None:
        """The masks of all runs as one [B, P]; None where no run hides anything."""
        if all(mask is None for mask in masks):
            return None
        sizes = list(Counter(owners).values())
        length = self.prompts.shape[1]
        nothing = [torch.zeros(size, length, dtype=torch.bool) for size in sizes]
        return torch.cat([none if mask is None else mask for mask, none in zip(masks, nothing, strict=True)])

    def save(self, path: Path) -> None:
        """Everything ``resume`` needs, in one file."""
        state = {f"optimizer.{key}": value for key, value in self.optimizer.state_dict().items()}
        results = [{**vars(r), "prompt": None, "kept": sorted(r.kept)} for r in self.results]
        kept = {f"kept.{r}.{s}": p for r, result in enumerate(self.results) for s, p in result.kept.items()}
        save_tensors(
            path,
            {"prompts": self.prompts, "best": self.best, **kept, **state},
            {"of": self._work(), "step": self.step, "losses": self.losses, "results": results},
        )

    def resume(self, path: Path | None) -> None:
        """Go on from what ``save`` wrote, if there is such a file."""
        if path is None or not path.exists():
            return
        tensors, header = load_tensors(path, self._work())
        try:
            self.prompts.copy_(tensors.pop("prompts"))
            self.best.copy_(tensors.pop("best"))
            kept = [
                {s: tensors.pop(f"kept.{r}.{s}") for s in saved["kept"]}
                for r, saved in enumerate(header["results"])
            ]
            self.optimizer.load_state_dict({k.removeprefix("optimizer."): v for k, v in tensors.items()})
            self.step, self.losses = header["step"], header["losses"]
            for r, saved in enumerate(header["results"]):
                curve = [(int(s), d, loss) for s, d, loss in saved["curve"]]
                self.results[r] = Adapted(
                    **{**saved, "prompt": self.best[r], "curve": curve, "kept": kept[r]}
                )
        except (KeyError, RuntimeError, IndexError, TypeError, AttributeError) as problem:
            raise Damaged(
                "is not a checkpoint of this pack", where=str(path), fix="Delete it to start the pack over."
            ) from problem

    def _work(self) -> str:
        """Fingerprint of the work that a checkpoint belongs to."""
        return _fingerprint(self.runs, self.config)


def _fingerprint(runs: Sequence[AdaptRun], config: AdaptConfig) -> str:
    """A digest of everything that the numbers of these runs depend on, apart from the backbone."""
    facts = [(r.task.train.get(r.sample), r.task.dev.get(r.sample), r.lr, r.seed, r.group) for r in runs]
    starts = [tensor for r in runs for tensor in (r.start, r.rates)]
    if any(r.origins is not None or r.token_dropout for r in runs):
        starts += [tensor for r in runs for tensor in (r.origins, torch.tensor(r.token_dropout))]
    return digest_of(facts, *starts, numeric(config))


def _rates(runs: Sequence[AdaptRun]) -> Tensor:
    """Learning rates [R], or [R, P] where rows of a prompt have different ones."""
    lrs = torch.tensor([run.lr for run in runs], dtype=torch.float64)
    if all(run.rates is None for run in runs):
        return lrs
    ones = torch.ones(len(runs[0].start), dtype=torch.float64)
    shares = [ones if run.rates is None else run.rates.flatten().to(ones) for run in runs]
    return torch.stack([lr * share / share.mean() for lr, share in zip(lrs, shares, strict=True)])


def _or_worst(dev: float) -> float:
    return -math.inf if math.isnan(dev) else dev
