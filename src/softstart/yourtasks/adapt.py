"""Tune a prompt on your own task, from a learned start and from scratch: did the start help?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from softstart.analysis.resampling import difference_interval, score_interval
from softstart.analysis.units import points
from softstart.backbone import Backbone
from softstart.errors import SoftstartError
from softstart.gym.metrics import companions, score
from softstart.gym.task import Task
from softstart.progress import Progress, silent
from softstart.prompt import SoftPrompt
from softstart.training.adaptation import Adapted, AdaptRun, adapt
from softstart.training.configs import AdaptConfig
from softstart.training.encoding import TextFormat, encode_task
from softstart.training.evaluation import Evaluation
from softstart.yourtasks.curves import RunCurve
from softstart.yourtasks.predict import Predictor
from softstart.yourtasks.repeating import fingerprint
from softstart.yourtasks.starts import starts_of

PT = "PT from scratch"
LEARNED = "learned start"
QUICK = AdaptConfig(steps=300, eval_every=25, max_tokens=2048)
"""How long and in what batches a prompt is tuned, by default."""
RANKED = Evaluation(scoring="rank", max_tokens=4096)
"""How predictions are made, by default: where there are labels, the likeliest."""
STILL = 0.02
"""The share of its size that a loss has to move to count as moving."""


@dataclass(frozen=True)
class Tuned:
    """What became of one start: the prompt with the best dev score of all samples, and its learning rate.

    ``devs`` and ``tests`` hold the scores (fractions) of every sample in order, each at its own best learning
    rate and step. ``sample`` is the sample of the prompt, ``low`` and ``high`` are the 95 % interval of its
    test score over test rows. ``outside`` is the share of test predictions that are no label, over all
    samples; None without labels. ``losses`` holds the training loss of every sample at the first and at the
    last dev evaluation. ``diverged`` names the runs whose loss was no longer finite: they count up to where
    it was.
    """

    prompt: SoftPrompt
    lr: float
    best_step: int
    devs: tuple[float, ...]
    tests: tuple[float, ...]
    diverged: tuple[str, ...] = ()
    sample: int = 0
    low: float = math.nan
    high: float = math.nan
    outside: float | None = None
    losses: tuple[tuple[float, float], ...] = ()
    answers: tuple[Sequence[str], ...] = field(default=(), repr=False)
    """Predictions for the test rows, sample by sample."""
    gain: tuple[float, float] | None = None
    """95 % interval over test rows of the gain in mean test score over plain prompt tuning, or over the first
    start where none has that name (fractions); None for that start itself."""
    never_moved: int = 0
    """How many samples kept their start untrained, because no dev score was above zero."""
    curves: tuple[RunCurve, ...] = field(default=(), repr=False)
    """Dev score and loss by step, of every sample at every learning rate."""

    @property
    def still(self) -> bool:
        """Whether the training loss of no sample moved by as much as ``STILL`` of its size."""
        return bool(self.losses) and all(abs(a - b) < STILL * abs(a) for a, b in self.losses)

    @property
    def dev(self) -> float:
        """The mean over samples."""
        return sum(self.devs) / len(self.devs)

    @property
    def test(self) -> float:
        """The mean over samples."""
        return sum(self.tests) / len(self.tests)


def compare_starts(
    backbone: Backbone,
    task: Task,
    starts: Mapping[str, Tensor | SoftPrompt],
    *,
    text: TextFormat = TextFormat("{input}"),
    samples: Sequence[int] | None = None,
    rates: Sequence[float] = (0.5, 0.3),
    config: AdaptConfig = QUICK,
    evaluation: Evaluation = RANKED,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Tuned]:
    """Prompt-tune a task from several starts under equal conditions, all runs as one pack.

    Args:
        backbone: the frozen model.
        task: see ``softstart.gym.tables.whole_task``.
        starts: name → [P, d], or [S, P, d] with one for each sample, or a learned start with what belongs to
            it (Meta-SGD's rates, SPoT's prompts); all of one P.
        text: how an example becomes model input.
        samples: names of the task's samples; by default all of them.
        rates: learning rates; the best on dev is kept for each start and sample.
        config: steps, batches, selection.
        evaluation: decoding and scoring, on dev and on test; the prompts note it, so that ``Predictor`` does
            the same.
        seed: of the order of the rows.
        checkpoint: a file to resume from and to save to at every dev evaluation.
        progress: receives the number of run-steps done.

    Raises:
        SoftstartError: every run of a start diverged, or an example that cannot be used.

    >>> from softstart import Backbone
    >>> from softstart.gym import load_task
    >>> from softstart.yourtasks import plain_start
    >>> backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    >>> config = AdaptConfig(steps=2, eval_every=1, max_tokens=2048)
    >>> starts = {"one": plain_start(backbone, 5, seed=1), "other": plain_start(backbone, 5, seed=2)}
    >>> tuned = compare_starts(backbone, load_task("film_review"), starts, samples=[13], config=config)
    >>> list(tuned), 0 <= tuned["one"].test <= 1
    (['one', 'other'], True)
    """
    encoded = encode_task(task, backbone, text)
    samples = list(encoded.train) if samples is None else samples
    begun = {name: starts_of(backbone, start, encoded, samples, seed) for name, start in starts.items()}
    cells = [(name, i, lr) for name in starts for i in range(len(samples)) for lr in rates]
    runs = [
        AdaptRun(task=encoded, sample=samples[i], lr=lr, seed=seed + i, **begun[name].of(i))
        for name, i, lr in cells
    ]
    results = adapt(backbone, runs, config, evaluation, checkpoint=checkpoint, progress=progress)
    progress(0, "testing")
    best = _best_on_dev([(name, i) for name, i, _ in cells], results)
    info = {
        "task": task.name, "metric": task.metric, "labels": list(task.labels), "template": text.template,
        "max_input_tokens": text.max_input_tokens, "max_new_tokens": encoded.max_new_tokens, "seed": seed,
        "batch_size": config.batch_size,
        **({"lr_unit": config.lr_unit} if config.lr_unit != "absolute" else {}),
    }  # fmt: skip
    tuned = {}
    for name in starts:
        nearest = {"nearest": list(begun[name].nearest)} if begun[name].nearest else {}
        chosen = [best[name, i] for i in range(len(samples))]
        of_start = {**info, "method": name, **nearest}
        pairs = [(runs[r], results[r]) for r in chosen]
        found = _tuned(backbone, task, pairs, of_start, evaluation)
        curves = tuple(
            RunCurve(samples[i], lr, r in chosen, tuple(results[r].curve))
            for r, (start, i, lr) in enumerate(cells)
            if start == name
        )
        tuned[name] = replace(found, diverged=_diverged(name, cells, results), curves=curves)
    base = tuned[PT if PT in tuned else next(iter(tuned))]
    return {
        name: of if of is base else replace(of, gain=_gain(task, of, base, evaluation))
        for name, of in tuned.items()
    }


def _gain(task: Task, ours: Tuned, base: Tuned, evaluation: Evaluation) -> tuple[float, float]:
    """The interval of the gain of one start over another, over test rows."""
    return difference_interval(
        task.metric, ours.answers, base.answers, [row.outputs for row in task.test],
        f1_labels=evaluation.f1_labels, labels=task.labels,
    )  # fmt: skip


def adapting_work(
    backbone: Backbone,
    task: Task,
    starts: Mapping[str, Tensor | SoftPrompt],
    text: TextFormat,
    rates: Sequence[float],
    config: AdaptConfig,
    evaluation: Evaluation,
    seed: int,
) -> str:
    """The fingerprint of what ``compare_starts`` does with the same arguments."""
    return fingerprint(
        backbone.digest,
        backbone.placement,
        task.digest,
        task.metric,
        starts,
        text,
        list(rates),
        config,
        evaluation,
        seed,
    )


def best_start(tuned: Mapping[str, Tuned]) -> str:
    """The start with the best mean dev score, the last of equals: its prompt is the one to keep."""
    return max(reversed(list(tuned)), key=lambda name: tuned[name].dev)


def _tuned(
    backbone: Backbone,
    task: Task,
    chosen: Sequence[tuple[AdaptRun, Adapted]],
    info: Mapping[str, Any],
    evaluation: Evaluation,
) -> Tuned:
    """The tested prompts of one start, one for each sample, of which that with the best dev score is kept."""
    inputs, references = [row.input for row in task.test], [row.outputs for row in task.test]
    by: dict[str, Any] = {"f1_labels": evaluation.f1_labels, "labels": task.labels}
    prompts, answers = [], []
    for run, result in chosen:
        made = {**info, "lr": run.lr, "steps": result.best_step, "sample": run.sample}
        prompt = SoftPrompt.of(backbone, result.prompt, made)
        # One prompt at a time, as Predictor does it later: the same rows score the same, to the last bit.
        predictor = Predictor(backbone, prompt, scoring=evaluation.scoring, evaluation=evaluation)
        prompt.info["scoring"] = predictor.scoring
        prompts.append(prompt)
        answers.append(predictor.texts(inputs))
    tests = tuple(score(task.metric, given, references, **by) for given in answers)
    top = max(range(len(chosen)), key=lambda i: chosen[i][1].dev)
    low, high = score_interval(task.metric, answers[top], references, **by)
    prompts[top].info["scores"] = [_score_row(task, tests[top], low, high)]
    run, result = chosen[top]
    everything = [text for given in answers for text in given]
    outside = companions(task.labels, task.metric, everything, references * len(answers)).get("outside")
    return Tuned(
        prompts[top], run.lr, result.best_step, tuple(result.dev for _, result in chosen), tests,
        sample=run.sample, low=low, high=high, outside=outside,
        losses=tuple(found for _, result in chosen if (found := _losses(result))), answers=tuple(answers),
        never_moved=sum(result.dev == 0 and result.best_step == 0 for _, result in chosen),
    )  # fmt: skip


def _losses(result: Adapted) -> tuple[float, float] | None:
    """The mean training losses until the first and until the last dev evaluation; None: there is one only."""
    known = [loss for _, _, loss in result.curve if not math.isnan(loss)]
    return (known[0], known[-1]) if len(known) > 1 else None


def _best_on_dev(cells: Sequence[tuple[str, int]], results: Sequence[Adapted]) -> dict[tuple[str, int], int]:
    """The run with the best dev score of every start and sample, by its place in ``results``."""
    best: dict[tuple[str, int], int] = {}
    for r, cell in enumerate(cells):
        dev = results[r].dev
        if not math.isnan(dev) and (cell not in best or dev > results[best[cell]].dev):
            best[cell] = r
    if diverged := next((name for name, i in cells if (name, i) not in best), None):
        raise SoftstartError(f"every run of '{diverged}' diverged", fix="Give a lower --lr.")
    return best


def _diverged(
    name: str, cells: Sequence[tuple[str, int, float]], results: Sequence[Adapted]
) -> tuple[str, ...]:
    """The runs of a start that diverged, by split and learning rate."""
    return tuple(
        f"split {i + 1} at lr {lr:g} after step {result.steps}"
        for (start, i, lr), result in zip(cells, results, strict=True)
        if start == name and result.status == "diverged"
    )


def _score_row(task: Task, test: float, low: float, high: float) -> dict[str, Any]:
    """A test score with its interval, in points, for the prompt's model card."""
    return {
        "task": task.name, "metric": task.metric, "score": points(test), "low": points(low),
        "high": points(high), "over": "test rows",
    }  # fmt: skip


