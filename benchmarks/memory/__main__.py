"""Predicted against measured peak memory, one fresh process a case: ``python -m benchmarks.memory``.

``--sharing`` instead loads one checkpoint in two processes and says how much of its weights they share.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from softstart.backbone import Backbone, load_backbone
from softstart.backbone.devices import status_bytes
from softstart.backbone.memory_model import META, equal_rows, traced, weight_bytes
from softstart.backbone.shapes import t5_config
from softstart.training.gradients import run_gradients
from softstart.training.hessian_products import run_hvps

# What, family, width, feed-forward width, layers, prompt length, rows, text and output tokens.
CASES = (
    ("gradient", "t5", 256, 512, 4, 100, 8, 70, 4),
    ("gradient", "t5", 256, 512, 4, 20, 32, 60, 4),
    ("gradient", "t5", 512, 1024, 8, 100, 16, 70, 4),
    ("gradient", "t5", 512, 1024, 8, 20, 64, 40, 20),
    ("second order", "t5", 256, 512, 4, 100, 8, 70, 4),
    ("second order", "t5", 512, 1024, 4, 20, 16, 60, 4),
    ("gradient", "llama", 256, 1024, 4, 20, 32, 60, 4),
    ("gradient", "llama", 512, 1536, 4, 100, 8, 70, 4),
    # Chosen and first measured after the allocator's rule was fixed.
    ("gradient", "t5", 384, 1024, 6, 50, 24, 90, 8),
    ("second order", "t5", 384, 1024, 6, 50, 8, 40, 8),
    ("second order", "llama", 256, 1024, 4, 20, 8, 60, 4),
    ("gradient", "llama", 384, 1024, 6, 20, 16, 120, 4),
)
ROUNDS = 3


def config_of(family: str, width: int, inner: int, layers: int) -> object:
    """A small model's configuration with a real vocabulary."""
    if family == "t5":
        config = t5_config("small")
        config.d_model, config.d_ff, config.num_layers, config.num_decoder_layers = (
            width,
            inner,
            layers,
            layers,
        )
        config.num_heads, config.dropout_rate = width // 64, 0.0
        return config
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=32128, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=width // 64, pad_token_id=0, eos_token_id=1, bos_token_id=1,
    )  # fmt: skip


def work(backbone: Backbone, case: tuple, device: torch.device) -> None:
    """A gradient or a Hessian-vector product."""
    what, *_, length, rows, text, output = case
    prompts = torch.full((1, length, backbone.width), 0.1, device=device)
    batch = equal_rows(rows, text, output)
    if what == "gradient":
        run_gradients(backbone, prompts, batch)
    else:
        run_hvps(backbone, prompts, batch, torch.full_like(prompts, 0.1))


def predicted(folder: Path, case: tuple) -> dict[str, int]:
    """Bytes by the memory model, in a process that has done nothing yet."""
    backbone, base = load_backbone(str(folder), weights=False), status_bytes("VmRSS")
    peak = traced(lambda: work(backbone, case, META))
    return {"base": base, "weights": weight_bytes(backbone), "tensors": peak.tensors, "heap": peak.heap}


def measured(folder: Path, case: tuple) -> dict[str, int]:
    """The peak of a process that loads the model, reads all of it (as a study's worker does) and works."""
    backbone = load_backbone(str(folder), device="cpu")
    assert backbone.digest
    for _ in range(ROUNDS):
        work(backbone, case, torch.device("cpu"))
    return {"peak": status_bytes("VmHWM")}


def store(folder: Path, case: tuple) -> None:
    """The model of a case on disk."""
    import transformers

    config = config_of(*case[1:5])
    torch.manual_seed(0)
    kind = transformers.T5ForConditionalGeneration if case[1] == "t5" else transformers.LlamaForCausalLM
    kind(config).save_pretrained(folder)
    load_backbone("softstart/tiny", device="cpu").tokenizer.save_pretrained(folder)


ROOT = Path(__file__).parents[2]


def one(what: str, folder: Path, number: int) -> list[str]:
    """The command that does one thing for one case in a process of its own."""
    module = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory"]
    return [*module, "--one", what, str(folder), str(number)]


def elsewhere(what: str, folder: Path, number: int) -> dict[str, int]:
    """A dictionary of a fresh process."""
    command = one(what, folder, number)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    numbers: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def compared(number: int) -> tuple[float, float]:
    """A case's predicted and measured peak in bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store(folder, CASES[number])
        forecast, seen = elsewhere("predicted", folder, number), elsewhere("measured", folder, number)
    return forecast["base"] + forecast["weights"] + forecast["heap"], seen["peak"]


def report(numbers: list[int]) -> Iterator[str]:
    """Markdown."""
    yield "| work | model | P | rows x (text + output) | predicted MiB | measured MiB | ratio |"
    yield "|---" * 7 + "|"
    for number in numbers:
        what, family, width, _, layers, length, rows, text, output = CASES[number]
        expected, seen = compared(number)
        model = f"{family}, d {width}, {layers} layers"
        yield (
            f"| {what} | {model} | {length} | {rows} x ({text} + {output}) | {expected / 2**20:.0f} | "
            f"{seen / 2**20:.0f} | {expected / seen:.2f} |"
        )


def sharing() -> Iterator[str]:
    """How much of a checkpoint in bfloat16 two processes have in common."""
    yield "| model | weights MiB | of them mapped from the file | this process's share of that |"
    yield "|---" * 4 + "|"
    for number in (2, 7):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            store(folder, CASES[number])
            backbone = load_backbone(str(folder), device="cpu", dtype="bfloat16")
            backbone.model.save_pretrained(folder)
            size = weight_bytes(backbone) / 2**20
            del backbone
            command = one("hold", folder, number)
            both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)]
            mapped, share = json.loads(both[0].communicate()[0].splitlines()[-1])
            both[1].wait()
        parts = f"{mapped / 2**20:.0f} MiB | {share / 2**20:.0f} MiB"
        yield f"| {CASES[number][1]} | {size:.0f} | {parts} |"


def hold(folder: Path, case: tuple) -> tuple[int, int]:
    """Bytes of the checkpoint that are mapped into this process after use, and its share of them.

    Another process does the same; what both map counts half for each.
    """
    backbone = load_backbone(str(folder), device="cpu", dtype="bfloat16")
    for parameter in backbone.model.parameters():
        float(parameter.sum())
    mapped = (0, 0)
    for step in ("ready", "done"):
        (folder / f"{step}-{os.getpid()}").touch()
        while len(list(folder.glob(f"{step}-*"))) < 2:
            time.sleep(0.1)
        mapped = mapped if step == "done" else (_mapped("Rss"), _mapped("Pss"))
    return mapped


def _mapped(field: str) -> int:
    """Bytes of mappings of safetensors files."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            ours = line.endswith(".safetensors")
        elif ours and line.startswith(f"{field}:"):
            total += 1024 * int(line.split()[1])
    return total


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--cases", nargs="*", type=int, default=list(range(len(CASES))))
    parser.add_argument("--sharing", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.one:
        what, folder, number = asked.one
        act = {"predicted": predicted, "measured": measured, "hold": hold}[what]
        print(json.dumps(act(Path(folder), CASES[int(number)])))
        return
    for line in sharing() if asked.sharing else report(asked.cases):
        print(line, flush=True)


if __name__ == "__main__":
    main()
