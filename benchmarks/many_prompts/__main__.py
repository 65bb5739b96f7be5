"""Throughput of many prompts on one model: together, one after the other, and in PEFT with hot-swapping.

    python -m benchmarks.many_prompts [--model smollm2] [--prompts 16 --rows 4] [--rounds 3]

Rows of two labels are ranked. All ways give the same likelihoods (checked), and rounds alternate. PEFT's
adapters are loaded before the clock starts; a swap is ``set_adapter``.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

from softstart.backbone import IGNORE, Backbone, candidates_tensor, load_backbone
from softstart.backbone.batch import collate

LENGTH, TEXT, BOUND = 20, (10, 60), 4096


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--prompts", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--rows", type=int, default=4, help="rows of each prompt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    backbone = load_backbone(arguments.model, device="cpu")
    print("| prompts | rows each | together, rows/s | one by one / together | PEFT / together |")
    print("|--:|--:|--:|--:|--:|")
    for count in arguments.prompts:
        print(_row(backbone, count, arguments.rows, arguments.rounds), flush=True)


def _row(backbone: Backbone, count: int, each: int, rounds: int) -> str:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(50, len(backbone.vocabulary), (count, LENGTH), generator=generator)
    prompts = backbone.vocabulary[draws].clone()
    end = backbone.tokenizer.eos_token_id
    sizes = torch.randint(*TEXT, (count * each,), generator=generator).tolist()
    texts = [torch.randint(50, 1500, (size,), generator=generator).tolist() for size in sizes]
    words = [[100, end], [200, end]]
    ways = {
        "together": lambda: _together(backbone, prompts, texts, words, each),
        "one": lambda: _one_by_one(backbone, prompts, texts, words, each),
        "peft": _peft(backbone, prompts, texts, words, each),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Tensor] = {}
    for number in range(rounds + 1):
        for name, do in ways.items():
            begin = time.perf_counter()
            found[name] = do()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - begin)
    for name, likely in found.items():
        if not torch.allclose(likely, found["together"], rtol=1e-3, atol=1e-3):
            raise ValueError(f"{name} gives other likelihoods")

    def ratio(name: str) -> str:
        parts = [a / b for a, b in zip(seconds[name], seconds["together"], strict=True)]
        return f"{min(parts):.2f} to {max(parts):.2f}"

    rate = count * each / min(seconds["together"])
    return f"| {count} | {each} | {rate:.1f} | {ratio('one')} | {ratio('peft')} |"


def _together(backbone: Backbone, prompts: Tensor, texts: Any, words: Any, each: int) -> Tensor:
    runs = [i // each for i in range(len(texts))]
    batch = collate(texts, [[]] * len(texts), runs, pad=backbone.tokenizer.pad_token_id)
    of = torch.zeros(len(texts), dtype=torch.long)
    return backbone.rank(prompts, batch, candidates_tensor([words], IGNORE), BOUND, of)


def _one_by_one(backbone: Backbone, prompts: Tensor, texts: Any, words: Any, each: int) -> Tensor:
    parts = [
        _together(backbone, prompts[i : i + 1], texts[i * each : (i + 1) * each], words, each)
        for i in range(len(prompts))
    ]
    return torch.cat(parts)


def _peft(backbone: Backbone, prompts: Tensor, texts: Any, words: Any, each: int) -> Callable[[], Tensor]:
    """What a user of PEFT writes: a batch of rows and labels for each adapter."""
    import copy

    import peft

    config = peft.PromptTuningConfig(
        task_type=backbone.peft_task, num_virtual_tokens=LENGTH, num_transformer_submodules=1
    )
    made: Any = peft.get_peft_model(copy.deepcopy(backbone.model), config, adapter_name="0")
    for number in range(1, len(prompts)):
        made.add_adapter(str(number), config)
    for number, prompt in enumerate(prompts):
        made.prompt_encoder[str(number)].embedding.weight.data = prompt.clone()
    made.eval()
    causal = backbone.continues_input

    @torch.no_grad()
    def rank() -> Tensor:
        found = []
        for number in range(len(prompts)):
            made.set_adapter(str(number))
            mine = texts[number * each : (number + 1) * each]
            pairs = [(text, word) for text in mine for word in words]
            batch = collate(
                [text + word if causal else text for text, word in pairs], [word for _, word in pairs],
                [0] * len(pairs), pad=backbone.tokenizer.pad_token_id,
            )  # fmt: skip
            given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
            if not causal:
                logits = made(**given, labels=batch.labels).logits
            else:
                out = made(**given).logits
                first = torch.tensor([LENGTH + len(text) - 1 for text, _ in pairs])
                columns = first[:, None] + torch.arange(batch.labels.shape[1])
                logits = out[torch.arange(len(pairs))[:, None], columns]
            likely = logits.log_softmax(-1).gather(2, batch.labels[..., None])[..., 0].sum(1)
            found.append(likely.view(len(mine), len(words)))
        return torch.cat(found)

    return rank


if __name__ == "__main__":
    main()
