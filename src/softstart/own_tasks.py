"""Your own tasks: learn a start from some, prompt-tune another from it beside a plain one, predict rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from torch import Tensor

from softstart.adaptation import AdaptConfig, AdaptRun, adapt
from softstart.algorithms import ALGORITHMS, Algorithm, MultiTask
from softstart.backbone import IGNORE, Backbone, candidates_tensor
from softstart.encoding import TextFormat, encode_task, encode_texts
from softstart.errors import SoftstartError
from softstart.evaluation import Evaluation, Job, assess, text_batch
from softstart.gym.task import Task
from softstart.gym.template import Template, apply
from softstart.meta_training import MetaConfig, meta_train
from softstart.progress import Progress, silent
from softstart.prompt import SoftPrompt
from softstart.study.spec import PromptSpec, resolve_method
from softstart.study.starts import draw_start

PT = "PT from scratch"
LEARNED = "learned start"
PLAIN = TextFormat("{input}")
QUICK = AdaptConfig(steps=300, eval_every=25, max_tokens=2048)
HOW = Evaluation(max_tokens=4096)
MIXED = MultiTask(query_size=32)
QUICK_META = MetaConfig(steps=100, meta_batch=4, lr=0.3, max_tokens=2048)
CHUNK = 256
"""Rows that are read, predicted and written at a time."""


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


def plain_start(backbone: Backbone, length: int, seed: int = 0, top: int = 5000) -> Tensor:
    """A start [P, d] of frequent words: plain prompt tuning (Lester et al., 2021)."""
    return draw_start(backbone, PromptSpec(length=length, top=top), (), seed)


def adapt_own(
    backbone: Backbone,
    task: Task,
    starts: Mapping[str, Tensor],
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
        task: see ``softstart.gym.own.whole_task``.
        starts: name → [P, d], or [S, P, d] with one for each sample; all of one P.
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
    encoded = encode_task(task, backbone.tokenizer, text)
    samples = list(encoded.train) if samples is None else samples
    cells = [(name, i, lr) for name in starts for i in range(len(samples)) for lr in rates]
    runs = [
        AdaptRun(start if (start := starts[name]).ndim == 2 else start[i], encoded, samples[i], lr, seed + i)
        for name, i, lr in cells
    ]
    results = adapt(backbone, runs, config, how, progress=progress)
    best: dict[tuple[str, int], int] = {}
    for r, (name, i, _) in enumerate(cells):
        dev = results[r].dev
        if not math.isnan(dev) and ((name, i) not in best or dev > results[best[name, i]].dev):
            best[name, i] = r
    if lost := next((name for name, i, _ in cells if (name, i) not in best), None):
        raise SoftstartError(f"every run of '{lost}' diverged", mend="Give a lower --lr.")
    stack = torch.stack([results[r].prompt for r in best.values()]).to(backbone.device, backbone.prompt_dtype)
    tests = assess(backbone, stack, [Job(j, encoded, encoded.test) for j in range(len(stack))], how)
    scores = {r: test.score for r, test in zip(best.values(), tests, strict=True)}
    facts = {
        "task": task.name, "metric": task.metric, "labels": list(task.labels), "template": text.template,
        "max_new_tokens": encoded.max_new_tokens, "seed": seed, "batch_size": config.batch_size,
    }  # fmt: skip
    found = {}
    for name in starts:
        own = [best[name, i] for i in range(len(samples))]
        top = max(own, key=lambda r: results[r].dev)
        score = [{"task": task.name, "metric": task.metric, "score": 100 * scores[top]}]
        info = {"method": name, "lr": runs[top].lr, "steps": results[top].best_step, "scores": score}
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
    algorithm: Algorithm = MIXED,
    config: MetaConfig = QUICK_META,
    *,
    length: int = 20,
    text: TextFormat = PLAIN,
    folder: Path | None = None,
    progress: Progress = silent,
) -> SoftPrompt:
    """Learn a start from source tasks: ``meta_train`` from a start of frequent words.

    Args:
        backbone: the frozen model.
        tasks: what to learn from; see ``softstart.gym.own.source_tasks``.
        algorithm: multi-task learning by default, which has no inner learning rate to find.
        config: the outer loop.
        length: P.
        text: how an example becomes model input; inputs too long for the model's window are cut.
        folder: keeps a checkpoint while it is learned, so that the same call goes on where it was killed.
        progress: told about every outer step.

    Raises:
        SoftstartError: as ``meta_train``.
    """
    limit = room(backbone, length, text.max_input_tokens, text.max_output_tokens)
    text = replace(text, max_input_tokens=limit)
    key = repr((algorithm, config, length, text, backbone.digest, [task.digest for task in tasks]))
    checkpoint = (
        folder / f"unfinished-{sha256(key.encode()).hexdigest()[:16]}.safetensors" if folder else None
    )
    encoded = [encode_task(task, backbone.tokenizer, text) for task in tasks]
    start = plain_start(backbone, length, config.seed)
    learned = meta_train(
        backbone, algorithm, encoded, start, config, checkpoint=checkpoint, progress=progress
    )
    info = {
        "source": [task.name for task in tasks], "algorithm": type(algorithm).__name__.lower(),
        **asdict(cast(Any, algorithm)), "steps": config.steps, "lr": config.lr,
        "meta_batch": config.meta_batch, "seed": config.seed, "template": text.template,
    }  # fmt: skip
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return SoftPrompt.of(backbone, learned.prompt, info)


def outer_loop(
    name: str, *, steps: int = 100, lr: float = 0.3, seed: int = 0, overrides: Sequence[str] = ()
) -> tuple[Algorithm, MetaConfig]:
    """An algorithm by name and an outer loop, with ``field=value`` overrides of either.

    Raises:
        SoftstartError: no such algorithm or field, or a value that cannot be.
    """
    values: dict[str, Any] = {"query_size": MIXED.query_size} if name == "multitask" else {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise SoftstartError(f"'{override}' is not of the form field=value", where="--set")
        values[key] = yaml.safe_load(value)
    found = resolve_method(name, values, replace(QUICK_META, steps=steps, lr=lr, seed=seed), "--algorithm")
    if found.algorithm is None or found.meta is None:
        raise SoftstartError(f"'{name}' learns no start", mend=f"Use one of {', '.join(ALGORITHMS)}.")
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


@dataclass
class Predictor:
    """Predicts rows with one prompt; ``truncated`` counts the inputs that were cut so far.

    Args:
        backbone: the frozen model.
        prompt: a tuned prompt; what ``adapt_own`` noted in ``info`` are the defaults of the rest.
        labels: label words to rank, with a probability each; none: outputs are written freely.
        template: how the row's input becomes model input.
        input: which fields of a row are its input.
        max_input_tokens: longer inputs are cut, or refused with ``strict``.
        strict: refuse what is too long.
        how: decoding.
    """

    backbone: Backbone
    prompt: SoftPrompt
    labels: Sequence[str] | None = None
    template: str | None = None
    input: str = "{input}"
    max_input_tokens: int = 512
    strict: bool = False
    how: Evaluation = HOW
    truncated: int = 0

    def __post_init__(self) -> None:
        info = self.prompt.info
        self.stack = self.prompt.check_for(self.backbone)[None].to(
            self.backbone.device, self.backbone.prompt_dtype
        )
        if self.labels is None:
            self.labels = info.get("labels", [])
        if self.template is None:
            self.template = info.get("template", "{input}")
        self.decoding = replace(self.how.decoding, max_new_tokens=info.get("max_new_tokens", 32))
        self.fields = Template(self.input)
        outputs = self.decoding.max_new_tokens
        self.max_input_tokens = room(self.backbone, len(self.prompt.tensor), self.max_input_tokens, outputs)
        self.task = str(info.get("task", ""))

    def __call__(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Each row, in order, with ``prediction`` and, of labels, ``p(label)``; read and made in chunks.

        Raises:
            SoftstartError: a row without the input's fields, or one too long when ``strict``.
        """
        rows, number = iter(rows), 0
        while chunk := list(islice(rows, CHUNK)):
            texts = [self._text(row, number + i) for i, row in enumerate(chunk, 1)]
            number += len(chunk)
            for row, found in zip(chunk, self._predict(texts), strict=True):
                yield {key: value for key, value in row.items() if key != "LINE"} | found

    def _text(self, row: Mapping[str, Any], number: int) -> str:
        try:
            content = apply(["line"], self.fields(row)).strip()
        except SoftstartError as problem:
            where = problem.where or f"row {row.get('LINE', number)}"
            raise SoftstartError(problem.what, where=where, mend=problem.mend) from None
        assert self.template is not None
        return self.template.format(task=self.task, input=content)

    def _predict(self, texts: list[str]) -> Iterator[dict[str, Any]]:
        whole = encode_texts(self.backbone.tokenizer, texts, None)
        long = [i for i, ids in enumerate(whole) if len(ids) > self.max_input_tokens]
        self.truncated += len(long)
        if long and self.strict:
            raise SoftstartError(
                f"an input of {len(whole[long[0]])} tokens, more than {self.max_input_tokens}",
                mend="Raise --max-input-tokens within the model's window, or leave out --strict.",
            )
        ids = encode_texts(self.backbone.tokenizer, texts, self.max_input_tokens) if long else whole
        batch = text_batch(self.backbone, ids, [0] * len(ids))
        if not self.labels:
            for text in self.backbone.generate(self.stack, batch, self.decoding, self.how.max_tokens):
                yield {"prediction": text.strip()}
            return
        words = encode_texts(self.backbone.tokenizer, self.labels, 128, outputs=True)
        candidates = candidates_tensor([words] * len(ids), IGNORE).to(self.backbone.device)
        scores = self.backbone.rank(self.stack, batch, candidates, self.how.max_tokens)
        for row in torch.softmax(scores.double(), 1).tolist():
            chances = dict(zip(self.labels, row, strict=True))
            best = max(chances, key=lambda label: chances[label])
            yield {"prediction": best} | {f"p({label})": round(p, 6) for label, p in chances.items()}


def room(backbone: Backbone, length: int, wanted: int, outputs: int) -> int:
    """Tokens of text that fit the model's window beside a prompt (and, in causal models, the output).

    Raises:
        SoftstartError: none do.
    """
    if backbone.window is None:
        return wanted
    spare = outputs if backbone.peft_task == "CAUSAL_LM" else 0
    left = min(wanted, backbone.window - length - spare)
    if left < 1:
        raise SoftstartError(
            f"a prompt of {length} vectors leaves no room for text: '{backbone.name}' reads at most "
            f"{backbone.window} tokens",
            mend="Use a shorter prompt.",
        )
    return left


def fitting(backbone: Backbone, length: int, task: Task, text: TextFormat) -> tuple[TextFormat, int]:
    """A text format whose inputs fit the model's window, and how many inputs of the task it cuts."""
    limit = room(backbone, length, text.max_input_tokens, text.max_output_tokens)
    examples = [e for s in task.samples.values() for e in (*s.train, *s.dev)] + list(task.test)
    texts = [text.template.format(task=task.name, input=e.input) for e in examples]
    long = sum(len(ids) > limit for ids in encode_texts(backbone.tokenizer, texts, None))
    return replace(text, max_input_tokens=limit), long
