"""Where a soft prompt starts: small functions that compose.

Every initializer is a function (prompt length P, generator) → [P, d]; most take the table they draw from,
``Backbone.vocabulary`` [V, d], and one to fill the remaining rows with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from softstart.errors import SoftstartError

Initializer = Callable[[int, Generator], Tensor]
"""(prompt length P, generator) → [P, d]."""


def ordinary_tokens(tokenizer: Any, top: int) -> list[int]:
    """The first ``top`` token ids that are not special: vocabularies are ordered by frequency, nearly."""
    special = set(tokenizer.all_special_ids)
    return [i for i in range(len(tokenizer)) if i not in special][:top]


def vocabulary(embedding: Tensor, ids: Sequence[int]) -> Initializer:
    """Rows of distinct tokens drawn from ``ids`` (Lester et al., 2021: the most frequent tokens).

    Args:
        embedding: the backbone's input embedding [V, d].
        ids: token ids to draw from; see ``ordinary_tokens``.

    Raises:
        SoftstartError: a prompt longer than there are ids.
    """

    def draw(length: int, generator: Generator) -> Tensor:
        if length > len(ids):
            raise SoftstartError(
                f"prompt_length {length} is more than the {len(ids)} tokens to draw from",
                fix="Use a shorter prompt or another init.",
            )
        chosen = torch.randperm(len(ids), generator=generator)[:length]
        return embedding[torch.tensor(ids)[chosen].to(embedding.device)].float().clone()

    return draw


def task_names(embedding: Tensor, tokenized: Sequence[Sequence[int]], rest: Initializer) -> Initializer:
    """One row a task name, the mean of its tokens' embeddings; the remaining rows from ``rest``.

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
    """One row a label word, the mean of its tokens; more rows from ``rest`` (Lester et al., 2021).

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


def source_average(prompts: Tensor) -> Initializer:
    """The mean of source tasks' prompts [N, P, d], row by row; a SoftstartError for another length."""
    return from_tensor(prompts.float().mean(0))


def nearest_source(target: Tensor, prompts: Tensor) -> Initializer:
    """The source task's prompt that is most like the target's: SPoT's retrieval (Vu et al., 2022, section 4).

    Args:
        target: [P, d], a prompt tuned briefly on the target task (the task's embedding).
        prompts: [N, P, d], tuned likewise on the source tasks.

    Raises:
        SoftstartError: a prompt of another length is asked for.
    """
    return from_tensor(prompts[int(similarity(target, prompts).argmax())].float())


def similarity(target: Tensor, prompts: Tensor) -> Tensor:
    """Cosine of every pair of rows, averaged over the pairs (SPoT's "per-token average"): [N]."""
    unit = torch.nn.functional.normalize(target.float(), dim=-1)
    units = torch.nn.functional.normalize(prompts.float(), dim=-1)
    return torch.einsum("pd,nqd->npq", unit, units).mean((1, 2))


def from_prompt(source: str | Path, *, revision: str | None = None) -> Initializer:
    """The prompt of a file, a folder or a hub repository; errors as ``SoftPrompt.from_pretrained``.

    Raises:
        SoftstartError: it cannot be read, or a prompt of another length is asked for.
    """
    from softstart.prompt.soft_prompt import SoftPrompt

    return from_tensor(SoftPrompt.from_pretrained(source, revision=revision).tensor)


def gaussian(width: int, std: float = 1.0) -> Initializer:
    """Independent normal entries: the default of PEFT, kept as a baseline."""
    return lambda length, generator: torch.randn(length, width, generator=generator) * std


def from_tensor(tensor: Tensor) -> Initializer:
    """Always the given prompt [P, d]: a learned start; a SoftstartError where another length is asked for."""

    def draw(length: int, generator: Generator) -> Tensor:
        if length != tensor.shape[0]:
            raise SoftstartError(
                f"the start has length {tensor.shape[0]} but prompt_length is {length}",
                fix=f"Set prompt_length: {tensor.shape[0]}.",
            )
        return tensor.clone()

    return draw
