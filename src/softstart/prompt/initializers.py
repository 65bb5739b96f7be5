"""Where a soft prompt starts: small functions that compose, and the names they are known by.

An initializer is a function (prompt length P, generator) → [P, d]. Most take the table they draw from,
``Backbone.vocabulary`` [V, d], and another initializer for the rows they leave over. ``INITIALIZERS`` names
those that a study (``prompt.init``) and the commands (``--init``) can ask for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Generator, Tensor

from softstart.errors import SoftstartError
from softstart.prompt.carried import Carried
from softstart.prompt.soft_prompt import SoftPrompt
from softstart.registry import Registry

Initializer = Callable[[int, Generator], Tensor]
"""(prompt length P, generator) → [P, d]."""


def ordinary_tokens(tokenizer: Any, top: int) -> list[int]:
    """The first ``top`` token ids that are not special: most vocabularies are ordered by frequency."""
    special = set(tokenizer.all_special_ids)
    return [i for i in range(len(tokenizer)) if i not in special][:top]


def vocabulary(embedding: Tensor, ids: Sequence[int]) -> Initializer:
    """Rows of distinct tokens drawn from ``ids`` (Lester et al., 2021: the most frequent tokens).

    Args:
        embedding: the backbone's input embedding [V, d].
        ids: token ids to draw from; see ``ordinary_tokens``.

    Raises:
        SoftstartError: a prompt longer than there are ids.

    >>> import torch
    >>> from softstart import Backbone
    >>> backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    >>> frequent = ordinary_tokens(backbone.tokenizer, top=500)
    >>> draw = vocabulary(backbone.vocabulary, frequent)
    >>> start = draw(20, torch.Generator().manual_seed(0))
    >>> tuple(start.shape)
    (20, 128)
    >>> bool((start[0] == backbone.vocabulary[frequent]).all(1).any())
    True
    """

    def draw(length: int, generator: Generator) -> Tensor:
        if length > len(ids):
            raise SoftstartError(
                f"a prompt of {length} rows is longer than the list of {len(ids)} tokens to draw from",
                fix="Give a smaller --length (prompt.length in a study), or another init.",
            )
        chosen = torch.randperm(len(ids), generator=generator)[:length]
        return embedding[torch.tensor(ids)[chosen].to(embedding.device)].float().clone()

    return draw


def task_names(embedding: Tensor, tokenized: Sequence[Sequence[int]], rest: Initializer) -> Initializer:
    """One row for each task name, the mean of its tokens' embeddings; the remaining rows from ``rest``.

    The start of Qin et al. (2023), released files: names first, then frequent tokens.

    Args:
        embedding: [V, d].
        tokenized: the token ids of every name.
        rest: where the rows beyond the names come from.
    """

    def draw(length: int, generator: Generator) -> Tensor:
        names = [embedding[torch.tensor(ids, device=embedding.device)].float().mean(0) for ids in tokenized]
        if len(names) >= length:
            return torch.stack(names[:length])
        return torch.cat((torch.stack(names), rest(length - len(names), generator)))

    return draw


def class_labels(embedding: Tensor, tokenized: Sequence[Sequence[int]], rest: Initializer) -> Initializer:
    """One row for each label word, the mean of its tokens; the others from ``rest`` (Lester et al., 2021).

    ``embedding`` is that of the backbone, [V, d].
    """
    return task_names(embedding, tokenized, rest)


def text(embedding: Tensor, ids: Sequence[int]) -> Initializer:
    """The tokens of a text in order, repeated or cut to the prompt's length (PEFT's ``TEXT``).

    ``embedding`` is that of the backbone, [V, d].

    Raises:
        SoftstartError: a text without tokens.
    """
    if not ids:
        raise SoftstartError("the text to start from is empty", fix="Give a few words.")

    def draw(length: int, generator: Generator) -> Tensor:
        index = torch.tensor(ids, device=embedding.device)[torch.arange(length) % len(ids)]
        return embedding[index].float().clone()

    return draw


def demonstrations(embedding: Tensor, rows: Sequence[Sequence[int]], rest: Initializer) -> Initializer:
    """The tokens of rows with their answers, in random order, cut to the prompt's length (Lu et al., 2025).

    Context Tuning begins with the whole context; a shorter prompt holds the first rows of a random order.

    Args:
        embedding: that of the backbone, [V, d].
        rows: the token ids of every row with its answer.
        rest: where the prompt's rows beyond all of them come from.
    """

    def draw(length: int, generator: Generator) -> Tensor:
        ids, _ = _shuffled(rows, length, generator)
        known = embedding[torch.tensor(ids, device=embedding.device)].float().clone()
        if len(ids) == length:
            return known
        return torch.cat((known, rest(length - len(ids), generator).to(known.device)))

    return draw


def demonstration_origins(rows: Sequence[Sequence[int]]) -> Initializer:
    """Which of the ``rows`` every row of a prompt by ``demonstrations`` comes from, [P]; -1: none of them."""

    def draw(length: int, generator: Generator) -> Tensor:
        _, origins = _shuffled(rows, length, generator)
        return torch.tensor(origins + [-1] * (length - len(origins)))

    return draw


def _shuffled(
    rows: Sequence[Sequence[int]], length: int, generator: Generator
) -> tuple[list[int], list[int]]:
    """The first tokens of rows in random order, and the row that each belongs to."""
    order = torch.randperm(len(rows), generator=generator).tolist()
    pairs = [(token, i) for i in order for token in rows[i]][:length]
    return [token for token, _ in pairs], [i for _, i in pairs]


def source_average(prompts: Tensor) -> Initializer:
    """The mean of source tasks' prompts [N, P, d], row by row; a SoftstartError for another length."""
    return from_tensor(prompts.float().mean(0))


