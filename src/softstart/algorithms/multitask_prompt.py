"""Multitask prompt tuning (Wang et al., 2023): one shared prompt, scaled for each task.

    source  P̂_n = P ∘ (U_n V_n), the shared prompt times a matrix of low rank of task n, entry by entry
    target  begins at P ∘ (Ū V̄), with the means of U_n and V_n over the source tasks

The paper abbreviates it MPT, as Qin et al. (2023) do meta prompt tuning: the two have nothing else in common.
Here prompts are not distilled from prompts of single tasks, as theirs are, and a target task tunes its whole
prompt, where the paper tunes P, U and V. PEFT's ``MULTITASK_PROMPT_TUNING`` begins at the same means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from softstart.algorithms.base import COLUMNS, ROWS, SHARED, THETA, Data, Episodes, Logs, Loss


@dataclass(frozen=True)
class MultitaskPrompt:
    """Multitask prompt tuning. A step takes ``query_size`` train and as many dev rows of each task."""

    rank: int = 1
    """The rank of the tasks' matrices; 1 in the paper."""
    query_size: int = 8
    """Dev rows of a task in a step."""
    support_size: int = 8
    """Train rows of a task in a step."""
    further_lr: float = 0.05
    """Outer learning rate of the matrices, relative to that of the shared prompt."""

    inner_steps: ClassVar[int] = 1
    data: ClassVar[Data] = "episodes"
    sourced: ClassVar[bool] = True
    label: ClassVar[str] = "Multitask prompt"
    color: ClassVar[str] = "#9a6a00"

    def further(self, theta: Tensor, sources: int = 1) -> dict[str, Tensor]:
        """U [N P, rank] and V [N rank, d]: every product is one before it is learned."""
        generator = torch.Generator().manual_seed(0)
        columns = torch.randn(sources, len(theta), self.rank, generator=generator) * 0.02
        rows = torch.zeros(sources, self.rank, theta.shape[1])
        columns[..., 0], rows[:, 0] = 1.0, 1.0
        return {COLUMNS: columns.flatten(0, 1).to(theta), ROWS: rows.flatten(0, 1).to(theta)}

    def meta_gradient(
        self, loss: Loss, theta: Tensor, episodes: Episodes, columns: Tensor, rows: Tensor
    ) -> tuple[dict[str, Tensor], Logs]:
        """Means over tasks of the gradients of P [P, d], U [N P, rank] and V [N rank, d]."""
        u, v = columns.unflatten(0, (-1, len(theta))), rows.unflatten(0, (-1, self.rank))
        tasks = torch.arange(episodes.tasks) if episodes.sources is None else episodes.sources
        tasks = tasks.to(theta.device)
        prompts = theta * (u[tasks] @ v[tasks])  # [M, P, d]
        (support, one), (query, other) = (
            loss.gradient(prompts, batch) for batch in (*episodes.support, episodes.query)
        )
        slope = (one + other) / 2 / episodes.tasks  # of the mean over train and dev rows, and over tasks
        scaled = theta * slope
        return {
            THETA: (slope * (u[tasks] @ v[tasks])).sum(0),
            COLUMNS: torch.zeros_like(u).index_add(0, tasks, scaled @ v[tasks].mT).flatten(0, 1),
            ROWS: torch.zeros_like(v).index_add(0, tasks, u[tasks].mT @ scaled).flatten(0, 1),
        }, {"support": float(support.mean()), "query": float(query.mean())}

    def begin(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is kept: the start of targets [P, d] as ``THETA``, the prompt P as ``SHARED``, U and V."""
        theta = values[THETA]
        u = values[COLUMNS].unflatten(0, (-1, len(theta))).mean(0)
        v = values[ROWS].unflatten(0, (-1, self.rank)).mean(0)
        return {**values, THETA: theta * (u @ v), SHARED: theta}
