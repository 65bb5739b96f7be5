"""Checkpoints whose tensors are exactly those of the model; anything else is refused by name.

transformers fills what a checkpoint lacks with random numbers and leaves out what it does not know, and says
so in a log only. A prompt tuned on such a model means nothing.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from softstart.errors import SoftstartError, listed

PREFIXES = re.compile(r"^(?:_orig_mod\.|module\.)+")
"""What torch.compile and DistributedDataParallel put before every name."""

HARMLESS = re.compile(
    r"(^|\.)(attn|attention)\.(bias|masked_bias)$"  # causal masks of GPT-2 and GPT-NeoX
    r"|rotary_emb\.inv_freq$"
    r"|(^|\.)position_ids$"
    r"|^(model\.)?(encoder|decoder)\.version$"  # fairseq's
)
"""Buffers that old checkpoints hold and models compute by themselves."""


def strictly_loaded(auto: Any, path: str, name: str, **arguments: Any) -> Any:
    """``auto.from_pretrained`` for a checkpoint that holds every tensor of the model and no other.

    Names that begin with ``_orig_mod.`` or ``module.`` are read without it, with a warning.

    Args:
        auto: an auto class of transformers.
        path: folder or hub id.
        name: of the backbone, for messages.
        arguments: for ``from_pretrained``.

    Raises:
        SoftstartError: tensors are missing, of another shape, or left over; with their names.
    """
    model, report = _loaded(auto, path, arguments)
    prefixed = [key for key in report["unexpected_keys"] if PREFIXES.match(key)]
    if prefixed:
        stripped = {PREFIXES.pattern: ""} | (arguments.get("key_mapping") or {})
        model, report = _loaded(auto, path, {**arguments, "key_mapping": stripped})
    check_report(report, name)
    if prefixed:
        prefix = PREFIXES.match(prefixed[0])
        assert prefix is not None
        warnings.warn(
            f"backbone '{name}': the names of its tensors begin with '{prefix[0]}', which was left out",
            stacklevel=4,
        )
    return model


def check_report(report: dict[str, Collection[Any]], name: str) -> None:
    """Refuse what ``from_pretrained`` reports with ``output_loading_info=True``.

    Raises:
        SoftstartError: naming the first tensors that are missing, of another shape or left over.
    """
    parts = []
    if missing := sorted(report["missing_keys"]):
        parts.append(f"lacks {listed(missing)}")
    if mismatched := sorted(report["mismatched_keys"]):
        key, has, needs = mismatched[0]
        more = f" and {len(mismatched) - 1} more" if len(mismatched) > 1 else ""
        parts.append(f"has {key} of shape {list(has)}, not {list(needs)}{more}")
    if surplus := sorted(key for key in report["unexpected_keys"] if not HARMLESS.search(key)):
        parts.append(f"holds {listed(surplus)}, for which the model has no place")
    if parts:
        raise SoftstartError(
            f"backbone '{name}': its checkpoint {'; '.join(parts)}",
            fix="Its configuration and its weights do not match: save both again, or fix the names.",
        )


def check_finite(model: Any, name: str) -> None:
    """Refuse weights that are NaN or infinite: whatever such a model is tuned to says nothing.

    Raises:
        SoftstartError: naming the first of them.
    """
    for key, weight in model.named_parameters():
        if weight.dtype not in _FLOATS or weight.is_meta or not weight.numel():
            continue
        if not all(bound.isfinite() for bound in torch.aminmax(weight.detach())):
            raise SoftstartError(
                f"backbone '{name}': its checkpoint holds NaN or infinity in {key}",
                fix="It is damaged, or its training diverged: take another.",
            )


_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def _loaded(auto: Any, path: str, arguments: dict[str, Any]) -> tuple[Any, dict[str, Collection[Any]]]:
    model, report = auto.from_pretrained(
        path, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False, **arguments
    )
    return model, report


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and no log of transformers: what matters of it is checked."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
