"""From text to token rows: the step from the gym (plain text) to the engine (token batches)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from string import Formatter
from typing import Any

import numpy as np

from softstart.backbone import Backbone, Batch, collate
from softstart.errors import SoftstartError
from softstart.gym.task import Task
from softstart.storage.token_cache import cached
from softstart.training.chat import CHAT, chat_ids, mention_chat

SPARE_TOKENS = 2
"""How many tokens longer a generated output may be than the longest train or dev output of its task."""

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Inputs that say nothing, to measure what a model prefers whatever it reads (Zhao et al., 2021)."""


@dataclass(frozen=True)
class TextFormat:
    """How an example becomes model input.

    The default template is CrossFit's and MPT's: the task's name in brackets before the input.

    Raises:
        SoftstartError: a template that is more than text, ``{task}`` and ``{input}``.
    """

    template: str = " [{task}] {input}"
    """``{task}`` and ``{input}`` are replaced. ``chat`` is the tokenizer's chat format with the input as the
    user's turn; ``chat:TEXT`` fills TEXT and makes it the turn (``softstart.training.chat``)."""
    max_input_tokens: int = 512
    """Longer inputs are cut at the end."""
    max_output_tokens: int = 128
    """Longer outputs are cut at the end."""

    def __post_init__(self) -> None:
        check_template(self._body)

    @property
    def chat(self) -> bool:
        """Whether inputs take the tokenizer's chat format."""
        return self.template == CHAT or self.template.startswith(f"{CHAT}:")

    @property
    def _body(self) -> str:
        if not self.chat:
            return self.template
        return self.template.partition(":")[2] or "{input}"

    def fill(self, task: str, text: str) -> str:
        """The text of an input, without a chat format's turns."""
        return self._body.format(task=task, input=text)


