"""What training minimizes: the loss of a run, as a sum over its rows.

Adding a loss is one class and one line that registers it: here, or in a package of its own. Studies also
accept the import path of a class that is not registered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from softstart.backbone import IGNORE, Backbone, Batch
from softstart.registry import Registry
from softstart.training.declared import Declared, is_declared


@dataclass(frozen=True)
class RowLoss(Declared, ABC):
    """A loss and its settings: values of the rows of a run, summed and divided by their counts.

    A subclass is a frozen dataclass whose fields are its settings. A row's value may depend on nothing but
    the row and the prompt of its run, so that rows can be regrouped and runs can share a forward pass.
    """

    @abstractmethod
    def values(self, backbone: Backbone, prompts: Tensor, batch: Batch, *, twice: bool = False) -> Tensor:
        """The value of every row [B], differentiable.

        Args:
            backbone: the model.
            prompts: [R, P, d].
            batch: rows; row b is under ``prompts[batch.run[b]]``, with the dropout masks of ``batch.seed``.
            twice: use kernels that can be differentiated twice.
        """

    @abstractmethod
    def counts(self, batch: Batch) -> Tensor:
        """What every row adds to the divisor of its run, [B] whole numbers."""

    def divisors(self, batch: Batch, runs: int) -> Tensor:
        """What the sums of runs are divided by, [R]; 1 for a run without rows."""
        total = torch.zeros(runs, dtype=torch.long, device=batch.run.device)
        return total.index_add(0, batch.run, self.counts(batch)).clamp_min(1)


LOSSES: Registry[type[RowLoss]] = Registry("loss", is_declared(RowLoss))
RowLoss.registry = LOSSES


@dataclass(frozen=True)
class TokenMean(RowLoss):
    """The negative log-likelihood of the outputs, a mean over their tokens (Lester et al., 2021)."""

    def values(self, backbone: Backbone, prompts: Tensor, batch: Batch, *, twice: bool = False) -> Tensor:
        """Nats of every row [B] under prompts [R, P, d]."""
        return backbone.nll(prompts, batch, seed=batch.seed, twice=twice)[0]

    def counts(self, batch: Batch) -> Tensor:
        """Label tokens of every row [B]."""
        return (batch.labels != IGNORE).sum(1)


LOSSES.add("token_mean", TokenMean)
