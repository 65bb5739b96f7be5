"""Prompt-tune a pack of runs in shared batches; each run has its own optimizer, stopping and best prompt.

Where a pack has fewer places than runs, the others wait until a place is free.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softstart.backbone import Backbone, Batch
from softstart.errors import Damaged, SoftstartError
from softstart.progress import Progress, silent
from softstart.storage.tensors import digest_of, load_tensors, numeric, save_tensors
from softstart.training.configs import AdaptConfig, bound_of, steps_of
from softstart.training.distributed import this_job
from softstart.training.encoding import EncodedTask, rng_for, to_batch
from softstart.training.evaluation import Evaluation, Job, evaluate
from softstart.training.gradients import run_gradients
from softstart.training.objective import counting
from softstart.training.optimizers import StackedOptimizer
from softstart.training.places import Places, whole_groups
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
    """Runs of one group compete at the rungs, so all of them belong in one pack and begin together; None: no
    rivals."""
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
    ``status`` is ``"done"``, ``"stopped"`` (early, after ``steps``) or ``"diverged"``
    (loss no longer finite; the best prompt until then is kept), until then ``"waiting"`` or ``"running"``.
    ``tokens``, ``flops`` and what was computed of them count the training steps as ``objective.Work`` does,
    without the dev evaluations.
    """

    prompt: Tensor
    dev: float = math.nan
    best_step: int = 0
    steps: int = 0
    status: str = "waiting"
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    kept: dict[int, Tensor] = field(default_factory=dict)
    tokens: int = 0
    flops: float = 0.0
    computed_tokens: int = 0
    computed_flops: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether no step is left."""
        return self.status not in ("waiting", "running")


def adapt(
    backbone: Backbone,
    runs: Sequence[AdaptRun],
    config: AdaptConfig,
    evaluation: Evaluation = Evaluation(),
    *,
    places: int | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> list[Adapted]:
    """Prompt-tune all runs as one pack; every run ends as it would alone.

    With fewer ``places`` than runs, the others wait. When a run ends early, the next one takes its place at
    the next multiple of ``eval_every`` steps, where the runs in training are evaluated. So a pack stays full
    until no run waits.

    Under ``torchrun`` or ``accelerate launch`` every process takes its share of the runs and gets all
    results. Each process has its own places and its own checkpoint; only a job with the same number of
    processes can resume from it.

    Args:
        backbone: the frozen model.
        runs: the pack; starts must share one shape [P, d].
        config: steps, batches, evaluation, selection.
        evaluation: decoding of the dev evaluations.
        places: upper bound on the runs that train at once; a group of rivals at the rungs that is larger
            trains alone. None: all runs at once.
        checkpoint: a file to resume from and to save to at every dev evaluation. With fewer places than there
            were, runs that have none any more begin again in their turn; with more, no more are used.
        progress: receives the number of run-steps done, and those that a run which ended early leaves out.

    Raises:
        SoftstartError: a sample the task does not have, an empty train file, a damaged checkpoint, no place
            at all, or processes that were given different runs.

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
        return _adapt(backbone, runs, config, evaluation, places, checkpoint, progress)
    processes.agree(_fingerprint(runs, config), config, evaluation, places)
    if checkpoint:
        checkpoint = checkpoint.with_stem(f"{checkpoint.stem}-{processes.rank}-of-{processes.world}")

    def adapt_share(indices: list[int]) -> list[tuple[int, Adapted]]:
        share = [runs[i] for i in indices]
        results = _adapt(backbone, share, config, evaluation, places, checkpoint, progress)
        return list(zip(indices, results, strict=True))

    results = dict(processes.spread(whole_groups([run.group for run in runs], 1), adapt_share))
    return [results[i] for i in range(len(runs))]


def _adapt(
    backbone: Backbone,
    runs: Sequence[AdaptRun],
    config: AdaptConfig,
    evaluation: Evaluation,
    places: int | None,
    checkpoint: Path | None,
    progress: Progress,
) -> list[Adapted]:
    pack = _Pack(backbone, runs, config, evaluation, places)
    pack.resume(checkpoint)
    done = _run_steps(pack.results, config)
    progress(done, "resumed" if pack.step else "")
    while pack.enter():
        pack.train_step()
        evaluated = pack.assess()
        if evaluated and checkpoint:
            pack.save(checkpoint)
        before, done = done, _run_steps(pack.results, config)
        progress(done - before, f"dev {_mean_dev(pack.results):.2f}")
    return pack.results