def verdict(gains: Sequence[float], interval: tuple[float, float] | None = None) -> str:
    """In words, what the gains of a learned start over plain tuning say.

    "Helped" takes an interval over test rows that leaves out zero, and no split with a loss.

    Args:
        gains: differences of test scores (fractions), one per split.
        interval: 95 % interval of their mean over test rows (``Tuned.gain``).

    >>> verdict([0.02, 0.04], (0.01, 0.05))
    'helped: +3.0 points, 95 % interval +1.0 to +5.0 over test rows (mean; by split +2.0, +4.0)'
    >>> verdict([0.02], (-0.01, 0.05))
    'made no difference that one test set shows: +2.0 points, 95 % interval -1.0 to +5.0 over test rows'
    """
    (low, high), mean = interval or (math.nan, math.nan), sum(gains) / len(gains)
    if len(gains) > 1 and min(gains) < 0 < max(gains):
        word = "helped on some splits and not on others"
    elif low > 0:
        word = "helped"
    elif high < 0:
        word = "did harm"
    else:
        word = "made no difference that one test set shows"
    by_split = ", ".join(f"{points(gain):+.1f}" for gain in gains)
    detail = f" (mean; by split {by_split})" if len(gains) > 1 else ""
    ends = "" if interval is None else f", 95 % interval {points(low):+.1f} to {points(high):+.1f}"
    over = f"{ends} over test rows" if ends else ""
    return f"{word}: {points(mean):+.1f} points{over}{detail}"
