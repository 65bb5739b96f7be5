"""Norms and gated layers of causal models that carry tangents by compiled kernels (``tangents``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from softstart.backbone import kernels, tangents

_CARRIES = "_softstart_carries_tangents"
_ACTIVATIONS = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
"""transformers' names of activations, as ``tangents.ACTIVATIONS``."""


def carry_tangents(model: nn.Module) -> None:
    """Let the layers of a transformers model carry tangents; all other passes stay as they are.

    Copies of a backbone share one model, whose layers must not be prepared twice.
    """
    if getattr(model, _CARRIES, False):
        return
    setattr(model, _CARRIES, True)
    layers: list[Any] = list(model.modules())
    config: Any = model.config
    name = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", "")
    for module in layers:
        parts = dict(module.named_children())
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(_norm, module, module.forward)
        elif type(module).__name__ == "LayerNorm" and getattr(module, "bias", None) is not None:
            module.forward = partial(_layer_norm, module)
        elif type(module).__name__ == "Conv1D":
            module.forward = partial(_turned_linear, module, module.forward)
        elif type(module).__name__.endswith("RotaryEmbedding"):
            module.forward = partial(_rotary, module.forward)
        elif {"gate_proj", "up_proj", "down_proj", "act_fn"} <= parts.keys() and name in _ACTIVATIONS:
            module.forward = partial(_feed_forward, module, module.forward, _ACTIVATIONS[name])


def _norm(module: Any, plain: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not tangents.carrying():
        return plain(x)
    eps = getattr(module, "variance_epsilon", None) or module.eps
    if not type(module).__name__.startswith("Gemma"):
        return tangents.rms_norm(x, module.weight, eps)
    kind = torch.promote_types(x.dtype, torch.float32)
    return tangents.rms_norm(x, 1.0 + module.weight.to(kind), eps).to(x.dtype)


def _layer_norm(module: nn.LayerNorm, x: Tensor) -> Tensor:
    return tangents.layer_norm(x, module.weight, module.bias, module.eps)


def _turned_linear(module: Any, plain: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not tangents.carrying():
        return plain(x)
    return tangents.plus(kernels.linear(x, module.weight.t()), module.bias)


def _rotary(plain: Callable[..., tuple[Tensor, Tensor]], *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    cos, sin = plain(*args, **kwargs)
    return tangents.constant(cos), tangents.constant(sin)


def _feed_forward(module: Any, plain: Callable[[Tensor], Tensor], activation: str, x: Tensor) -> Tensor:
    if not tangents.carrying():
        return plain(x)
    wide: Tensor = module.down_proj(tangents.gated(module.gate_proj(x), module.up_proj(x), activation))
    return wide
