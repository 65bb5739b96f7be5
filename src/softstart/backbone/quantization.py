"""Backbones whose weights are quantized (bitsandbytes, torchao, …): what works on them, and what does not."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from softstart.errors import SoftstartError


def quantization_of(config: Any) -> str | None:
    """What quantized the weights of a checkpoint: ``bitsandbytes``, ``torchao``, …; None: nothing did."""
    facts = getattr(config, "quantization_config", None)
    if facts is None:
        return None
    method = facts.get("quant_method") if isinstance(facts, dict) else getattr(facts, "quant_method", None)
    return str(getattr(method, "value", method) or "an unknown method")


def keep_differentiable(model: Any) -> None:
    """Keep the 4-bit layers of bitsandbytes in the form that has a backward pass, in place.

    With AVX512-BF16 the first forward pass without a gradient repacks the weights of a layer for inference.
    From then on its products pass no gradient on; what remains, through the residual stream, is wrong.
    """
    # It warns of its casts to half precision in every product.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def plain_tensors(tensor: Tensor) -> list[Tensor]:
    """The tensors that hold the numbers of a weight: itself, or the parts of a quantized one (torchao)."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [part for name in sorted(names) for part in plain_tensors(getattr(tensor, name))]


def refuse_second_order(name: str, quantization: str | None) -> None:
    """Refuse second derivatives of quantized products: their backward passes are made for one derivative.

    Raises:
        SoftstartError: the backbone is quantized.
    """
    if quantization:
        raise SoftstartError(
            f"backbone '{name}' is quantized by {quantization}, whose second derivatives may not be exact",
            fix="Use a first-order method (fomaml, reptile, multitask), or a backbone that is not quantized.",
        )


def refuse_training(name: str, quantization: str | None) -> None:
    """Refuse to train quantized weights.

    Raises:
        SoftstartError: the backbone is quantized.
    """
    if quantization:
        raise SoftstartError(
            f"backbone '{name}' is quantized by {quantization}: its weights cannot be fine-tuned",
            fix="Leave out 'ft', or use a backbone that is not quantized.",
        )
