"""A second loss, as somebody outside of the package would write it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from softstart.backbone import IGNORE
from softstart.training.losses import RowLoss


@dataclass(frozen=True)
class Margin(RowLoss):
    """How far a row's right label is from being ``margin`` nats more likely than the best wrong one."""

    words: tuple[tuple[int, ...], ...] = ((3,), (4,))
    """Token ids of the labels."""
    margin: float = 1.0
    """In nats."""

    def values(self, backbone, prompts, batch, *, twice=False):
        length = max(batch.labels.shape[1], *map(len, self.words))
        padded = torch.full((len(self.words), length), IGNORE)
        for row, ids in zip(padded, self.words, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        given = torch.nn.functional.pad(batch.labels, (0, length - batch.labels.shape[1]), value=IGNORE)
        right = (given[:, None] == padded).all(2)  # [B, C]
        scores = []
        for ids in padded:
            other = replace(batch, labels=ids.expand(len(batch), -1))
            scores.append(-backbone.nll(prompts, other, seed=batch.seed, twice=twice)[0])
        likelihoods = torch.stack(scores, 1)
        wrong = likelihoods.masked_fill(right, -torch.inf).amax(1)
        return (self.margin + wrong - (likelihoods * right).sum(1)).clamp_min(0)

    def counts(self, batch):
        return torch.ones_like(batch.run)
