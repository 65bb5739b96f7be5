"""Your own tasks: learn a start from some, prompt-tune another from it beside a plain one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from softstart.algorithms import MultiTask
from softstart.analysis.resampling import score_interval
from softstart.backbone import Backbone
from softstart.errors import SoftstartError
from softstart.gym.metrics import score
from softstart.gym.task import Task
from softstart.progress import Progress, silent
from softstart.prompt import SoftPrompt
from softstart.storage.safe_yaml import read_yaml
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig, MetaConfig
from softstart.training.encoding import TextFormat, encode_task
from softstart.training.evaluation import Evaluation, Job, predict
from softstart.training.methods import LEARNERS, Learner, learn, resolve_method
from softstart.yourtasks.predict import HOW, Predictor, Scored, evaluate_rows, fitting, room
from softstart.yourtasks.starts import named_start, plain_start, starts_of

__all__ = [
    "LEARNED",
    "PT",
    "Predictor",
    "Scored",
    "Tuned",
    "adapt_own",
    "evaluate_rows",
    "fitting",
    "learn_start",
    "named_start",
    "outer_loop",
    "plain_start",
    "verdict",
]

PT = "PT from scratch"
LEARNED = "learned start"
PLAIN = TextFormat("{input}")
QUICK = AdaptConfig(steps=300, eval_every=25, max_tokens=2048)
MIXED = MultiTask(query_size=32)
QUICK_META = MetaConfig(steps=100, meta_batch=4, lr=0.3, max_tokens=2048)


@dataclass(frozen=True)
class Tuned:
    """What became of one start: the prompt with the best dev score of all samples, and its learning rate.

    ``devs`` and ``tests`` hold the scores of every sample in order, each at its own best learning rate and
    step.
    """

    prompt: SoftPrompt
    lr: float
    best_step: int
    devs: tuple[float, ...]
    tests: tuple[float, ...]

    @property
    def dev(self) -> float:
        """The mean over samples."""
        return sum(self.devs) / len(self.devs)

    @property
    def test(self) -> float:
        """The mean over samples."""
        return sum(self.tests) / len(self.tests)


def adapt_own(
    backbone: Backbone,
    task: Task,
    starts: Mapping[str, Tensor | SoftPrompt],
    *,
    text: TextFormat = PLAIN,
    samples: Sequence[int] | None = None,
    rates: Sequence[float] = (0.5, 0.3),
    config: AdaptConfig = QUICK,
    how: Evaluation = HOW,
    seed: int = 0,
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
        how: decoding and scoring.
        seed: of the order of the rows.
        progress: told the number of run-steps done.

    Raises:
        SoftstartError: every run of a start diverged, or an example that cannot be used.
    """
    encoded = encode_task(task, backbone, text)
    samples = list(encoded.train) if samples is None else samples
    cells = [(name, i, lr) for name in starts for i in range(len(samples)) for lr in rates]
    begun = {name: starts_of(backbone, start, encoded, samples, seed) for name, start in starts.items()}
    runs = [
        AdaptRun(begun[name].prompts[i], encoded, samples[i], lr, seed + i, rates=begun[name].rates)
        for name, i, lr in cells
    ]
    results = adapt(backbone, runs, config, how, progress=progress)
    best: dict[tuple[str, int], int] = {}
    for r, (name, i, _) in enumerate(cells):
        dev = results[r].dev
        if not math.isnan(dev) and ((name, i) not in best or dev > results[best[name, i]].dev):
            best[name, i] = r
    if lost := next((name for name, i, _ in cells if (name, i) not in best), None):
        raise SoftstartError(f"every run of '{lost}' diverged", fix="Give a lower --lr.")
    stack = torch.stack([results[r].prompt for r in best.values()]).to(backbone.device, backbone.prompt_dtype)
    answers = predict(backbone, stack, [Job(j, encoded, encoded.test) for j in range(len(stack))], how)
    texts = dict(zip(best.values(), answers, strict=True))
    truth = encoded.test.references
    scores = {
        r: score(task.metric, given, truth, f1_labels=how.f1_labels, labels=task.labels)
        for r, given in texts.items()
    }
    facts = {
        "task": task.name, "metric": task.metric, "labels": list(task.labels), "template": text.template,
        "max_new_tokens": encoded.max_new_tokens, "seed": seed, "batch_size": config.batch_size,
    }  # fmt: skip
    found = {}
    for name in starts:
        own = [best[name, i] for i in range(len(samples))]
        top = max(own, key=lambda r: results[r].dev)
        low, high = score_interval(
            task.metric, texts[top], truth, f1_labels=how.f1_labels, labels=task.labels
        )
        row = {"score": 100 * scores[top], "low": 100 * low, "high": 100 * high, "over": "test rows"}
        told = [{"task": task.name, "metric": task.metric, **row}]
        info = {"method": name, "lr": runs[top].lr, "steps": results[top].best_step, "scores": told}
        if begun[name].nearest:
            info["nearest"] = list(begun[name].nearest)
        found[name] = Tuned(
            SoftPrompt.of(backbone, results[top].prompt, facts | info),
            runs[top].lr,
            results[top].best_step,
            tuple(results[r].dev for r in own),
            tuple(scores[r] for r in own),
        )
    return found


