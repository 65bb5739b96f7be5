"""Backbones whose weights are quantized (bitsandbytes, torchao, …): what works on them, and what does not."""

from __future__ import annotations

from typing import Any

from softstart.errors import SoftstartError


def quantization_of(config: Any) -> str | None:
    """What quantized the weights of a checkpoint: ``bitsandbytes``, ``torchao``, …; None: nothing did."""
    facts = getattr(config, "quantization_config", None)
    if facts is None:
        return None
    method = facts.get("quant_method") if isinstance(facts, dict) else getattr(facts, "quant_method", None)
    return str(getattr(method, "value", method) or "an unknown method")


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
