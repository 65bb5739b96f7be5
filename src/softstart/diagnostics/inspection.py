"""What a soft prompt is made of, and how far it moved."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from softstart.backbone import Backbone
from softstart.errors import SoftstartError


@dataclass(frozen=True)
class RowFacts:
    """One row of a prompt: L2 norm, nearest vocabulary words by cosine (word, cosine), how far it moved.

    ``moved`` is the L2 distance from the same row before, ``before`` the nearest words there; NaN and empty
    without a prompt to compare with.
    """

    norm: float
    nearest: tuple[tuple[str, float], ...]
    moved: float
    before: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class PromptFacts:
    """A prompt compared with the vocabulary it was drawn from.

    ``vocabulary`` holds the 5th, 50th and 95th percentile of the norms of the vocabulary's embeddings.
    """

    rows: tuple[RowFacts, ...]
    vocabulary: tuple[float, float, float]


def prompt_facts(
    backbone: Backbone, prompt: Tensor, before: Tensor | None = None, *, nearest: int = 3
) -> PromptFacts:
    """Norms, nearest vocabulary words and movement of a prompt [P, d].

    Args:
        backbone: whose vocabulary it lives in.
        prompt: the prompt.
        before: an earlier prompt of the same shape, such as its start.
        nearest: how many words a row.

    Raises:
        SoftstartError: the two prompts differ in shape.
    """
    if before is not None and before.shape != prompt.shape:
        raise SoftstartError(
            f"the prompts have different shapes, {tuple(prompt.shape)} and {tuple(before.shape)}"
        )
    table = backbone.embedding.weight.detach().float().cpu()[: len(backbone.tokenizer)]
    prompt = prompt.float().cpu()
    now = _words(backbone, table, prompt, nearest)
    earlier = [()] * len(prompt) if before is None else _words(backbone, table, before.float().cpu(), nearest)
    moved = (
        torch.full((len(prompt),), float("nan"))
        if before is None
        else (prompt - before.float().cpu()).norm(dim=1)
    )
    rows = tuple(
        RowFacts(float(row.norm()), words, float(far), old)
        for row, words, far, old in zip(prompt, now, moved, earlier, strict=True)
    )
    low, middle, high = torch.quantile(table.norm(dim=1), torch.tensor([0.05, 0.5, 0.95])).tolist()
    return PromptFacts(rows, (low, middle, high))


def _words(backbone: Backbone, table: Tensor, rows: Tensor, n: int) -> list[tuple[tuple[str, float], ...]]:
    unit = torch.nn.functional.normalize(table, dim=1)
    scores, ids = (torch.nn.functional.normalize(rows, dim=1) @ unit.T).topk(n, dim=1)
    words = [[_readable(backbone.tokenizer.decode([i])) for i in row] for row in ids.tolist()]
    return [tuple(zip(w, s, strict=True)) for w, s in zip(words, scores.tolist(), strict=True)]


def _readable(word: str) -> str:
    """A token's text; quoted where it is blank or starts inside a word, which the eye would miss."""
    return word.strip() if word.startswith(" ") and word.strip() else repr(word)
