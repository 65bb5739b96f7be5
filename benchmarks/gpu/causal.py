"""A causal model of SmolLM2's shape with random weights: packs that read prompts or texts once, and PEFT."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from benchmarks.engine.causal import joined
from benchmarks.gpu.work import MICRO, Model, Size, interleaved

from softstart.backbone import TINY, CausalBackbone, load_backbone
from softstart.training.gradients import run_gradients

BOUND, ROWS, PROMPT = 65536, 8, 20
# Width, feed-forward width, layers, heads, heads of keys, vocabulary.
SHAPES = {"smollm2": (576, 1536, 30, 9, 3, 49152), MICRO: (32, 64, 2, 2, 1, 200)}


@lru_cache(maxsize=2)
def _made(device: torch.device, shape: str, dtype: torch.dtype) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    width, inner, layers, heads, groups, words = SHAPES[shape]
    config = LlamaConfig(
        vocab_size=words, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=groups, tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    with device:
        model = LlamaForCausalLM(config)
    return model.to(dtype).requires_grad_(False).eval()


def causal(size: Size) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Gradients of packs of R runs of eight rows, prompts of 20: seconds of one run's, compared with packs
    whose texts stand before the prompt and are read once.
    """
    shape = MICRO if MICRO in size.shapes else "smollm2"
    for runs in size.packs[::2]:
        for ragged in (False, True):

            def compare(runs: int = runs, ragged: bool = ragged) -> dict[str, Any]:
                rounds = min(3, size.rounds)
                return interleaved(_contenders(size, shape, runs, ragged), size, rounds)

            yield f"{shape} R={runs}, {'ragged' if ragged else 'equal'} lengths", compare


def _contenders(
    size: Size, shape: str, runs: int, ragged: bool
) -> dict[str, tuple[Callable[[], object], int]]:
    """Everybody's gradient of all runs (PEFT's of one), and how many runs that is."""
    whole = Model(size, shape).batch(runs, rows=ROWS, real=ragged)
    one = Model(size, shape).batch(1, rows=ROWS, real=ragged)
    steps: dict[str, tuple[Callable[[], object], int]] = {}
    for dtype in (size.dtype, torch.float32):
        kind = str(dtype).removeprefix("torch.")
        for name, placement, once in (
            ("texts read once", "suffix", True),
            ("prompts read once", "prefix", True),
            ("rows read whole", "prefix", False),
        ):
            backbone = CausalBackbone(
                _made(size.device, shape, dtype), load_backbone(TINY, device="cpu").tokenizer, name=shape
            )
            backbone.placement, backbone.read_once = placement, once
            starts = _starts(backbone, size, runs)

            def pack(backbone: CausalBackbone = backbone, starts: torch.Tensor = starts) -> object:
                return run_gradients(backbone, starts, whole, BOUND)

            steps[f"{name}, {kind}"] = (pack, runs)
        steps[f"PEFT, {kind}"] = (_peft(_made(size.device, shape, dtype), one), 1)
    return steps


def _starts(backbone: CausalBackbone, size: Size, runs: int) -> torch.Tensor:
    """[R, P, d]."""
    torch.manual_seed(1)
    words = torch.randint(5, 150, (runs, PROMPT), device=size.device)
    return backbone.vocabulary[words].to(backbone.prompt_dtype).clone()


def _peft(model: Any, batch: Any) -> Callable[[], object]:
    """A gradient by PEFT's PromptTuning."""
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=PROMPT)
    made = get_peft_model(copy.deepcopy(model), config).to(batch.input_ids.device)
    given = {name: tensor.to(batch.input_ids.device) for name, tensor in joined(batch).items()}

    def step() -> object:
        made.zero_grad()
        return made(**given).loss.backward()

    return step
