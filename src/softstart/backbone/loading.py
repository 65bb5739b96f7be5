"""Load a backbone by name or path, or refuse it and give the reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from safetensors import SafetensorError
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from softstart.backbone.base import FAMILIES, Backbone
from softstart.backbone.causal import CausalBackbone
from softstart.backbone.checking import check_exact
from softstart.backbone.devices import prefer_device
from softstart.backbone.quantization import quantization_of
from softstart.backbone.seq2seq import Seq2SeqBackbone
from softstart.backbone.shapes import untie
from softstart.backbone.sources import Located, locate
from softstart.backbone.sources.converted import read_gguf
from softstart.backbone.sources.locate import names_near
from softstart.backbone.strict_loading import check_finite, quiet, strictly_loaded
from softstart.backbone.t5 import T5Backbone
from softstart.errors import SoftstartError

TINY = "softstart/tiny"
"""The embedded backbone that ships in the package."""

FAMILIES.add("t5", T5Backbone)
FAMILIES.add("seq2seq", Seq2SeqBackbone)
FAMILIES.add("causal", CausalBackbone)

TESTED = frozenset(FAMILIES.values())
"""Families whose model types are tested one by one in this project. Any other model is checked when it is
loaded."""

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}

OVERFLOW = ("t5", "mt5", "umt5", "longt5", "switch_transformers", "pegasus")
"""Families whose activations overflow in float16."""


def load_backbone(
    name_or_path: str,
    *,
    dtype: str = "float32",
    device: str | None = None,
    revision: str | None = None,
    placement: str = "prefix",
    prompt_kind: str = "embeddings",
    device_map: str | dict[str, Any] | None = None,
    gradient_checkpointing: bool = False,
    compile: bool = False,
    weights: bool = True,
) -> Backbone:
    """Load a frozen backbone; also ``Backbone.from_pretrained``.

    Args:
        name_or_path: ``"softstart/tiny"`` (embedded), a name that ``softstart backbone list`` shows
            (``"smollm2"``), a local folder, a GGUF file, or a Hugging Face hub id;
            ``"OWNER/NAME:FILE.gguf"`` is a GGUF file of the hub.
        dtype: ``float32``, ``bfloat16``, ``float64``, or ``float16`` where the family does not overflow.
        device: ``"cpu"``, ``"cuda:0"``, …; by default the GPU if there is one.
        revision: hub revision (a commit, to be reproducible).
        placement: where the prompt goes, a name of ``softstart.prompt.PLACEMENTS``.
        prompt_kind: what prompts are made of, a name of ``softstart.prompt.KINDS``.
        device_map: spread a model that is larger than one GPU, as transformers does (``"auto"``); needs
            accelerate and excludes ``device``.
        gradient_checkpointing: recompute each layer in the backward pass instead of keeping what it
            computed: about a third more time for a fraction of the memory; numbers stay the same.
        compile: let torch compile layers (T5 v1.1, first order, without dropout; for GPUs and Intel CPUs) and
            the kernels of exact second order (causal models, too): a C compiler, some 20 seconds once.
        weights: False leaves the weights out: shapes without numbers, on torch's meta device.

    Raises:
        SoftstartError: unknown name or dtype, a family that cannot work, files that cannot be read, tensors
            that are missing, left over or of another shape, or a checkpoint with code of its own, which is
            never run.

    >>> from softstart import Backbone
    >>> backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    >>> type(backbone).__name__, backbone.width, tuple(backbone.vocabulary.shape)
    ('T5Backbone', 128, (1640, 128))
    """
    if dtype not in DTYPES:
        raise SoftstartError(f"unknown dtype '{dtype}'", fix=f"Use one of {', '.join(DTYPES)}.")
    if device_map is not None and device is not None:
        raise SoftstartError("device and device_map exclude each other", fix="Leave one of them out.")
    from transformers import AutoConfig, AutoTokenizer

    at = _located(name_or_path, revision, dtype, weights)
    files = {"revision": at.revision}
    with _loading(name_or_path):
        config = AutoConfig.from_pretrained(at.path, trust_remote_code=False, **files, **_gguf(at))
    family, tested = _family(name_or_path, config)
    if dtype == "float16" and config.model_type in OVERFLOW:
        raise SoftstartError("T5-type models overflow in float16", fix="Use dtype bfloat16 or float32.")
    auto, stored, quantized = _auto_class(config), DTYPES[dtype], quantization_of(config)
    if quantized and device_map is None:
        device_map = {"": str(prefer_device(device))}  # quantized weights cannot be moved
    model: Any
    with _loading(name_or_path), quiet():
        tokenizer = AutoTokenizer.from_pretrained(at.path, trust_remote_code=False, **files, **_gguf(at))
        if not weights:
            with torch.device("meta"):
                model = untie(auto.from_config(config, dtype=stored, trust_remote_code=False))
        elif at.gguf:
            model, _ = read_gguf(at.gguf, dtype, name_or_path)
        else:
            model = strictly_loaded(auto, at.path, at.name, dtype=stored, device_map=device_map, **files)
    if weights:
        check_finite(model, at.name)
    if device_map is None and weights:
        model = model.to(prefer_device(device))
    if gradient_checkpointing:
        recompute_layers(model)
    backbone = family(model, _with_padding(tokenizer, at.name, model), name=at.name, placement=placement)
    if compile:
        backbone.compile()
    backbone.revision = revision or at.commit or getattr(config, "_commit_hash", None)
    backbone.weights = at.weights
    return _ready(backbone, prompt_kind, checked=tested or not weights)


def _ready(backbone: Backbone, prompt_kind: str, *, checked: bool) -> Backbone:
    """The backbone with its kind of prompts, checked to be exact."""
    if not checked:
        check_exact(backbone)
    backbone.prompt_kind = prompt_kind
    return backbone


def _located(name: str, revision: str | None, dtype: str, weights: bool) -> Located:
    """Where the files of a backbone are."""
    if name == TINY:
        from softstart.tiny import weights_path

        return Located(TINY, str(weights_path()), revision)
    return locate(name, revision=revision, dtype=dtype, weights=weights)


def _gguf(at: Located) -> dict[str, str]:
    """What transformers takes to read a GGUF file as it is."""
    return {"gguf_file": at.gguf.name} if at.gguf else {}


def recompute_layers(model: Any) -> None:
    """Gradient checkpointing of every layer, in place.

    transformers' own switch needs training mode, which would turn dropout on. Non-reentrant, so that the
    result can be differentiated twice.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, context_fn=_same_kernels)
    model.recomputes_layers = True


