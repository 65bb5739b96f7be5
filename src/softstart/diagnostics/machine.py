"""What this machine can run, how fast it multiplies and copies, and how much of that an adaptation gets."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from statistics import median

import torch

from softstart.backbone import TINY, Backbone, kernels, load_backbone
from softstart.backbone.devices import device_memory, processor
from softstart.gym import open_gym
from softstart.training.configs import AdaptConfig, bound_of
from softstart.training.encoding import TextFormat, encode_task, rng_for, to_batch
from softstart.training.objective import PromptObjective
from softstart.training.optimizers import StackedOptimizer

EXTRAS = {
    "scipy": "softstart[analysis]: rank correlations of softstart similarity",
    "matplotlib": "softstart[figures]: PNG and PDF figures",
    "peft": "softstart[peft]: prompts in PEFT's format",
    "gguf": "softstart[gguf]: backbones from GGUF files",
    "ray": "studies on a Ray cluster",
    "accelerate": "models spread over several devices",
}
"""Packages that a base install does without, and what each is for."""

REQUIRED = ("torch", "transformers", "tokenizers", "safetensors", "datasets", "numpy", "pandas")


@dataclass(frozen=True)
class Device:
    """A place to compute: its name, memory in bytes, and the dtypes a backbone can have there."""

    name: str
    kind: str
    memory: int
    dtypes: tuple[str, ...]


@dataclass(frozen=True)
class Machine:
    """What there is. ``packages`` holds versions, None for what is not installed."""

    platform: str
    cores: int
    threads: int
    devices: tuple[Device, ...]
    packages: dict[str, str | None]


@dataclass(frozen=True)
class Speed:
    """Measured on one device, medians of repetitions.

    ``matmul`` is FLOP/s by dtype, the better of torch's default product and ``kernels.linear``; ``copy`` is
    bytes read and written a second; ``adaptation`` is model FLOP/s of an optimizer step of a pack on the
    embedded backbone in float32 (padding and updates take time but count for nothing), ``steps`` its
    run-steps a second.
    """

    device: str
    threads: int
    matmul: dict[str, float]
    copy: float
    adaptation: float
    steps: float

    @property
    def fraction(self) -> float:
        """Share of the float32 matmul rate that the adaptation reaches."""
        return self.adaptation / self.matmul["float32"]


def this_machine() -> Machine:
    """What this machine can run."""
    dtypes = ("float32", "bfloat16", "float64")
    cpu = torch.device("cpu")
    devices = [Device("cpu", processor(), device_memory(cpu), dtypes)]
    for i in range(torch.cuda.device_count()):
        device = torch.device("cuda", i)
        kinds = (*dtypes, "float16") if torch.cuda.is_bf16_supported() else ("float32", "float64", "float16")
        devices.append(Device(f"cuda:{i}", torch.cuda.get_device_name(device), device_memory(device), kinds))
    packages = {"softstart": _version("softstart"), **{name: _version(name) for name in (*REQUIRED, *EXTRAS)}}
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return Machine(system, os.cpu_count() or 1, torch.get_num_threads(), tuple(devices), packages)


def measure(device: torch.device, *, size: int | None = None, runs: int = 8, rounds: int = 5) -> Speed:
    """Measure a device in seconds; every figure is the median of ``rounds`` after one to warm up.

    Args:
        device: which.
        size: side of the square matrices; by default 1024 on a CPU and 8192 elsewhere.
        runs: the pack.
        rounds: repetitions.
    """
    matmul, size = {}, size or (1024 if device.type == "cpu" else 8192)
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = (torch.randn(size, size).to(device, dtype) for _ in "ab")
        products = (lambda a=a, b=b: a @ b, lambda a=a, b=b: kernels.linear(a, b))
        matmul[name] = max(2.0 * size**3 / _seconds(product, device, rounds) for product in products)
    source = torch.zeros(1 << 26, device=device)
    target = torch.empty_like(source)
    copy = 2 * source.nbytes / _seconds(lambda: target.copy_(source), device, rounds)
    flops, seconds = _adaptation(load_backbone(TINY, device=str(device)), runs, rounds)
    return Speed(str(device), torch.get_num_threads(), matmul, copy, flops / seconds, runs / seconds)


def _adaptation(backbone: Backbone, runs: int, rounds: int) -> tuple[float, float]:
    """FLOPs and seconds of one step of a pack on a task of the mini gym."""
    config, gym = AdaptConfig(max_tokens=2048 if backbone.device.type == "cpu" else "auto"), open_gym()
    rows = encode_task(gym.load(gym.tasks()[0]), backbone, TextFormat()).train
    sample = next(iter(rows.values()))
    rng = rng_for(0)
    drawn = rng.choice(sample.trainable, runs * config.batch_size).tolist()
    owners = [r for r in range(runs) for _ in range(config.batch_size)]
    batch = to_batch(sample.pick(drawn, rng), owners, backbone.tokenizer.pad_token_id).to(backbone.device)
    prompts = backbone.vocabulary[:100].expand(runs, -1, -1).to(backbone.prompt_dtype).clone()
    optimizer = StackedOptimizer(prompts, torch.full((runs,), 0.1), config.optimizer)
    loss = PromptObjective(backbone, bound_of(config, backbone.device))

    def step() -> None:
        _, gradient = loss.gradient(prompts, batch)
        optimizer.step(prompts, gradient)

    seconds = _seconds(step, backbone.device, rounds)
    return loss.work.flops / (rounds + 1), seconds


def _seconds(do: Callable[[], object], device: torch.device, rounds: int) -> float:
    taken = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        do()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    return median(taken[1:])


def _version(package: str) -> str | None:
    if util.find_spec(package) is None:
        return None
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown version"
