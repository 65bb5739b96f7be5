"""Small episodes, the smallest case of every algorithm, and autograd through a whole inner loop."""

from __future__ import annotations

import torch

from helpers.models import random_batch
from softstart.algorithms import (
    ANIL,
    IMAML,
    MAML,
    Episodes,
    FoMAML,
    MetaSGD,
    MultiTask,
    MultitaskPrompt,
    Reptile,
)
from softstart.training.source_mixture import SourceMixture
from softstart.training.spot import SPoT

SMALL = {
    "maml": MAML(inner_lr=0.1, inner_steps=2),
    "fomaml": FoMAML(inner_lr=0.1, inner_steps=2),
    "reptile": Reptile(inner_lr=0.1, inner_steps=3),
    "multitask": MultiTask(query_size=6),
    "anil": ANIL(inner_lr=0.1, inner_steps=2),
    "imaml": IMAML(inner_lr=0.1, inner_steps=2, iterations=2),
    "metasgd": MetaSGD(inner_lr=0.1, inner_steps=2, further_lr=0.5),
    "multitask_prompt": MultitaskPrompt(rank=2, query_size=3, support_size=3, further_lr=0.5),
    "spot": SPoT(embedding_steps=4, query_size=3),
    "source_mixture": SourceMixture(weight_steps=3, query_size=3),
}

TASKS = 3


def episodes(steps: int, seed: int = 0) -> Episodes:
    shape = [(4, 2, 0), (7, 1, 1), (2, 3, 2), (6, 2, 1), (3, 1, 0)]
    return Episodes(
        TASKS, [random_batch(shape, seed + k) for k in range(steps)], random_batch(shape, seed + 99)
    )


def unrolled(backbone, theta, meta_batch, lr):
    """(mean query loss at φ_K, Σ of inner gradients) by plain autograd through the whole inner loop."""
    phi = theta.expand(TASKS, *theta.shape)
    for batch in meta_batch.support:
        (gradient,) = torch.autograd.grad(task_losses(backbone, phi, batch).sum(), phi, create_graph=True)
        phi = phi - lr * gradient
    return phi, task_losses(backbone, phi, meta_batch.query)


def task_losses(backbone, phi, batch):
    sums, counts = backbone.nll(phi, batch, twice=True)
    total = torch.zeros(TASKS, dtype=sums.dtype).index_add(0, batch.run, sums)
    return total / torch.zeros(TASKS, dtype=torch.long).index_add(0, batch.run, counts)