def nearest_source(target: Tensor, prompts: Tensor) -> Initializer:
    """The source task's prompt that is most like the target's: SPoT's retrieval (Vu et al., 2022, section 4).

    Args:
        target: [P, d], a prompt tuned briefly on the target task (the task's embedding).
        prompts: [N, P, d], tuned likewise on the source tasks.

    Raises:
        SoftstartError: the prompts have another length than the one asked for.
    """
    return from_tensor(prompts[int(similarity(target, prompts).argmax())].float())


def similarity(target: Tensor, prompts: Tensor) -> Tensor:
    """Cosine of every pair of rows, averaged over the pairs (SPoT's "per-token average"): [N]."""
    unit = torch.nn.functional.normalize(target.float(), dim=-1)
    units = torch.nn.functional.normalize(prompts.float(), dim=-1)
    return torch.einsum("pd,nqd->npq", unit, units).mean((1, 2))


def from_prompt(source: str | Path, *, revision: str | None = None) -> Initializer:
    """The prompt of a file, a folder or a hub repository.

    Raises:
        SoftstartError: as ``SoftPrompt.from_pretrained``, or the prompt has another length than the one asked
            for.
    """
    return from_tensor(SoftPrompt.from_pretrained(source, revision=revision).tensor)


def gaussian(width: int, std: float = 1.0) -> Initializer:
    """Independent normal entries: the default of PEFT, kept as a baseline."""
    return lambda length, generator: torch.randn(length, width, generator=generator) * std


def from_tensor(tensor: Tensor) -> Initializer:
    """Always the given prompt [P, d], a learned start; a SoftstartError if another length is asked for."""

    def draw(length: int, generator: Generator) -> Tensor:
        if length != tensor.shape[0]:
            raise SoftstartError(
                f"the start has length {tensor.shape[0]} but prompt_length is {length}",
                fix=f"Set prompt_length: {tensor.shape[0]}.",
            )
        return tensor.clone()

    return draw


# --- initializers by name ---


class Vocabulary(Protocol):
    """What an initializer can use of a backbone."""

    tokenizer: Any

    @property
    def vocabulary(self) -> Tensor:
        """The embedding of every token [V, d]."""

    @property
    def width(self) -> int:
        """d."""


@dataclass(frozen=True)
class Material:
    """What a start can be made from; each registered initializer says what it needs of it.

    Args:
        backbone: whose vocabulary and tokenizer are used.
        names: task names.
        labels: label words.
        rows: token ids of train rows with their answers.
        text: the words of ``text:WORDS``.
        prompts: the prompts [N, P, d] of ``average:FOLDER``.
        carried: the prompt of another backbone of ``mapped:PROMPT``.
        top: how many of the first ordinary tokens count as frequent.
        draw_frequent: another way to draw frequent words.
    """

    backbone: Vocabulary
    names: Sequence[str] = ()
    labels: Sequence[str] = ()
    rows: Sequence[Sequence[int]] = ()
    text: str = ""
    prompts: Tensor | None = None
    carried: Carried | None = None
    top: int = 5000
    draw_frequent: Initializer | None = None

    @cached_property
    def table(self) -> Tensor:
        """The embedding of every token [V, d]."""
        return self.backbone.vocabulary

    @cached_property
    def frequent(self) -> Initializer:
        """Frequent words for a prompt or its remaining rows; SoftstartError where they do not suffice."""
        if self.draw_frequent is not None:
            return self.draw_frequent
        return vocabulary(self.table, ordinary_tokens(self.backbone.tokenizer, self.top))

    def tokens(self, words: Sequence[str]) -> list[list[int]]:
        """The token ids of words, without special tokens."""
        ids: list[list[int]] = self.backbone.tokenizer(list(words), add_special_tokens=False).input_ids
        return ids


Need = Literal["names", "labels", "rows", "text", "prompts", "carried"]

GIVEN = {"text": "WORDS", "prompts": "FOLDER", "carried": "PROMPT"}
"""Needs that are written after a colon, as in ``text:WORDS``. All others come from the tasks."""