def learn_start(
    backbone: Backbone,
    tasks: Sequence[Task],
    algorithm: Learner = MIXED,
    config: MetaConfig = QUICK_META,
    *,
    length: int = 20,
    text: TextFormat = PLAIN,
    init: Tensor | None = None,
    folder: Path | None = None,
    progress: Progress = silent,
) -> SoftPrompt:
    """Learn a start from source tasks.

    Args:
        backbone: the frozen model.
        tasks: what to learn from; see ``softstart.gym.tables.source_tasks``.
        algorithm: multi-task learning by default, which has no inner learning rate to find.
        config: the outer loop.
        length: P.
        text: how an example becomes model input; inputs too long for the model's window are cut.
        init: where learning begins [P, d]; by default frequent words.
        folder: keeps a checkpoint while it is learned, so that the same call goes on where it was killed.
        progress: told about every outer step.

    Raises:
        SoftstartError: as ``meta_train``.
    """
    start = plain_start(backbone, length, config.seed) if init is None else init
    length = len(start)
    limit = room(backbone, length, text.max_input_tokens, text.max_output_tokens)
    text = replace(text, max_input_tokens=limit)
    begun = sha256(start.numpy().tobytes()).hexdigest()
    key = repr((algorithm, config, begun, text, backbone.digest, [task.digest for task in tasks]))
    checkpoint = (
        folder / f"unfinished-{sha256(key.encode()).hexdigest()[:16]}.safetensors" if folder else None
    )
    encoded = [encode_task(task, backbone, text) for task in tasks]
    learned = learn(backbone, algorithm, encoded, start, config, checkpoint=checkpoint, progress=progress)
    info = {
        "source": [task.name for task in tasks], "algorithm": type(algorithm).__name__.lower(),
        **asdict(cast(Any, algorithm)), "steps": config.steps, "lr": config.lr,
        "meta_batch": config.meta_batch, "seed": config.seed, "template": text.template,
    }  # fmt: skip
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return SoftPrompt.of(backbone, learned.prompt, info, learned.further)


def outer_loop(
    name: str, *, steps: int = 100, lr: float = 0.3, seed: int = 0, overrides: Sequence[str] = ()
) -> tuple[Learner, MetaConfig]:
    """An algorithm by name and an outer loop, with ``field=value`` overrides of either.

    Raises:
        SoftstartError: no such algorithm or field, or a value that cannot be.
    """
    values: dict[str, Any] = {"query_size": MIXED.query_size} if name == "multitask" else {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise SoftstartError(f"'{override}' is not of the form field=value", where="--set")
        values[key] = read_yaml(value, f"--set {override}")
    found = resolve_method(name, values, replace(QUICK_META, steps=steps, lr=lr, seed=seed), "--algorithm")
    if found.algorithm is None or found.meta is None:
        raise SoftstartError(f"'{name}' learns no start", fix=f"Use one of {', '.join(LEARNERS)}.")
    for field in ("steps", "meta_batch", "lr", "checkpoint_every"):
        if not getattr(found.meta, field) > 0:
            raise SoftstartError(f"{field} must be greater than 0")
    return found.algorithm, found.meta


def verdict(gains: Sequence[float]) -> str:
    """In words, what the gains of a learned start over plain tuning say: one number a split."""
    mean = sum(gains) / len(gains)
    if len(gains) > 1 and min(gains) < 0 < max(gains):
        word = "helped on some splits and not on others"
    else:
        word = "helped" if mean > 0 else "made no difference" if mean == 0 else "did not help"
    each = ", ".join(f"{100 * gain:+.1f}" for gain in gains)
    of = f" (mean; by split {each})" if len(gains) > 1 else ""
    return f"{word}: {100 * mean:+.1f} points on one test set{of}"
