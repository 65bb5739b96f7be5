"""How a target task is learned: what adaptation and fine-tuning are told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from softstart.training.optimizers import OptimizerConfig

Select = Literal["best", "last"]


@dataclass(frozen=True)
class AdaptConfig:
    """How a target task is learned.

    The defaults are sizes of Qin et al. (2023), released files, with the rows of one of their two GPUs and
    sound choices elsewhere; the preset ``paper`` of a study is what they ran, value by value.
    """

    steps: int = 3000
    """Most steps of a run."""
    batch_size: int = 8
    """Rows of one run a step."""
    eval_every: int = 50
    """Steps between dev evaluations."""
    eval_backoff: int = 1
    """While its best dev score stands, a run is evaluated after 1, 2, 4, … times ``eval_every`` steps, and at
    most so many times apart; 1: always every ``eval_every`` steps."""
    budgets: tuple[int, ...] = ()
    """Steps at which the prompt chosen so far is kept beside the final one; each is a dev evaluation too."""
    eval_start: bool = True
    """Evaluate the start itself, before any step; it can be the best prompt."""
    patience: int | None = None
    """Stop a run whose best dev score has stood for so many times ``eval_every`` steps; None: never."""
    rungs: tuple[int, ...] = ()
    """Successive halving (Jamieson & Talwalkar, 2016): at these steps only the better half of the running
    runs of a ``group`` goes on, by best dev score, ties to the earlier run. Each is a dev evaluation too."""
    select: Select = "best"
    """Which prompt a run ends with: the one with the best dev score, or the last one."""
    epochs: int | None = None
    """At most so many passes over a run's train rows, if they take fewer steps: 1,000 as published. The last
    step is a dev evaluation too."""
    reshuffle: bool = True
    """Draw a new order of the rows in every epoch; False: one for all, as published."""
    batch_parts: int = 1
    """Deal the rows of a step to so many batches whose mean losses are averaged, so that a token counts less
    among many: 2 as published (GPUs of 8 rows each)."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """One for each run of a pack."""
    dropout: bool = False
    """Dropout while training. Masks depend on the pack's layout, so packed = alone only without it."""
    max_tokens: int | None = 16384
    """Bound on the tokens of one forward pass."""


@dataclass(frozen=True)
class FineTuneConfig:
    """The fine-tuning loop; the defaults are sizes of Qin et al. (2023), see ``AdaptConfig``."""

    steps: int = 1000
    """Most steps of a run."""
    batch_size: int = 16
    """Rows a step."""
    eval_every: int = 50
    """Steps between dev evaluations."""
    epochs: int | None = None
    """As in ``AdaptConfig``; 300 as published."""
    reshuffle: bool = True
    """As in ``AdaptConfig``."""
    batch_parts: int = 1
    """As in ``AdaptConfig``."""
    budgets: tuple[int, ...] = ()
    """Steps at which the state chosen so far is reported (see ``finetune``); each is a dev evaluation too."""
    patience: int | None = None
    """Stop after so many dev evaluations without a better score; None: never."""
    weight_decay: float = 1e-5
    """Not applied to biases and layer norms."""
    dropout: bool = False
    """Dropout while training."""


def steps_of(config: AdaptConfig | FineTuneConfig, rows: int) -> int:
    """The steps of a run with so many train rows: all, or those of its epochs if they are fewer."""
    if config.epochs is None:
        return config.steps
    return min(config.steps, config.epochs * math.ceil(rows / config.batch_size))


def whole_groups(groups: Sequence[str | None], size: int) -> list[list[int]]:
    """Cut runs into packs of at most ``size`` without parting a group; a larger group is a pack of its own.

    Args:
        groups: the group of every run, in order.
        size: the most runs of a pack.

    Returns:
        Indices of the runs of each pack, groups in the order of their first run.
    """
    members: dict[str | int, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(i if group is None else group, []).append(i)
    packs: list[list[int]] = []
    for rivals in members.values():
        if packs and len(packs[-1]) + len(rivals) <= size:
            packs[-1] += rivals
        else:
            packs.append(list(rivals))
    return packs
