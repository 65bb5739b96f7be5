"""Starts for prompts of your own tasks: a learned start, or a registered initializer (``--init``)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softstart.algorithms import LOG_RATES
from softstart.backbone import TINY, Backbone
from softstart.errors import SoftstartError, did_you_mean
from softstart.gym.task import Task
from softstart.prompt import (
    INITIALIZERS,
    Embeddings,
    Initializer,
    Material,
    SoftPrompt,
    find_initializer,
    frequent_words,
    make_initializer,
    usages,
    vocabulary,
)
from softstart.prompt.carried import Carried, shared_tokens
from softstart.prompt.formats import SUFFIXES, one_of, prompts_in
from softstart.prompt.placement import registered_placement
from softstart.training.configs import MetaConfig, PromptSpec
from softstart.training.demonstrations import demonstrations, first_answers
from softstart.training.encoding import EncodedTask, TextFormat, encode_task
from softstart.training.methods import LEARNERS, TaskLearner
from softstart.training.spot import EMBEDDINGS, SOURCES, START, SPoT
from softstart.training.starts import draw_start, of_kind, seeded

INIT = "--init"
"""Where the commands ask for a start."""
TOP = 5000
"""How many of the most frequent words a start is drawn from."""
BY_SAMPLE = "by_sample"
"""The name of starts [S, P, d] that are made from the rows of a task's samples, next to one from all."""
ORIGINS = "origins"
"""The name of the train row that each row of these starts began as [S, P]; -1: none."""
NEAR: tuple[TaskLearner, MetaConfig] = SPoT(), MetaConfig(lr=0.3, max_tokens=2048)
"""How a prompt is tuned on the target task, to be compared with the prompts of a folder."""


def plain_start(backbone: Backbone, length: int, seed: int = 0, top: int = TOP) -> Tensor:
    """A start [P, d] of frequent words: plain prompt tuning (Lester et al., 2021); [P, D] of another kind.

    Unused, byte and markup tokens are left out, except on the embedded model, whose documented starts are
    drawn from all its tokens.
    """
    frequent: Any = "tokenizer" if backbone.name == TINY else "words"
    return draw_start(backbone, PromptSpec(length=length, top=top, frequent=frequent), (), seed)


def frequent_start(backbone: Backbone, top: int = TOP) -> Initializer | None:
    """What draws frequent words; None: the first of the tokenizer's tokens (see ``plain_start``)."""
    if backbone.name == TINY:
        return None
    return vocabulary(backbone.vocabulary, frequent_words(backbone.tokenizer, top))


def is_named(init: str) -> bool:
    """Whether ``--init`` names an initializer, not a file, a folder or a repository.

    Raises:
        SoftstartError: it is none of these.
    """
    name, colon, _ = init.partition(":")
    if name in INITIALIZERS:
        return True
    path = Path(init)
    if "/" in init or path.exists() or path.suffix in SUFFIXES or one_of(init):
        return False
    if "." in name:
        find_initializer(init, INIT)  # by its import path
        return True
    known = ", ".join(usages())
    raise SoftstartError(
        f"no start '{init}'",
        where=INIT,
        fix=did_you_mean(init, usages() if colon else list(INITIALIZERS))
        or f"Give a file, a folder, a hub id (owner/name), or one of {known}.",
    )


def chooses_by_target(init: str) -> bool:
    """Whether ``--init`` stands for several prompts, one of which is chosen for each target task."""
    return is_named(init) and find_initializer(init, INIT)[0].chooses


def named_start(
    backbone: Backbone,
    init: str,
    tasks: Sequence[Task],
    *,
    length: int = 20,
    seed: int = 0,
    text: TextFormat = TextFormat("{input}"),
) -> SoftPrompt:
    """The start that a registered initializer gives.

    Args:
        backbone: whose vocabulary it is drawn from.
        init: a name of ``softstart.prompt.INITIALIZERS``, with what it takes: ``vocabulary``,
            ``text:WORDS``, ``average:FOLDER``, ``mapped:PROMPT``.
        tasks: the target task, or the source tasks.
        length: P; the prompts of files have their own.
        seed: of what is drawn.
        text: how rows become demonstrations.

    Raises:
        SoftstartError: no such initializer, nothing to make it from, or prompts of another backbone.
    """
    entry, value = find_initializer(init, INIT)
    prompts = None
    if entry.needs == "prompts":
        prompts = _prompts(backbone, value, where=f"{INIT} {init.partition(':')[0]}")
        length = prompts.shape[1]
    carried = _carried(backbone, value) if entry.needs == "carried" else None
    length = len(carried.prompt) if carried else length
    rows: list[list[list[int]]] = []
    if entry.needs == "rows":
        encoded = [encode_task(task, backbone, text) for task in tasks]
        splits = [rows for task in encoded for rows in task.train.values()]
        rows = [demonstrations(backbone.tokenizer, first_answers(split)) for split in splits]
    given = Material(
        backbone,
        names=[task.name for task in tasks],
        labels=[label for task in tasks for label in task.labels],
        rows=[ids for split in rows for ids in split],
        prompts=prompts,
        carried=carried,
        top=TOP,
        draw_frequent=frequent_start(backbone),
    )
    further: dict[str, Tensor] = {}
    if prompts is not None and entry.chooses:
        further = {SOURCES: prompts, EMBEDDINGS: prompts, START: plain_start(backbone, length, seed)}
    start = make_initializer(init, given, INIT)(length, seeded(seed))
    if prompts is None:
        start = of_kind(backbone, start)
    if rows and len(tasks) == 1:
        own = [make_initializer(init, replace(given, rows=split), INIT) for split in rows]
        drawn = torch.stack([draw(length, seeded(seed + i)) for i, draw in enumerate(own)])
        further[BY_SAMPLE] = of_kind(backbone, drawn)
        if entry.origins is not None:
            places = [entry.origins(replace(given, rows=split)) for split in rows]
            further[ORIGINS] = torch.stack([of(length, seeded(seed + i)) for i, of in enumerate(places)])
    return SoftPrompt.of(backbone, start, {"init": init}, further)


