"""Where prompts of your own tasks start: a learned start, or an initializer by name (``--init``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from softstart.algorithms import LOG_RATES
from softstart.backbone import Backbone
from softstart.errors import SoftstartError, did_you_mean
from softstart.gym.task import Task
from softstart.prompt import (
    Initializer,
    SoftPrompt,
    class_labels,
    gaussian,
    ordinary_tokens,
    source_average,
    task_names,
    text,
    vocabulary,
)
from softstart.prompt.formats import SUFFIXES, WEIGHTS_FILE
from softstart.training.configs import MetaConfig, PromptSpec
from softstart.training.encoding import EncodedTask
from softstart.training.spot import EMBEDDINGS, SOURCES, START, SPoT
from softstart.training.starts import draw_start, seeded, words_of

PLAIN = ("vocabulary", "names", "labels", "gaussian")
"""Kinds of ``--init`` that take nothing more."""
GIVEN = ("text", "average", "nearest")
"""Kinds that do: ``text:WORDS``, ``average:FOLDER``, ``nearest:FOLDER``."""
TOP = 5000
"""Frequent words a start is drawn from."""
NEAR = SPoT(), MetaConfig(lr=0.3, max_tokens=2048)
"""How a target's prompt is tuned to be compared with those of a folder."""


def plain_start(backbone: Backbone, length: int, seed: int = 0, top: int = TOP) -> Tensor:
    """A start [P, d] of frequent words: plain prompt tuning (Lester et al., 2021)."""
    return draw_start(backbone, PromptSpec(length=length, top=top), (), seed)


def is_named(init: str) -> bool:
    """Whether ``--init`` names an initializer, not a file, a folder or a repository.

    Raises:
        SoftstartError: it is none of these.
    """
    kind, colon, _ = init.partition(":")
    if init in PLAIN or (colon and kind in GIVEN):
        return True
    if "/" in init or Path(init).exists() or Path(init).suffix in SUFFIXES:
        return False
    raise SoftstartError(
        f"no start '{init}'",
        where="--init",
        fix=did_you_mean(init, [*PLAIN, *(f"{kind}:…" for kind in GIVEN)])
        or "Give a file, a folder, a hub id (owner/name), or vocabulary, names, labels, text:WORDS.",
    )


def named_start(
    backbone: Backbone, init: str, tasks: Sequence[Task], *, length: int = 20, seed: int = 0
) -> SoftPrompt:
    """The start that an initializer gives.

    Args:
        backbone: whose vocabulary it is drawn from.
        init: ``vocabulary`` (frequent words), ``names`` or ``labels`` (of the tasks, then frequent words),
            ``text:WORDS``, ``average:FOLDER`` (of the prompts in it), ``nearest:FOLDER`` (the one of them
            that is most like a prompt tuned briefly on the target), or ``gaussian``.
        tasks: the target task, or the source tasks.
        length: P; the prompts of a folder have their own.
        seed: of what is drawn.

    Raises:
        SoftstartError: no such initializer, nothing to make it from, or prompts of another backbone.
    """
    kind, _, value = init.partition(":")
    if kind in ("average", "nearest"):
        prompts = _prompts(backbone, value, where=f"--init {kind}")
        further = {SOURCES: prompts, EMBEDDINGS: prompts, START: plain_start(backbone, len(prompts[0]), seed)}
        mean = source_average(prompts)(len(prompts[0]), torch.Generator())
        return SoftPrompt.of(backbone, mean, {"init": init}, further if kind == "nearest" else {})
    draw = _initializer(backbone, kind, value, tasks)
    return SoftPrompt.of(backbone, draw(length, seeded(seed)), {"init": init})


def _initializer(backbone: Backbone, kind: str, value: str, tasks: Sequence[Task]) -> Initializer:
    table, tokenizer = backbone.vocabulary, backbone.tokenizer
    frequent = vocabulary(table, ordinary_tokens(tokenizer, TOP))
    if kind == "gaussian":
        return gaussian(backbone.width)
    if kind == "text":
        return text(table, tokenizer(value, add_special_tokens=False).input_ids)
    if kind == "names":
        return task_names(table, words_of(tokenizer, [task.name for task in tasks]), frequent)
    if kind == "labels":
        labels = list(dict.fromkeys(label for task in tasks for label in task.labels))
        if not labels:
            raise SoftstartError("the task has no labels to start from", fix="Use --init vocabulary.")
        return class_labels(table, tokenizer(labels, add_special_tokens=False).input_ids, frequent)
    return frequent


def _prompts(backbone: Backbone, folder: str, where: str) -> Tensor:
    """Every prompt in a folder [N, P, d]: files, and folders of PEFT adapters."""
    root = Path(folder)
    found = sorted(
        path for path in (root.iterdir() if root.is_dir() else ())
        if path.suffix in SUFFIXES or (path / WEIGHTS_FILE).exists()
    )  # fmt: skip
    if not found:
        raise SoftstartError(
            "no prompts in this folder",
            where=f"{where}:{folder}",
            fix=f"It must hold {', '.join(SUFFIXES)} files or folders of PEFT adapters.",
        )
    tensors = [SoftPrompt.load(path).check_for(backbone, str(path)) for path in found]
    if len({tensor.shape for tensor in tensors}) > 1:
        raise SoftstartError(
            "the prompts in this folder differ in length", where=folder, fix="Keep those of one length."
        )
    return torch.stack(tensors)


@dataclass(frozen=True)
class Starts:
    """Where the runs of a task start, one for each sample [S, P, d], and how fast their rows learn [P, 1]."""

    prompts: Tensor
    rates: Tensor | None = None
    nearest: tuple[str, ...] = ()
    """For SPoT, the source task that was chosen for each sample."""


def starts_of(
    backbone: Backbone, given: Tensor | SoftPrompt, task: EncodedTask, samples: Sequence[int], seed: int
) -> Starts:
    """What a start [P, d], starts [S, P, d] or a learned one come to on a task.

    Meta-SGD's rates go with the start; of SPoT's prompts the nearest is taken for each sample.

    Raises:
        SoftstartError: the start belongs to another backbone.
    """
    if isinstance(given, Tensor):
        return Starts(given if given.ndim == 3 else given.expand(len(samples), *given.shape))
    start = given.check_for(backbone, "the learned start").expand(len(samples), *given.tensor.shape)
    if SOURCES not in given.further:
        rates = given.further.get(LOG_RATES)
        return Starts(start, None if rates is None else rates.exp())
    info, (spot, config) = given.info, NEAR
    if info.get("algorithm") == "spot":
        spot = SPoT(info["embedding_steps"], info["query_size"])
        config = MetaConfig(steps=info["steps"], lr=info["lr"], max_tokens=config.max_tokens)
    cells = [(task, sample, seed + i) for i, sample in enumerate(samples)]
    found = spot.nearest(backbone, given.further, cells, config)
    names = info.get("source") or [f"prompt {i + 1}" for i in range(len(given.further[SOURCES]))]
    return Starts(torch.stack([near.start for near in found]), None, tuple(names[n.source] for n in found))