class _Pack:
    """The state of a pack between two steps: R runs, of which those at a place are training.

    ``prompts`` and ``best`` [S, P, d] are those of the runs at the S places. Every run counts its own steps.
    """

    def __init__(
        self,
        backbone: Backbone,
        runs: Sequence[AdaptRun],
        config: AdaptConfig,
        evaluation: Evaluation,
        places: int | None = None,
    ) -> None:
        # Only rivals at the rungs must begin together.
        groups = whole_groups([run.group if config.rungs else None for run in runs], 1)
        self.places = Places(groups, places)
        _check(backbone, runs, self.places, places)
        self.backbone, self.runs, self.config, self.evaluation = backbone, runs, config, evaluation
        self.bound = bound_of(config, backbone.device)
        self.limits = [steps_of(config, len(run.task.train[run.sample].trainable)) for run in runs]
        self.rates = scaled_rates(backbone, config.lr_unit, _rates(runs))
        self.results = [Adapted(run.start) for run in runs]
        self.losses: list[list[float]] = [[] for _ in runs]
        self.step = 0
        self._furnish()

    def _furnish(self) -> None:
        """Tensors for as many runs as there are places."""
        first = self.runs[: len(self.places.run_at)]
        starts = torch.stack([run.start for run in first])
        self.prompts = starts.to(self.backbone.device, self.backbone.prompt_dtype).clone()  # [S, P, d]
        self.best = self.prompts.clone()
        self.optimizer = StackedOptimizer(self.prompts, self.rates[: len(first)], self.config.optimizer)

    def enter(self) -> bool:
        """Let waiting runs begin at free places; whether any run is training then.

        They begin where those in training are evaluated: so evaluations stay together.
        """
        every = self.config.eval_every
        while True:
            self._end_finished()
            if any(self.results[run].steps % every for run in self.places.taken.values()):
                return True
            if not (begun := self.places.fill()):
                return bool(self.places.taken)
            at, runs = list(begun), list(begun.values())
            self.prompts[at] = torch.stack([self.runs[r].start for r in runs]).to(self.prompts)
            self.best[at] = self.prompts[at]
            self.optimizer.begin(self.prompts, at, self.rates[runs])
            for r in runs:
                self.results[r].status = "running"
            if self.config.eval_start:
                self.evaluate(at)

    def train_step(self) -> None:
        """One step of every run in training, all rows in shared forward passes."""
        taken = self.places.taken
        at, runs, length = list(taken), list(taken.values()), self.prompts.shape[1]
        stack, working = self._stack(at), [self.results[r] for r in runs]
        parts = []
        for part in range(self.config.batch_parts):
            batch = self._batch(runs, part)
            with counting(working.__getitem__, self.backbone, batch, length):
                parts.append(run_gradients(self.backbone, stack, batch, self.bound, loss=self.config.loss))
        losses, slopes = (torch.stack(t).mean(0) for t in zip(*parts, strict=True))
        finite = losses.isfinite() & slopes.flatten(1).isfinite().all(1)
        gradient = torch.zeros_like(self.prompts)
        moves = torch.zeros(len(gradient), dtype=torch.bool, device=gradient.device)
        gradient[at], moves[at] = slopes, finite
        self.optimizer.step(self.prompts, gradient, moves)
        self.step += 1
        for (place, r), loss, fine in zip(taken.items(), losses.tolist(), finite.tolist(), strict=True):
            if fine:
                self.losses[r].append(loss)
                self.results[r].steps += 1
            else:
                self._end(place, "diverged")

    def assess(self) -> bool:
        """Do what is due after a step: evaluations, ends, rungs, budgets; whether a checkpoint is due too."""
        config, every, taken = self.config, self.config.eval_every, self.places.taken
        marks = {config.steps, *config.budgets, *config.rungs}
        steps = {place: self.results[r].steps for place, r in taken.items()}
        self.evaluate([
            place for place, step in steps.items()
            if step in marks or step == self.limits[taken[place]]
            or (step % every == 0 and _due(self.results[taken[place]], config))
        ])  # fmt: skip
        self._end_finished()
        self._halve([p for p, step in steps.items() if step in config.rungs and step < config.steps])
        for place, r in self.places.taken.items():
            if steps[place] in config.budgets:
                self._keep(r, place)
        return any(step % every == 0 or step in marks for step in steps.values())

    def evaluate(self, places: Sequence[int]) -> None:
        """Score the runs at some places on dev; copy new best prompts; stop runs out of patience."""
        if not places:
            return
        patience = math.inf if self.config.patience is None else self.config.patience
        taken = self.places.taken
        runs = [self.runs[taken[place]] for place in places]
        jobs = [Job(i, run.task, run.task.dev[run.sample]) for i, run in enumerate(runs)]
        scores = evaluate(self.backbone, self._stack(places), jobs, self.evaluation)
        for place, dev in zip(places, scores, strict=True):
            r = taken[place]
            result, losses = self.results[r], self.losses[r]
            result.curve.append((result.steps, dev, sum(losses) / len(losses) if losses else math.nan))
            self.losses[r] = []
            # NaN (an undefined correlation) is worse than any number.
            if not result.dev >= dev and not math.isnan(dev):
                result.dev, result.best_step = dev, result.steps
                self.best[place] = self.prompts[place]
                if dev >= 1.0 and self.config.stop_at_perfect and self.config.select == "best":
                    self._end(place, "stopped")
            elif _flat(result, self.config) >= patience:
                self._end(place, "stopped")

    def _halve(self, places: Sequence[int]) -> None:
        """Stop the worse half of the runs of every group that are still training, rounded down."""
        groups: dict[str, list[int]] = {}
        taken = self.places.taken
        for place in sorted(taken.keys() & places, key=taken.__getitem__):
            if (group := self.runs[taken[place]].group) is not None:
                groups.setdefault(group, []).append(place)
        for rivals in groups.values():
            best_first = sorted(rivals, key=lambda place: -_or_worst(self.results[taken[place]].dev))
            for place in best_first[(len(rivals) + 1) // 2 :]:
                self._end(place, "stopped")

    def _end_finished(self) -> None:
        """End the runs whose last step is done."""
        for place, r in self.places.taken.items():
            if self.results[r].steps >= self.limits[r]:
                self._end(place, "done")

    def _end(self, place: int, status: str) -> None:
        """End a run: it keeps a copy of its selected prompt, and its place is free."""
        r = self.places.leave(place)
        self.results[r].status = status
        self.results[r].prompt = self._keep(r, place)

    def _keep(self, r: int, place: int) -> Tensor:
        """Keep a copy of the prompt [P, d] that a run would end with now."""
        result, best = self.results[r], self._ends_with_best(r)
        step = result.best_step if best else result.steps
        chosen = self.best if best else self.prompts
        return result.kept.setdefault(step, chosen[place].cpu().clone())

    def _ends_with_best(self, r: int) -> bool:
        return self.config.select == "best" or self.results[r].status == "diverged"

    def _stack(self, places: Sequence[int]) -> Tensor:
        """The prompts at some places, in ascending order: idle ones would be read for nothing."""
        return self.prompts if len(places) == len(self.prompts) else self.prompts[list(places)]

    def _batch(self, runs: Sequence[int], part: int) -> Batch:
        pairs, owners, size, parts = [], [], self.config.batch_size, self.config.batch_parts
        masks: list[Tensor | None] = []
        for i, r in enumerate(runs):
            run, step = self.runs[r], self.results[r].steps
            rows, key = run.task.train[run.sample], (run.seed, run.sample)
            order, picked = rows.of_step(step, size, *key, reshuffle=self.config.reshuffle)
            picked = picked[part::parts]
            pairs += picked
            owners += [i] * len(picked)
            masks.append(run.hidden(order[part::parts], step, part))
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
        header = {"of": self._work(), "step": self.step, "losses": self.losses, "results": results}
        save_tensors(
            path,
            {"prompts": self.prompts, "best": self.best, **kept, **state},
            {**header, "places": self.places.run_at},
        )

    def resume(self, path: Path | None) -> None:
        """Go on from what ``save`` wrote, if there is such a file."""
        if path is None or not path.exists():
            return
        tensors, header = load_tensors(path, self._work())
        try:
            self._restore(tensors, header)
        except (KeyError, RuntimeError, IndexError, TypeError, ValueError, AttributeError) as problem:
            raise Damaged(
                "is not a checkpoint of this pack", where=str(path), fix="Delete it to start the pack over."
            ) from problem

    def _restore(self, tensors: dict[str, Tensor], header: Mapping[str, Any]) -> None:
        self.step, self.losses = header["step"], header["losses"]
        for r, saved in enumerate(header["results"]):
            kept = {s: tensors.pop(f"kept.{r}.{s}") for s in saved["kept"]}
            curve = [(int(s), d, loss) for s, d, loss in saved["curve"]]
            self.results[r] = Adapted(**{**saved, "prompt": self.runs[r].start, "curve": curve, "kept": kept})
        # Before packs had places, every run had its own, also once it had ended.
        run_at = header.get("places", range(len(self.runs)))
        prompts, best = (tensors.pop(name).to(self.prompts) for name in ("prompts", "best"))
        self.prompts, self.best = prompts, best
        for r, result in enumerate(self.results):
            if result.ended:
                final = result.best_step if self._ends_with_best(r) else result.steps
                result.prompt = result.kept[final] if final in result.kept else self._keep(r, run_at.index(r))
        running = {p: r for p, r in enumerate(run_at) if r is not None and not self.results[r].ended}
        waiting = {r for r, result in enumerate(self.results) if result.status == "waiting"}
        before = self.places.restore(running, waiting, len(run_at))
        for r in (r for group in self.places.waiting for r in group):
            self.results[r], self.losses[r] = Adapted(self.runs[r].start), []
        self._furnish()
        at, rows = list(before), list(before.values())
        self.prompts[at], self.best[at] = prompts[rows], best[rows]
        self.optimizer.begin(self.prompts, at, self.rates[[running[row] for row in rows]])
        for key, value in self.optimizer.state_dict().items():
            value[at] = tensors[f"optimizer.{key}"].to(value)[rows]

    def _work(self) -> str:
        """Fingerprint of the work that a checkpoint belongs to."""
        return _fingerprint(self.runs, self.config)


def _check(backbone: Backbone, runs: Sequence[AdaptRun], places: Places, most: int | None) -> None:
    """Refuse runs that cannot be a pack."""
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
    if most is not None and most < 1:
        raise SoftstartError(f"a pack cannot train with {most} places", fix="Give places=1 or more, or None.")
    if backbone.rows_interact and len(places.run_at) > 1:
        raise SoftstartError(
            f"runs under placement '{backbone.placement}' cannot share a pack: their numbers would mix",
            fix="Set pack_size: 1, or placement: suffix.",
        )


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


def _mean_dev(results: Sequence[Adapted]) -> float:
    """Mean best dev score so far over the runs that have one."""
    known = [r.dev for r in results if not math.isnan(r.dev)]
    return sum(known) / len(known) if known else math.nan


def _run_steps(results: Sequence[Adapted], config: AdaptConfig) -> float:
    """The steps of all runs, where those that a run which ended early leaves out count as done."""
    return float(sum(config.steps if r.ended else r.steps for r in results))


def _flat(result: Adapted, config: AdaptConfig) -> int:
    """For how long a run's best dev score has not improved, in units of ``eval_every`` steps."""
    return result.steps // config.eval_every - result.best_step // config.eval_every


def _due(result: Adapted, config: AdaptConfig) -> bool:
    """Whether to evaluate at this multiple of ``eval_every``: the gaps double, up to ``eval_backoff``."""
    most, n = config.eval_backoff, _flat(result, config)
    # n & (n - 1) clears the lowest bit: it is 0 for 0 and for powers of two.
    return n % most == 0 or (n < most and n & (n - 1) == 0)


def _or_worst(dev: float) -> float:
    return -math.inf if math.isnan(dev) else dev