def start_on(backbone: Backbone, prompt: SoftPrompt, where: str) -> SoftPrompt:
    """A stored prompt as a start of the backbone's kind.

    Embeddings become the keys and values that they have in the backbone, and with them whatever else was
    learned in the same form.

    Raises:
        SoftstartError: it belongs to another backbone, or holds keys and values where embeddings are tuned.
    """
    if not isinstance(prompt.kind, Embeddings) or isinstance(backbone.kind, Embeddings):
        prompt.check_for(backbone, where)
        return prompt
    reader = copy.copy(backbone)
    reader.prompt_kind = prompt.kind.name
    tensors = {"": prompt.check_for(reader, where), **prompt.further}
    made = {name: t if name == LOG_RATES else of_kind(backbone, t) for name, t in tensors.items()}
    return replace(prompt, tensor=made.pop(""), kind=backbone.kind, further=made)


def _carried(backbone: Backbone, source: str) -> Carried:
    """A prompt of another backbone, and the embeddings of the tokens that both backbones know.

    Raises:
        SoftstartError: the prompt does not say its backbone, or the vocabularies share too little.
    """
    prompt = SoftPrompt.from_pretrained(source)
    if not prompt.backbone:
        raise SoftstartError(
            "the prompt does not say what backbone it was made on",
            where=source,
            fix="Give one that Softstart tuned or learned.",
        )
    other = Backbone.from_pretrained(
        prompt.backbone,
        device="cpu",
        revision=prompt.revision or None,
        placement=registered_placement(prompt.placement),
    )
    tensor = prompt.check_for(other, source)
    theirs, mine = shared_tokens(other.tokenizer, backbone.tokenizer)
    return Carried(tensor.cpu(), other.vocabulary[theirs], backbone.vocabulary[mine].cpu())


def _prompts(backbone: Backbone, folder: str, where: str) -> Tensor:
    """Every prompt in a folder [N, P, D]: files, and folders of PEFT adapters."""
    files = prompts_in(folder, f"{where}:{folder}").values()
    tensors = [start_on(backbone, SoftPrompt.load(path), str(path)).tensor for path in files]
    if len({tensor.shape for tensor in tensors}) > 1:
        raise SoftstartError(
            "the prompts in this folder differ in length", where=folder, fix="Keep those of one length."
        )
    return torch.stack(tensors)


@dataclass(frozen=True)
class Starts:
    """The starts of a task's runs, one for each sample [S, P, d], and the learning rates of rows [P, 1]."""

    prompts: Tensor
    rates: Tensor | None = None
    origins: Tensor | None = None
    """The train row that each row of a start began as [S, P]; None: they began as none."""
    nearest: tuple[str, ...] = ()
    """For SPoT, the source task that was chosen for each sample."""

    def of(self, i: int) -> dict[str, Any]:
        """What a run of sample number ``i`` takes from them."""
        origins = None if self.origins is None else self.origins[i]
        return {"start": self.prompts[i], "rates": self.rates, "origins": origins}


def starts_of(
    backbone: Backbone, given: Tensor | SoftPrompt, task: EncodedTask, samples: Sequence[int], seed: int
) -> Starts:
    """The starts of a task's runs, from a start [P, d], starts [S, P, d] or a learned start.

    Meta-SGD's rates go with the start. From SPoT's prompts, the nearest is taken for each sample.

    Raises:
        SoftstartError: the start belongs to another backbone.
    """
    if isinstance(given, Tensor):
        return Starts(given if given.ndim == 3 else given.expand(len(samples), *given.shape))
    start = given.check_for(backbone, "the learned start").expand(len(samples), *given.tensor.shape)
    if BY_SAMPLE in given.further:
        places = list(task.train)
        chosen = [places.index(sample) for sample in samples]
        origins = given.further.get(ORIGINS)
        return Starts(given.further[BY_SAMPLE][chosen], origins=None if origins is None else origins[chosen])
    if SOURCES not in given.further:
        rates = given.further.get(LOG_RATES)
        return Starts(start, None if rates is None else rates.exp())
    info, (chooser, config) = given.info, NEAR
    made = str(info.get("algorithm"))
    if made in LEARNERS and (kind := LEARNERS[made]).data == "tasks":
        chooser = kind(**{of.name: info[of.name] for of in fields(kind)})
        config = MetaConfig(steps=info["steps"], lr=info["lr"], max_tokens=config.max_tokens)
    cells = [(task, sample, seed + i) for i, sample in enumerate(samples)]
    near = chooser.nearest(backbone, given.further, cells, config)
    names = info.get("source") or [f"prompt {i + 1}" for i in range(len(given.further[SOURCES]))]
    nearest = tuple(names[n.source] for n in near)
    return Starts(torch.stack([n.start for n in near]), nearest=nearest)