@dataclass(frozen=True)
class NamedInitializer:
    """An initializer that studies and commands know by name.

    Args:
        make: makes the initializer from ``Material``.
        label: the start in words, for tables and reports.
        needs: the field of ``Material`` that it cannot do without; None: the backbone is enough.
        chooses: whether adaptation replaces the start by the one of ``Material.prompts`` that is most like a
            prompt tuned briefly on the target task.
        origins: makes what says which of ``Material.rows`` every row of the prompt comes from, [P], with the
            same draws; -1: none. None: rows come from no train row.
    """

    make: Callable[[Material], Initializer]
    label: str
    needs: Need | None = None
    chooses: bool = False
    origins: Callable[[Material], Initializer] | None = None


INITIALIZERS: Registry[NamedInitializer] = Registry(
    "initializer", accepts=lambda entry: isinstance(entry, NamedInitializer)
)
"""Initializers by name, as ``prompt.init`` of a study and ``--init`` of the commands take them."""


def _from_names(given: Material) -> Initializer:
    words = [re.sub("[_-]+", " ", name) for name in given.names]
    return task_names(given.table, given.tokens(words), given.frequent)


def _from_labels(given: Material) -> Initializer:
    labels = list(dict.fromkeys(given.labels))
    return class_labels(given.table, given.tokens(labels), given.frequent)


def _from_rows(given: Material) -> Initializer:
    return demonstrations(given.table, given.rows, given.frequent)


def _from_text(given: Material) -> Initializer:
    (ids,) = given.tokens([given.text])
    return text(given.table, ids)


def _from_average(given: Material) -> Initializer:
    assert given.prompts is not None
    return source_average(given.prompts)


def _from_carried(way: Literal["nearest_words", "mapped"]) -> Callable[[Material], Initializer]:
    def make(given: Material) -> Initializer:
        assert given.carried is not None
        return from_tensor(getattr(given.carried, way)())

    return make


INITIALIZERS.add("vocabulary", NamedInitializer(lambda given: given.frequent, "frequent words"))
INITIALIZERS.add("task_names", NamedInitializer(_from_names, "task names, then frequent words", "names"))
INITIALIZERS.add("labels", NamedInitializer(_from_labels, "label words, then frequent words", "labels"))
INITIALIZERS.add(
    "demonstrations",
    NamedInitializer(
        _from_rows,
        "train rows with their answers, in random order",
        "rows",
        origins=lambda given: demonstration_origins(given.rows),
    ),
)
INITIALIZERS.add("text", NamedInitializer(_from_text, "the tokens of a text", "text"))
INITIALIZERS.add("average", NamedInitializer(_from_average, "the mean of the prompts in a folder", "prompts"))
INITIALIZERS.add(
    "nearest",
    NamedInitializer(_from_average, "the prompt in a folder nearest to the target", "prompts", chooses=True),
)
INITIALIZERS.add(
    "nearest_words",
    NamedInitializer(_from_carried("nearest_words"), "another backbone's prompt, as words", "carried"),
)
INITIALIZERS.add(
    "mapped",
    NamedInitializer(_from_carried("mapped"), "another backbone's prompt, mapped", "carried"),
)
INITIALIZERS.add("gaussian", NamedInitializer(lambda given: gaussian(given.backbone.width), "normal noise"))


def usages() -> list[str]:
    """Every registered initializer as it is asked for: ``vocabulary``, ``text:WORDS``, …."""
    return [
        f"{name}:{GIVEN[entry.needs]}" if entry.needs in GIVEN else name
        for name, entry in INITIALIZERS.items()
    ]


def find_initializer(init: str, where: str | None = None) -> tuple[NamedInitializer, str]:
    """What ``NAME`` or ``NAME:VALUE`` asks for, and the value.

    Raises:
        SoftstartError: there is no such initializer, or it takes no value, or the value is missing.
    """
    name, _, value = init.partition(":")
    entry = INITIALIZERS.find(name, where)
    if entry.needs in GIVEN and not value:
        asked = f"{name}:{GIVEN[entry.needs]}"
        raise SoftstartError(f"initializer '{name}' needs a value", where=where, fix=f"Write {asked}.")
    if value and entry.needs not in GIVEN:
        raise SoftstartError(f"initializer '{name}' takes no value", where=where, fix=f"Write {name}.")
    return entry, value


def make_initializer(init: str, given: Material, where: str | None = None) -> Initializer:
    """The initializer that ``NAME`` or ``text:WORDS`` asks for; the prompts of a folder are in ``given``.

    Raises:
        SoftstartError: as ``find_initializer``, or nothing to make it from: a task without labels.
    """
    entry, value = find_initializer(init, where)
    if entry.needs == "text":
        given = replace(given, text=value)
    missing = {
        "names": not given.names,
        "labels": not given.labels,
        "rows": not given.rows,
        "prompts": given.prompts is None,
        "carried": given.carried is None,
    }
    if entry.needs is not None and missing.get(entry.needs):
        raise SoftstartError(
            f"there are no {entry.needs} to start from", where=where, fix="Start from vocabulary instead."
        )
    return entry.make(given)
