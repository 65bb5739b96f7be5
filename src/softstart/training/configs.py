"""Every configuration of a training: the prompt, adaptation, fine-tuning, the outer loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from softstart.backbone.devices import PASS_TOKENS, pass_tokens
from softstart.errors import SoftstartError
from softstart.prompt import KINDS, PLACEMENTS, find_initializer
from softstart.training.declared import Declared
from softstart.training.identity import Added, Unkeyed
from softstart.training.losses import RowLoss, TokenMean
from softstart.training.optimizers import Adafactor, Optimizer
from softstart.training.rates import LrUnit

Positive = Annotated[int, Field(gt=0)]
ContextRows = Positive | Literal["all"]
"""Rows of a prompt that hold demonstrations; ``all``: as many as all train rows of a sample need."""
Select = Literal["best", "last"]
PassTokens = Annotated[int | Literal["auto"] | None, Unkeyed(unless="dropout", same=(PASS_TOKENS,))]

STRICT = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")
"""Unknown keys are refused."""


def known_init(init: str | None) -> str | None:
    """An initializer that needs no files, or None; ValueError for any other."""
    if init is None:
        return None
    try:
        entry, _ = find_initializer(init)
    except SoftstartError as problem:
        raise ValueError(str(problem)) from problem
    if entry.needs in ("prompts", "carried"):
        raise ValueError(f"'{init}' reads prompts from files, which a study's keys do not cover")
    return init


class PromptSpec(BaseModel):
    """The soft prompt of every run."""

    model_config = STRICT

    kind: Annotated[str, AfterValidator(KINDS.check), Added("embeddings")] = "embeddings"
    """What a row holds: ``embeddings`` (a soft prompt) or ``key_values``, the keys and values of a virtual
    token in every layer of a causal backbone (prefix tuning). Both start from ``init``."""
    length: Positive = 100
    """P, the number of trained rows."""
    init: Annotated[str, AfterValidator(known_init)] = "vocabulary"
    """Where plain prompt tuning and the meta-learned start begin: an initializer that needs no files, of
    ``softstart.prompt.INITIALIZERS`` or by its import path."""
    top: Positive = 5000
    """The vocabulary start draws from this many of the first (most frequent) ordinary tokens."""
    frequent: Annotated[Literal["tokenizer", "words", "c4"], Added("tokenizer")] = "tokenizer"
    """What decides which tokens are frequent: their order in the tokenizer; the same for words alone, without
    unused, byte and markup tokens (``frequent_words``); or their count in C4 (T5's vocabulary only; drawn
    with Python's ``random``, as published)."""
    draw_per: Annotated[Literal["seed", "sample", "run"], Added("sample")] = "sample"
    """Plain prompt tuning draws a new start for every seed (the one meta-training starts from), for every
    sample of the target task, or for every run of its grid in order (as published: each learning rate then
    has its own start)."""
    placement: Annotated[str, AfterValidator(PLACEMENTS.check)] = "prefix"
    """Where the prompt goes: a name of ``softstart.prompt.PLACEMENTS``, or the import path of a placement."""
    demonstrations: Annotated[ContextRows | None, Added(None)] = None
    """Further rows after the others, which begin as demonstrations: the target's own train rows and answers,
    in random order, cut to this number; ``all``: all of them, or what the window holds (Lu et al., 2025)."""
    leave_one_out: Annotated[bool, Added(False)] = False
    """Read a train row without the prompt rows that began as this row (Lu et al., 2025)."""
    token_dropout: Annotated[float, Field(ge=0, lt=1), Added(0.0)] = 0.0
    """Read a train row without a random share of the prompt's rows, drawn anew in every step of adaptation
    (Lu et al., 2025: 0.05)."""

    @property
    def learned(self) -> PromptSpec:
        """What of it meta-training depends on: the rows that are learned."""
        return self.model_copy(update={"demonstrations": None, "leave_one_out": False, "token_dropout": 0.0})

    @model_validator(mode="after")
    def _placed(self) -> Self:
        try:
            KINDS[self.kind].check_placement(self.placement)
        except SoftstartError as problem:
            raise ValueError(str(problem)) from problem
        return self


@dataclass(frozen=True)
class AdaptConfig:
    """How a target task is learned.

    The defaults are sizes of Qin et al. (2023), released files, with the rows of one of their two GPUs and
    sound choices elsewhere; the preset ``paper`` of a study is what they ran, value by value.
    """

    steps: int = 3000
    """Upper bound on the steps of a run."""
    batch_size: int = 8
    """Rows of one run in a step."""
    eval_every: int = 50
    """Steps between dev evaluations."""
    eval_backoff: Annotated[int, Added(1)] = 1
    """While the best dev score does not improve, the gap between evaluations doubles, up to
    ``eval_backoff * eval_every`` steps; 1: always ``eval_every`` steps."""
    budgets: Annotated[tuple[int, ...], Added(())] = ()
    """Steps at which the prompt chosen so far is kept as well as the final one; each is also a dev
    evaluation."""
    eval_start: bool = True
    """Evaluate the start itself, before any step; it can be the best prompt."""
    patience: int | None = None
    """Stop a run whose best dev score has not improved for ``patience * eval_every`` steps; None: never."""
    stop_at_perfect: Annotated[bool, Added(False)] = False
    """Stop a run whose dev score is 1, the best there is: under ``select: best`` it would end with the same
    prompt. Its curve ends there, too."""
    rungs: Annotated[tuple[int, ...], Added(())] = ()
    """Successive halving (Jamieson & Talwalkar, 2016): at these steps only the better half of the running
    runs of a ``group`` goes on, by best dev score, ties to the earlier run. Each is also a dev evaluation."""
    select: Select = "best"
    """Which prompt a run ends with: the one with the best dev score, or the last one."""
    epochs: Annotated[int | None, Added(None)] = None
    """Upper bound on epochs; whichever of ``steps`` and ``epochs`` is reached first ends the run (1,000
    epochs as published). The last step is also a dev evaluation."""
    reshuffle: Annotated[bool, Added(True)] = True
    """Draw a new order of the rows in every epoch; False: the same order in all epochs, as published."""
    batch_parts: Annotated[int, Added(1)] = 1
    """Deal the rows of a step to this many batches and average their mean losses, so that the weight of a
    token depends on its batch: 2 as published (two GPUs with 8 rows each)."""
    optimizer: Optimizer = Adafactor()
    """Every run of a pack has its own state."""
    lr_unit: Annotated[LrUnit, Added("absolute")] = "absolute"
    """``embedding``: learning rates are in units of the embedding's entries (``training.rates``)."""
    loss: Annotated[RowLoss, Added(TokenMean())] = TokenMean()
    """What is minimized."""
    dropout: bool = False
    """Dropout while training. Masks depend on the pack's layout, so packed = alone only without it."""
    max_tokens: PassTokens = "auto"
    """Upper bound on the tokens of one forward pass; None: no bound; ``auto``: 65,536 on a GPU of 64 GiB or
    more, else 16,384, and 16,384 everywhere with dropout, whose masks depend on it."""

    @property
    def stops_early(self) -> bool:
        """Whether dev scores can end a run before its last step."""
        return self.patience is not None or bool(self.rungs) or self.stop_at_perfect


def bound_of(config: AdaptConfig | MetaConfig, device: torch.device, memory: int | None = None) -> int | None:
    """The tokens of a forward pass under a configuration, ``auto`` resolved.

    Args:
        config: has ``max_tokens``.
        device: computes the pass.
        memory: its bytes; None: ask the device.
    """
    if config.max_tokens == "auto":
        return PASS_TOKENS if config.dropout else pass_tokens(device, memory)
    return config.max_tokens


@dataclass(frozen=True)
class FineTuneConfig:
    """The fine-tuning loop; the defaults are sizes of Qin et al. (2023), see ``AdaptConfig``."""

    steps: int = 1000
    """Upper bound on the steps of a run."""
    batch_size: int = 16
    """Rows of a step."""
    eval_every: int = 50
    """Steps between dev evaluations."""
    epochs: Annotated[int | None, Added(None)] = None
    """As in ``AdaptConfig``; 300 as published."""
    reshuffle: Annotated[bool, Added(True)] = True
    """As in ``AdaptConfig``."""
    batch_parts: Annotated[int, Added(1)] = 1
    """As in ``AdaptConfig``."""
    budgets: Annotated[tuple[int, ...], Added(())] = ()
    """Steps at which the state chosen so far is reported (see ``finetune``); each is a dev evaluation too."""
    patience: int | None = None
    """Stop after this many dev evaluations without a better score; None: never."""
    weight_decay: float = 1e-5
    """Not applied to biases and layer norms."""
    loss: Annotated[RowLoss, Added(TokenMean())] = TokenMean()
    """What is minimized."""
    dropout: bool = False
    """Dropout while training."""


@dataclass(frozen=True)
class MetaConfig:
    """The outer loop; the defaults are those of Qin et al. (2023), released files."""

    steps: int = 5000
    """Outer steps: meta-updates."""
    meta_batch: int = 2
    """Episodes of a meta-update (not used by multi-task learning, whose batch is one mixture)."""
    lr: float = 0.5
    """Outer learning rate."""
    optimizer: Optimizer = Adafactor()
    """Of the outer loop."""
    lr_unit: Annotated[LrUnit, Added("absolute")] = "absolute"
    """``embedding``: the outer learning rate is in units of the embedding's entries (``training.rates``)."""
    loss: Annotated[RowLoss, Added(TokenMean())] = TokenMean()
    """What inner and outer loop minimize."""
    seed: int = 42
    """Draws the episodes."""
    demonstrations: Annotated[ContextRows | None, Unkeyed()] = None
    """Prompt rows after the learned ones that begin as demonstrations of the target, as under ``prompt``;
    None: as declared there."""
    demonstrated: Annotated[Literal["target", "episodes"], Unkeyed()] = "target"
    """Where prompts have these rows: on target tasks alone, or in episodes too, from the episode's own train
    rows. Rows that are demonstrations adapt in the inner loop; only the others are meta-learned."""
    inner_lr_unit: Annotated[Literal["absolute", "start"], Added("absolute")] = "absolute"
    """``start``: the inner learning rate is in units of the start's entries (their root mean square)."""
    reduction: Annotated[Literal["mean", "sum"], Added("mean")] = "mean"
    """Over the tasks of a meta-batch. Adafactor's steps do not depend on it; those of other optimizers do."""
    reshuffle: Annotated[bool, Added(True)] = True
    """Draw a new order of the items, or of a mixture's rows, in every epoch; False: the same order in all."""
    max_output_tokens: Annotated[int | None, Added(None)] = None
    """Cut outputs to this many tokens, keeping the end token; None: as the tasks were encoded."""
    dropout: bool = False
    """Masks depend on how rows are cut into batches: on ``max_tokens`` and the number of processes."""
    max_tokens: PassTokens = "auto"
    """As in ``AdaptConfig``."""
    memory_budget: Annotated[float | None, Unkeyed()] = None
    """MiB for graphs of inner gradients that exact second order would otherwise compute again; 0: compute all
    again; None: keep the last one where it fits into an eighth of the device's memory."""
    checkpoint_every: Annotated[int, Unkeyed()] = 50
    """Outer steps between checkpoints; does not change the numbers."""


def steps_of(config: AdaptConfig | FineTuneConfig, rows: int) -> int:
    """The steps of a run with ``rows`` train rows: ``steps``, or those of its epochs if they are fewer."""
    if config.epochs is None:
        return config.steps
    return min(config.steps, config.epochs * math.ceil(rows / config.batch_size))


DECLARED: dict[str, type[Declared]] = {"optimizer": Optimizer, "loss": RowLoss}
"""Fields of configurations that choose a class and set its fields."""