def _same_kernels() -> tuple[Any, Any]:
    """Contexts of a layer's forward pass and of its recomputation: the same attention kernels in both."""
    return nullcontext(), _Kernels(math=not torch.backends.cuda.flash_sdp_enabled())


class _Kernels:
    """Restricts attention to math kernels if ``math``; unlike ``sdpa_kernel``, it can be entered again."""

    def __init__(self, math: bool) -> None:
        self.math = math

    def __enter__(self) -> None:
        self.context = sdpa_kernel(SDPBackend.MATH) if self.math else nullcontext()
        self.context.__enter__()

    def __exit__(self, *exc: Any) -> None:
        self.context.__exit__(*exc)


def _family(name: str, config: Any) -> tuple[type[Backbone], bool]:
    """The family of a configuration, and whether its model type is tested."""
    from transformers.models.auto import modeling_auto

    kind = config.model_type
    for family in reversed(tuple(FAMILIES.values())):
        if kind in family.model_types:
            return family, family in TESTED
    if config.is_encoder_decoder and kind in modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return Seq2SeqBackbone, False
    # transformers has a causal head for masked models (BERT) too, but they were not trained to write.
    masked = kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_encoder_decoder
    if kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not masked:
        return CausalBackbone, False
    reason = "an encoder only, which writes no output" if masked else "not a text-to-text or causal model"
    known = ", ".join(t for family in FAMILIES.values() for t in family.model_types)
    raise SoftstartError(
        f"backbone '{name}' is of the family '{kind}': {reason}",
        fix=f"Supported are {known}, and what proves exact when it is loaded.",
    )


def _with_padding(tokenizer: Any, name: str, model: Any) -> Any:
    """The tokenizer with a padding token that the model can embed; any will do, as it is always masked."""
    if tokenizer.eos_token_id is None:
        raise SoftstartError(
            f"the tokenizer of backbone '{name}' has no end-of-sequence token",
            fix="Set eos_token in its tokenizer_config.json: outputs must be able to end.",
        )
    if (
        tokenizer.pad_token_id is None
        or tokenizer.pad_token_id >= model.get_input_embeddings().num_embeddings
    ):
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@contextmanager
def _loading(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as problem:
        reason = str(problem).strip().splitlines()[0]
        if "trust_remote_code" in str(problem):
            reason = "it needs code of its own, which Softstart never runs"
        raise SoftstartError(
            f"backbone '{name}' cannot be loaded ({reason})",
            fix=names_near(name)
            or f"Give {TINY}, a name of softstart backbone list, a folder with a transformers checkpoint, "
            "a GGUF file, or a hub id (needs a network once).",
        ) from problem


def _auto_class(config: Any) -> Any:
    import transformers

    return (
        transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    )