def check_template(template: str) -> None:
    """Refuse a template that is more than text, ``{task}`` and ``{input}``, or leaves out the input.

    Raises:
        SoftstartError: no ``{input}``, another field, one of its attributes, or a format such as a width.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as problem:
        raise SoftstartError(f"template {template!r}: {problem}", fix=_TEMPLATE_FIX) from problem
    for _, name, spec, conversion in parts:
        if name is not None and (name not in ("task", "input") or spec or conversion):
            raise SoftstartError(f"template {template!r}: unknown field '{{{name}}}'", fix=_TEMPLATE_FIX)
    if not any(name == "input" for _, name, _, _ in parts):
        raise SoftstartError(
            f"template {template!r} leaves out the input", fix="Write {input} where it is to go."
        )


_TEMPLATE_FIX = "Use {task} and {input} only; write a literal brace twice."


@dataclass(frozen=True, eq=False)
class Rows:
    """Encoded examples of one split: token ids of inputs and of every accepted answer, and the answers."""

    inputs: list[list[int]]
    outputs: list[list[list[int]]]
    references: list[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.inputs)

    @cached_property
    def trainable(self) -> list[int]:
        """Indices of rows that have an answer to learn from."""
        return [i for i, answers in enumerate(self.outputs) if answers]

    def first(self, count: int | None) -> Rows:
        """The first rows; None: all of them."""
        return Rows(self.inputs[:count], self.outputs[:count], self.references[:count])

    def pick(self, indices: Sequence[int], rng: np.random.Generator) -> list[tuple[list[int], list[int]]]:
        """(input, output) token ids of the given rows; of several answers, one is drawn at random."""
        pairs = []
        for i in indices:
            answers = self.outputs[i]
            pairs.append((self.inputs[i], answers[0 if len(answers) == 1 else rng.integers(len(answers))]))
        return pairs

    def of_step(
        self, step: int, size: int, *key: int, reshuffle: bool = True
    ) -> tuple[list[int], list[tuple[list[int], list[int]]]]:
        """A training batch: its places among ``trainable``, and the rows there as ``pick`` gives them.

        Args:
            step: steps done before it.
            size: rows of a batch.
            key: seed and sample: what the order of the rows depends on.
            reshuffle: see ``epoch_slice``.
        """
        order = epoch_slice(len(self.trainable), step * size, size, *key, reshuffle=reshuffle)
        return order, self.pick([self.trainable[i] for i in order], rng_for(*key, step, 1))


@dataclass(frozen=True, eq=False)
class EncodedTask:
    """A task as token rows.

    ``train`` and ``dev`` are keyed by sample seed. ``labels`` and ``label_ids`` are the label words of a
    classification task and their tokens. ``max_new_tokens`` is a bound for generation, derived from the
    longest train or dev output. ``content_free`` holds ``CONTENT_FREE`` under the task's template.
    """

    name: str
    metric: str
    train: dict[int, Rows]
    dev: dict[int, Rows]
    test: Rows
    labels: tuple[str, ...]
    label_ids: list[list[int]]
    max_new_tokens: int
    content_free: Rows = field(default_factory=lambda: Rows([], [], []))


def unanswered(inputs: list[list[int]]) -> Rows:
    """Token ids of inputs as rows without answers."""
    return Rows(inputs, [[] for _ in inputs], [() for _ in inputs])


def encode_task(task: Task, backbone: Backbone, text: TextFormat) -> EncodedTask:
    """Tokenize every split of a task; texts longer than the format's limits are truncated.

    Large tasks are tokenized once and then read from the cache (``softstart.storage.token_cache``).

    Args:
        task: a task of a gym, or one of your own.
        backbone: whose tokenizer reads it, and which says how an output follows its input
            (``Backbone.continues_input``).
        text: template and limits.

    Raises:
        SoftstartError: a tokenizer instead of a backbone, or labels with the same tokens.

    >>> from softstart import Backbone, TextFormat, encode_task
    >>> from softstart.gym import open_gym
    >>> backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    >>> task = encode_task(open_gym("mini").load("animal_class"), backbone, TextFormat("{input}"))
    >>> task.name, task.labels
    ('animal_class', ('bird', 'fish', 'insect', 'mammal', 'reptile'))
    >>> rows = task.train[13]  # the sample with seed 13
    >>> backbone.tokenizer.decode(rows.inputs[0]), backbone.tokenizer.decode(rows.outputs[0][0])
    (' note: tina saw the lizard behind the cellar.</s>', ' reptile</s>')
    """
    if not hasattr(backbone, "tokenizer"):
        raise SoftstartError(
            f"encode_task needs the backbone, not a {type(backbone).__name__}",
            fix="Pass the backbone itself: its family decides how outputs end.",
        )
    parts = {f"{seed} train": sample.train for seed, sample in task.samples.items()}
    parts |= {f"{seed} dev": sample.dev for seed, sample in task.samples.items()}
    parts["test"] = task.test
    inputs = {
        f"{name} inputs": [text.fill(task.name, e.input) for e in examples]
        for name, examples in parts.items()
    }
    outputs = {
        f"{name} outputs": [answer for e in examples for answer in e.outputs]
        for name, examples in parts.items()
    }
    outputs["labels"], chat = list(task.labels), text.chat
    inputs["content-free"] = [text.fill(task.name, nothing) for nothing in CONTENT_FREE]

    def make() -> dict[str, list[list[int]]]:
        write, read = text.max_output_tokens, text.max_input_tokens
        return {
            **{
                name: encode_texts(backbone, texts, write, outputs=True, chat=chat)
                for name, texts in outputs.items()
            },
            **{name: encode_texts(backbone, texts, read, chat=chat) for name, texts in inputs.items()},
        }

    decides_ids: dict[str, Any] = {
        "input": text.max_input_tokens,
        "output": text.max_output_tokens,
        "continues": backbone.continues_input,
        "tgt_lang": getattr(backbone.tokenizer, "tgt_lang", None),
        "chat": chat and str(backbone.tokenizer.chat_template),
    }
    ids = cached({**inputs, **outputs}, decides_ids, backbone.tokenizer, make)

    def rows(name: str) -> Rows:
        answers = iter(ids[f"{name} outputs"])
        examples = parts[name]
        return Rows(
            ids[f"{name} inputs"],
            [[next(answers) for _ in e.outputs] for e in examples],
            [e.outputs for e in examples],
        )

    train = {seed: rows(f"{seed} train") for seed in task.samples}
    dev = {seed: rows(f"{seed} dev") for seed in task.samples}
    longest = max(
        (len(o) for part in (*train.values(), *dev.values()) for a in part.outputs for o in a), default=1
    )
    most, labels = longest + SPARE_TOKENS, ids["labels"]
    check_labels(task.labels, labels, f"task '{task.name}'")
    free = unanswered([row for row in ids["content-free"] if row])
    return EncodedTask(task.name, task.metric, train, dev, rows("test"), task.labels, labels, most, free)


def check_labels(labels: Sequence[str], label_ids: Sequence[Sequence[int]], where: str | None = None) -> None:
    """Refuse labels that a model cannot tell apart.

    Args:
        labels: label words.
        label_ids: their tokens, as they are used.
        where: the task, for messages.

    Raises:
        SoftstartError: the same label twice, or two labels with the same tokens, naming both.
    """
    seen: dict[tuple[int, ...], str] = {}
    for label, ids in zip(labels, map(tuple, label_ids), strict=True):
        if ids not in seen:
            seen[ids] = label
        elif seen[ids] == label:
            raise SoftstartError(f"the label {label!r} is there twice", where=where, fix="Leave one out.")
        else:
            raise SoftstartError(
                f"the labels {seen[ids]!r} and {label!r} have the same tokens: the model cannot tell them "
                "apart",
                where=where,
                fix="Use other label words, which the tokenizer knows and which differ where they are cut.",
            )


def misread_labels(
    backbone: Backbone, labels: Sequence[str], label_ids: Sequence[Sequence[int]]
) -> dict[str, str]:
    """Labels that the tokenizer does not give back as they are, each with what it gives back.

    A model never writes such a label, and ranks what is left of it.

    Args:
        backbone: whose tokenizer it is.
        labels: label words.
        label_ids: their tokens, as they are used.

    Raises:
        SoftstartError: none do.
    """
    decode = backbone.tokenizer.decode
    back = [str(decode(list(ids), skip_special_tokens=True)).strip() for ids in label_ids]
    return {label: text for label, text in zip(labels, back, strict=True) if label.strip() != text}


def encode_texts(
    backbone: Backbone,
    texts: Sequence[str],
    limit: int | None,
    *,
    outputs: bool = False,
    chat: bool = False,
) -> list[list[int]]:
    """Token ids of texts to read, or with ``outputs`` to write, cut to ``limit`` tokens.

    Args:
        backbone: whose tokenizer it is.
        texts: as ``TextFormat.fill`` made them.
        limit: tokens, special ones included; None for texts to read: whole.
        outputs: the texts are to be written.
        chat: in the tokenizer's chat format.

    Raises:
        SoftstartError: as ``chat.chat_ids``, or a token for which the model has no embedding.
    """
    if outputs:
        assert limit is not None
        ids = _output_ids(backbone, texts, limit, chat)
    else:
        ids = _input_ids(backbone, texts, limit, chat)
    known = backbone.embedding.weight.shape[0]
    if len(backbone.tokenizer) > known and (
        strange := next((i for row in ids for i in row if i >= known), 0)
    ):
        token = backbone.tokenizer.convert_ids_to_tokens(strange)
        raise SoftstartError(
            f"a text holds {token!r}, token {strange} of the tokenizer, for which backbone '{backbone.name}' "
            f"has no embedding (it has {known:,})",
            fix="Leave it out of the texts, or use the tokenizer that belongs to the model.",
        )
    return ids


def to_batch(
    pairs: Sequence[tuple[list[int], list[int]]], runs: Sequence[int], pad: int, seed: int | None = None
) -> Batch:
    """Collate (input, output) token pairs, row i using prompt ``runs[i]``."""
    return collate([i for i, _ in pairs], [o for _, o in pairs], runs, pad=pad, seed=seed)


def rng_for(*key: int) -> np.random.Generator:
    """A generator that depends only on its key, so any step can be drawn without the steps before it."""
    return np.random.default_rng(list(key))


def epoch_slice(n: int, start: int, count: int, *key: int, reshuffle: bool = True) -> list[int]:
    """Positions ``start … start+count`` of an endless stream of epochs over n items.

    Each epoch is a permutation keyed by (key, epoch), so the stream can be entered anywhere. Without
    ``reshuffle`` every epoch has the order of the first.
    """
    out: list[int] = []
    while len(out) < count:
        epoch, offset = divmod(start + len(out), n)
        order = rng_for(*key, epoch if reshuffle else 0).permutation(n)
        out += order[offset : offset + count - len(out)].tolist()
    return out


def _input_ids(
    backbone: Backbone, texts: Sequence[str], limit: int | None, chat: bool = False
) -> list[list[int]]:
    """Token ids of texts to read, with the special tokens of the tokenizer, cut to ``limit``.

    Where the output continues the input, no end token comes between them and no begin token is doubled.
    """
    tokenizer = backbone.tokenizer
    if not texts:
        return []
    if chat:
        if not backbone.continues_input:
            raise SoftstartError(
                f"backbone '{backbone.name}' is an encoder-decoder: it has no chat format",
                fix="Use another template.",
            )
        return chat_ids(tokenizer, backbone.name, texts, limit)
    if backbone.continues_input:
        mention_chat(tokenizer, backbone.name)
    cut = {} if limit is None else {"truncation": True, "max_length": limit}
    ids: list[list[int]] = tokenizer(list(texts), verbose=False, **cut).input_ids
    return [_only_before(row, tokenizer) for row in ids] if backbone.continues_input else ids


def _only_before(row: list[int], tokenizer: Any) -> list[int]:
    """A row without end tokens at its end, and with one begin token where a template wrote it again."""
    begin = tokenizer.bos_token_id
    while len(row) > 1 and row[-1] == tokenizer.eos_token_id:
        row = row[:-1]
    while begin is not None and row[:2] == [begin, begin]:
        row = row[1:]
    return row


def _output_ids(backbone: Backbone, texts: Sequence[str], limit: int, chat: bool = False) -> list[list[int]]:
    """Token ids of texts to write, cut to ``limit``.

    The tokenizer of an encoder-decoder ends them itself. For a backbone that continues its input, an output
    begins with a space and no special tokens, and the end token is added; in a chat format it begins the
    assistant's turn, without the space.
    """
    tokenizer = backbone.tokenizer
    if not texts:
        return []
    if getattr(tokenizer, "tgt_lang", None):
        ids: list[list[int]] = tokenizer(text_target=list(texts), truncation=True, max_length=limit).input_ids
        return ids
    if not backbone.continues_input:
        return _input_ids(backbone, texts, limit)
    # SentencePiece vocabularies put the space before a text themselves.
    spaced = any(token.startswith("▁") for token in tokenizer.tokenize("a")[:1])
    words = [text if spaced or chat else f" {text}" for text in texts]
    bare = tokenizer(words, add_special_tokens=False, truncation=True, max_length=limit - 1).input_ids
    return [[*row, tokenizer.eos_token_id] for row in bare]
