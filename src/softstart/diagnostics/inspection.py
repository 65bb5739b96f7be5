"""What a prompt is made of, and how far it moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from softstart.backbone import Backbone
from softstart.errors import SoftstartError
from softstart.training.rates import entry_size


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
    _check_shapes(prompt, before)
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


@dataclass(frozen=True)
class LayerFacts:
    """The keys or the values of a key-value prompt in one layer: the root mean square of their entries, that
    of ordinary tokens, and the L2 distance from those of an earlier prompt (NaN without one).
    """

    layer: int
    part: str
    size: float
    usual: float
    moved: float


def layer_facts(backbone: Backbone, prompt: Tensor, before: Tensor | None = None) -> list[LayerFacts]:
    """Sizes and movement of a key-value prompt [P, D], layer by layer, keys before values.

    Args:
        backbone: whose prompts are key-value prompts.
        prompt: the prompt.
        before: an earlier prompt of the same shape, such as its start.

    Raises:
        SoftstartError: the two prompts differ in shape.
    """
    _check_shapes(prompt, before)
    halves = 2 * backbone.key_value_shape[0]
    usual = torch.as_tensor(entry_size(backbone)).view(halves, -1)[:, 0].tolist()
    moves = torch.full_like(prompt, float("nan")) if before is None else prompt - before
    parts, moved = (tensor.float().cpu().chunk(halves, 1) for tensor in (prompt, moves))
    return [
        LayerFacts(
            i // 2, ("keys", "values")[i % 2], float(parts[i].square().mean().sqrt()), usual[i],
            float(moved[i].norm()),
        )
        for i in range(halves)
    ]  # fmt: skip


def described(
    backbone: Backbone, prompt: Tensor, before: Tensor | None = None, *, nearest: int = 3
) -> Iterator[str]:
    """What a prompt [P, D] is made of, in lines; arguments as of ``prompt_facts``."""
    yield from _DESCRIBED[backbone.prompt_kind](backbone, prompt, before, nearest)


def _rows(backbone: Backbone, prompt: Tensor, before: Tensor | None, nearest: int) -> Iterator[str]:
    facts = prompt_facts(backbone, prompt, before, nearest=nearest)
    low, middle, high = facts.vocabulary
    yield f"{len(facts.rows)} rows of width {prompt.shape[1]}"
    yield f"vocabulary norms: median {middle:.2f}, 90 % within {low:.2f} to {high:.2f}"
    for i, row in enumerate(facts.rows):
        moved = f"   moved {row.moved:8.2f} from {_listed(row.before)}" if before is not None else ""
        yield f"{i:4d}  norm {row.norm:8.2f}  {_listed(row.nearest)}{moved}"


def _layers(backbone: Backbone, prompt: Tensor, before: Tensor | None, nearest: int) -> Iterator[str]:
    yield backbone.kind.described(len(prompt))
    yield "size: root mean square of entries; usual: of ordinary tokens. No word is near to keys and values"
    for of in layer_facts(backbone, prompt, before):
        moved = f"   moved {of.moved:8.2f}" if before is not None else ""
        yield f"layer {of.layer:3d}  {of.part:6s}  size {of.size:7.3f}  usual {of.usual:7.3f}{moved}"


_DESCRIBED: dict[str, Callable[[Backbone, Tensor, Tensor | None, int], Iterator[str]]] = {
    "embeddings": _rows,
    "key_values": _layers,
}


def _listed(nearest: tuple[tuple[str, float], ...]) -> str:
    return "  ".join(f"{word} {score:.2f}" for word, score in nearest)


def _check_shapes(prompt: Tensor, before: Tensor | None) -> None:
    if before is not None and before.shape != prompt.shape:
        raise SoftstartError(
            f"the prompts have different shapes, {tuple(prompt.shape)} and {tuple(before.shape)}"
        )


def _words(backbone: Backbone, table: Tensor, rows: Tensor, n: int) -> list[tuple[tuple[str, float], ...]]:
    unit = torch.nn.functional.normalize(table, dim=1)
    scores, ids = (torch.nn.functional.normalize(rows, dim=1) @ unit.T).topk(n, dim=1)
    words = [[_readable(backbone.tokenizer.decode([i])) for i in row] for row in ids.tolist()]
    return [tuple(zip(w, s, strict=True)) for w, s in zip(words, scores.tolist(), strict=True)]


def _readable(word: str) -> str:
    """A token's text; quoted where it is blank or starts inside a word, which the eye would miss."""
    return word.strip() if word.startswith(" ") and word.strip() else repr(word)
