"""RMS norms of causal models in fewer passes over memory than transformers takes.

They serve passes that are differentiated once. Values are those of transformers to the bit, gradients up to
rounding. In bfloat16, where products are fast, transformers' norms take a tenth of a step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from softstart.backbone import kernels

_lean = False


@contextlib.contextmanager
def lean_norms(allowed: bool) -> Iterator[None]:
    """Let the norms of a pass be differentiated once only, if ``allowed``."""
    global _lean
    before, _lean = _lean, allowed
    try:
        yield
    finally:
        _lean = before


def prepare(model: nn.Module) -> None:
    """Let the RMS norms of a transformers model take the kernel within ``lean_norms``."""
    for module in model.modules():
        if is_rms_norm(module):
            module.forward = partial(_norm, module, module.forward)


def is_rms_norm(module: nn.Module) -> bool:
    """Whether a module is an RMS norm of a family that ``weight_of`` knows."""
    return type(module).__name__.endswith("RMSNorm")


def weight_of(module: Any, x: Tensor) -> Tensor:
    """What x [..., d], normed, is multiplied by [d]: Gemma's weights count from one, in float32 at least."""
    if type(module).__name__.startswith("Gemma"):
        counted: Tensor = 1.0 + module.weight.to(torch.promote_types(x.dtype, torch.float32))
        return counted
    weight: Tensor = module.weight
    return weight


def eps_of(module: Any) -> float:
    """What is added to the mean square."""
    return float(getattr(module, "variance_epsilon", None) or module.eps)


def _norm(module: Any, plain: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not _lean or x.dtype == torch.float64:  # which transformers rounds to float32 here
        return plain(x)
    weight = weight_of(module, x)
    # torch's fused norm of a GPU takes weights of the same type.
    if x.is_cuda and weight.dtype != x.dtype:
        return plain(x)
    return kernels.rms_norm(x, weight, eps_of(module))
