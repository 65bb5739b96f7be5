"""Load a backbone by name or path, or refuse it with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError

from softstart.backbone.base import Backbone, prefer_device
from softstart.backbone.placement import Placement
from softstart.backbone.t5 import T5Backbone
from softstart.errors import SoftstartError

TINY = "softstart/tiny"
"""The embedded backbone that ships in the package."""

FAMILIES: tuple[type[Backbone], ...] = (T5Backbone,)
"""Supported model families; adding one is adding its class here."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def load_backbone(
    name_or_path: str,
    *,
    dtype: str = "float32",
    device: str | None = None,
    revision: str | None = None,
    placement: Placement = "prefix",
) -> Backbone:
    """Load a frozen backbone.

    Args:
        name_or_path: ``"softstart/tiny"`` (embedded), a local folder, or a Hugging Face hub id.
        dtype: ``float32``, ``bfloat16`` or ``float64``.
        device: ``"cpu"``, ``"cuda:0"``, …; by default the GPU where there is one.
        revision: hub revision (a commit, to be reproducible).
        placement: where the prompt goes.

    Raises:
        SoftstartError: unknown name, family or dtype, or files that cannot be read.
    """
    if dtype == "float16":
        raise SoftstartError("T5-type models overflow in float16", mend="Use dtype bfloat16 or float32.")
    if dtype not in DTYPES:
        raise SoftstartError(f"unknown dtype '{dtype}'", mend=f"Use one of {', '.join(DTYPES)}.")
    from transformers import AutoConfig, AutoTokenizer

    path = name_or_path
    if name_or_path == TINY:
        from softstart.tiny import weights_path

        path = str(weights_path())
    try:
        config = AutoConfig.from_pretrained(path, revision=revision)
        family = _family(name_or_path, config.model_type)
        with _quiet():
            model: Any = _auto_class(config).from_pretrained(path, revision=revision, dtype=DTYPES[dtype])
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as problem:
        raise SoftstartError(
            f"backbone '{name_or_path}' cannot be loaded ({str(problem).strip().splitlines()[0]})",
            mend=f"Give {TINY}, a folder with a transformers checkpoint, or a hub id (needs a network once).",
        ) from problem
    return family(model.to(prefer_device(device)), tokenizer, name=name_or_path, placement=placement)


def _family(name: str, model_type: str) -> type[Backbone]:
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(t for family in FAMILIES for t in family.model_types)
    raise SoftstartError(
        f"backbone '{name}' is of the family '{model_type}', which is not supported yet",
        mend=f"Supported: {known}.",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """No bar for a load of a second, no warning about untied embeddings (they load right)."""
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


def _auto_class(config: Any) -> Any:
    import transformers

    return (
        transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    )
