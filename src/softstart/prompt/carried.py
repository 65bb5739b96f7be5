"""Prompts carried from one backbone to another through the tokens that their vocabularies share.

A soft prompt means something to its own backbone alone. What two backbones have in common are words: a token
that both know has an embedding in each. A prompt can become the nearest words that it has, or go through a
linear map that was fitted on all shared tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softstart.errors import SoftstartError

FEWEST = 100
"""Shared tokens that a prompt is carried by at least."""
RIDGE = 1e-2
"""Ridge penalty of the linear map, as a share of the mean variance of the source's embeddings."""
SPACES = "\u0120\u2581"
"""What tokenizers write for the space before a word: GPT-2's and SentencePiece's."""


@dataclass(frozen=True)
class Carried:
    """A prompt of another backbone, and what the two backbones share.

    Args:
        prompt: [P, e].
        source: [N, e] the embeddings of the shared tokens in the prompt's backbone.
        target: [N, d] those of the same tokens in the new one.
    """

    prompt: Tensor
    source: Tensor
    target: Tensor

    def nearest_words(self) -> Tensor:
        """[P, d] the new embedding of the shared token that is most like each row (cosine)."""
        unit = torch.nn.functional.normalize(self.prompt.double(), dim=1)
        words = torch.nn.functional.normalize(self.source.double(), dim=1)
        return self.target[(unit @ words.T).argmax(1)].float()

    def mapped(self) -> Tensor:
        """[P, d] the rows under the affine map that fits the shared tokens best (ridge regression)."""
        x, y = self.source.double(), self.target.double()
        mean, aim = x.mean(0), y.mean(0)
        x, y = x - mean, y - aim
        gram = x.T @ x
        gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        weights = torch.linalg.solve(gram, x.T @ y)
        mapped: Tensor = (self.prompt.double() - mean) @ weights + aim
        return mapped.float()


def shared_tokens(source: Any, target: Any) -> tuple[list[int], list[int]]:
    """The ids of the ordinary tokens that two tokenizers share, a space before them included: [N] and [N].

    Raises:
        SoftstartError: fewer than ``FEWEST``.
    """
    mine, theirs = _words(source), _words(target)
    common = [word for word in mine if word in theirs]
    if len(common) < FEWEST:
        raise SoftstartError(
            f"the two vocabularies share {len(common)} tokens, too few to carry a prompt by",
            fix="Start from vocabulary instead.",
        )
    return [mine[word] for word in common], [theirs[word] for word in common]


def _words(tokenizer: Any) -> dict[str, int]:
    special = set(tokenizer.all_special_ids)
    ids = [i for i in range(len(tokenizer)) if i not in special]
    words: dict[str, int] = {}
    for i, token in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True):
        if token:
            words.setdefault(token.translate({ord(space): " " for space in SPACES}), i)
    return words
