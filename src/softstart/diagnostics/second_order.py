"""How far MAML's inner loop moves a start, and what the second order adds to its meta-gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from softstart.algorithms import MAML
from softstart.algorithms.base import Episodes, inner_loop
from softstart.backbone import Backbone
from softstart.errors import SoftstartError
from softstart.study.declare.spec import MAIN, resolve_methods
from softstart.study.declare.study_file import load_study, variants_of
from softstart.study.plan.inputs import Inputs
from softstart.study.results.folder import STUDY_FILE
from softstart.study.results.stores import open_store
from softstart.study.run.resources import Resources
from softstart.training.episodes import EpisodeSampler, Item
from softstart.training.meta_training import with_rate
from softstart.training.objective import PromptObjective
from softstart.training.starts import draw_start

META_BATCHES = 8
"""Meta-batches that a study's methods are measured on."""


@dataclass(frozen=True)
class SecondOrder:
    """One meta-batch of MAML from a start θ.

    ``displacement`` is the L2 length of the inner loop's move, ‖φ_K - θ‖, as a share of ‖θ‖, mean over tasks;
    ``cosine`` lies between the exact and the first-order meta-gradient, ``ratio`` is the length of the exact
    one over the first-order one.
    """

    displacement: float
    cosine: float
    ratio: float


def second_order(
    backbone: Backbone, algorithm: MAML, theta: Tensor, episodes: Sequence[Episodes]
) -> SecondOrder:
    """What the second order adds to MAML's meta-gradient at a start, mean over meta-batches.

    Args:
        backbone: the frozen model.
        algorithm: inner learning rate and steps.
        theta: the start [P, d].
        episodes: meta-batches (see ``softstart.training.meta_training.EpisodeSampler``).
    """
    loss = PromptObjective(backbone)
    readings = []
    for batch in episodes:
        path = inner_loop(loss, theta, batch, algorithm.inner_lr)
        move = (path.prompts[-1] - theta).flatten(1).norm(dim=1).mean() / theta.norm()
        assert batch.query is not None
        first = loss.gradient(path.prompts[-1], batch.query)[1].mean(0).flatten()
        exact = algorithm.meta_gradient(loss, theta, batch)[0].flatten()
        cosine = torch.nn.functional.cosine_similarity(exact, first, dim=0)
        readings.append(torch.stack([move, cosine, exact.norm() / first.norm()]))
    return SecondOrder(*torch.stack(readings).mean(0).tolist())


def study_second_order(folder: Path, theta: Tensor) -> dict[str, SecondOrder]:
    """What second order adds at a start, on the source tasks of a study, by method.

    Args:
        folder: a study folder that has begun.
        theta: the start [P, d].

    Raises:
        SoftstartError: not a study folder, or none of its methods is MAML or FoMAML.
    """
    study = load_study(folder / STUDY_FILE)
    resources = Resources(variants_of(study))
    backbone = resources.backbone(MAIN)
    with open_store(folder, readonly=True) as store:
        part = next(part for part in Inputs.from_json(store.inputs()).parts if part.variant == MAIN)
    tasks = [resources.encoded(MAIN, name, source=True) for name in part.source]
    start = draw_start(backbone, study.prompt, tasks, study.meta_seeds[0])
    samples = study.source_samples or study.samples
    items = [Item(task.name, task.train[s], task.dev[s]) for task in tasks for s in samples]
    measured = {}
    for method in resolve_methods(study):
        if method.meta is None or method.kind not in ("maml", "fomaml"):
            continue
        loop = {
            k: getattr(method.algorithm, k) for k in ("inner_lr", "inner_steps", "support_size", "query_size")
        }
        maml = cast(MAML, with_rate(MAML(**loop), method.meta, start))
        sampler = EpisodeSampler(items, maml, method.meta, backbone.tokenizer.pad_token_id, backbone.device)
        episodes = [sampler.draw(step) for step in range(META_BATCHES)]
        measured[method.name] = second_order(backbone, maml, theta.to(backbone.device), episodes)
    if not measured:
        raise SoftstartError(
            "the study has no method with an inner loop on a query set", where=str(folder),
            fix="Give a study with maml or fomaml.",
        )  # fmt: skip
    return measured
