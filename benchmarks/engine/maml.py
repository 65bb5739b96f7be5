"""The exact second-order meta-gradient of one task after K inner steps, each library in its own way."""

from __future__ import annotations

import copy
import os
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from benchmarks.engine.timing import Absent, Contender
from torch import nn

from softstart.algorithms import MAML, Episodes
from softstart.backbone import Backbone, Batch
from softstart.training.objective import PromptObjective


class Asked(Protocol):
    """A model, a start [1, P, d] and batches of a few rows: ``Work`` or ``CausalWork``."""

    inner_lr: ClassVar[float]
    hide_from_higher: ClassVar[bool]
    """Whether higher, which makes functions of modules, must not see the model: it breaks lists of layers."""

    @property
    def backbone(self) -> Backbone: ...
    @property
    def starts(self) -> torch.Tensor: ...
    def plain(self) -> Any: ...
    def batch(self, run: int, seed: int = 0) -> Batch: ...
    def loss(self, model: Any, prompt: torch.Tensor, batch: Batch) -> torch.Tensor: ...


def softstart(work: Asked, steps: int, budget: int | None, *, compiled: bool = False) -> Contender:
    """A stored trajectory; ``budget`` is for kept graphs. What torch compiles is not timed."""
    support, query = _episode(work, steps)
    backbone = work.backbone
    if compiled:
        backbone = copy.copy(backbone)
        backbone.compile()
        if hasattr(backbone, "compiled"):
            backbone.compiled = False  # first-order layers of T5: torch's product, slow on AMD processors

    def step() -> torch.Tensor:
        loss = PromptObjective(backbone, None, budget)
        algorithm = MAML(inner_lr=work.inner_lr, inner_steps=steps)
        return algorithm.meta_gradient(loss, work.starts[0], Episodes(1, support, query))[0]

    return step


class Prompted(nn.Module):
    """A prompt on a frozen model; ``hidden`` keeps the model out of the parameters."""

    def __init__(self, work: Asked, hidden: bool) -> None:
        super().__init__()
        self.prompt = nn.Parameter(work.starts[0].clone())
        self.loss = work.loss
        model = work.plain()
        model.set_attn_implementation("eager")  # the fused kernels have no second derivative
        self.held = (model,)  # no module sees a module in a tuple
        if not hidden:
            self.model = model

    def forward(self, batch: Batch) -> torch.Tensor:
        return self.loss(getattr(self, "model", *self.held), self.prompt, batch)


def higher_loop(work: Asked, steps: int) -> Contender:
    """The paper's way."""
    try:
        import higher
    except ImportError as problem:
        raise Absent("higher is not installed: pip install 'softstart[bench]'") from problem
    net = Prompted(work, hidden=work.hide_from_higher)
    support, query = _episode(work, steps)

    def step() -> torch.Tensor:
        optimizer = torch.optim.SGD([net.prompt], lr=work.inner_lr)
        with higher.innerloop_ctx(net, optimizer, copy_initial_weights=False) as (inner, update):
            for batch in support:
                update.step(inner(batch))
            (gradient,) = torch.autograd.grad(inner(query), net.prompt)
        return gradient

    return step


def torchopt_loop(work: Asked, steps: int) -> Contender:
    """TorchOpt's differentiable SGD; it asks for a module without frozen parameters."""
    try:
        import torchopt
    except ImportError as problem:
        raise Absent("torchopt is not installed: pip install 'softstart[bench]'") from problem
    net = Prompted(work, hidden=True)
    support, query = _episode(work, steps)

    def step() -> torch.Tensor:
        net.prompt = nn.Parameter(work.starts[0].clone())
        start, optimizer = net.prompt, torchopt.MetaSGD(net, lr=work.inner_lr)
        for batch in support:
            optimizer.step(net(batch))
        (gradient,) = torch.autograd.grad(net(query), start)
        return gradient

    return step


def learn2learn_loop(work: Asked, steps: int) -> Contender:
    """learn2learn's MAML wrapper."""
    wrapped = _learn2learn()(Prompted(work, hidden=True), lr=work.inner_lr)
    support, query = _episode(work, steps)

    def step() -> torch.Tensor:
        inner = wrapped.clone()
        for batch in support:
            inner.adapt(inner(batch))
        (gradient,) = torch.autograd.grad(inner(query), wrapped.module.prompt)
        return gradient

    return step


def _learn2learn() -> Any:
    """Its MAML, installed or from its unpacked sources: their other parts in Cython do not build."""
    if folder := os.environ.get("LEARN2LEARN"):
        for name in ("learn2learn", "learn2learn.algorithms"):
            package = types.ModuleType(name)
            package.__path__ = [str(Path(folder, *name.split(".")))]
            sys.modules[name] = package
    try:
        from learn2learn.algorithms.maml import MAML as Wrapped
    except ImportError as problem:
        why = "learn2learn is not installed: its 0.2.0 does not build; LEARN2LEARN=FOLDER takes its sources"
        raise Absent(why) from problem
    return Wrapped


def _episode(work: Asked, steps: int) -> tuple[list[Batch], Batch]:
    return [work.batch(0, seed=k) for k in range(steps)], work.batch(0, seed=steps)


CONTENDERS = {
    "softstart, all graphs kept": partial(softstart, budget=1 << 40),
    "softstart, last graph kept": partial(softstart, budget=None),
    "softstart, all recomputed": partial(softstart, budget=0),
    "softstart, all recomputed, compiled": partial(softstart, budget=0, compiled=True),
    "higher": higher_loop,
    "torchopt": torchopt_loop,
    "learn2learn": learn2learn_loop,
}
