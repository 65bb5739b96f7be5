"""The device a model computes on, and the memory there."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from softstart.errors import SoftstartError, memory_words

PASS_TOKENS = 16384
"""Tokens of a forward pass, unless a device is large."""
LARGE = 64 << 30
"""Bytes of memory from which on a GPU is large."""
_SHARDED = {"FullyShardedDataParallel", "FSDPModule"}
_GROUPS = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
_USES = ("memory.current", "memory/memory.usage_in_bytes")
"""Files in which a container finds its limit and its use of memory in bytes, for cgroups v2 and v1."""


def prefer_device(device: str | None) -> torch.device:
    """The device asked for, else the GPU if there is one; a SoftstartError if it cannot be used."""
    if device is not None:
        try:
            place = torch.empty(0, device=device).device
            if place.type == "meta":
                raise ValueError("it holds no numbers")
        except (RuntimeError, AssertionError, ValueError, IndexError, TypeError) as problem:
            reason = (str(problem).splitlines() or [""])[0]
            raise SoftstartError(
                f"device '{device}' cannot be used ({reason})", fix="Try --device cpu."
            ) from problem
        return torch.device("cpu") if place.type == "cpu" else place
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # A launcher numbers the processes of this machine: each takes its own GPU.
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def device_of(module: torch.nn.Module) -> torch.device:
    """Where a module computes. Weights that accelerate has offloaded are moved there when they are used."""
    device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    weight: torch.Tensor = next(module.parameters())
    return weight.device if device is None else torch.empty(0, device=device).device


def refuse_sharded(model: torch.nn.Module) -> None:
    """Refuse a model whose weights are spread over several processes.

    Raises:
        SoftstartError: FSDP has sharded it.
    """
    if any(_SHARDED & {kind.__name__ for kind in type(module).__mro__} for module in model.modules()):
        raise SoftstartError(
            "the model is sharded by FSDP, whose hooks have no second derivative",
            fix="Use device_map for a model larger than one GPU.",
        )


def processor() -> str:
    """The name of the CPU."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def device_memory(device: torch.device) -> int:
    """Bytes of memory that a device has, or the part of it that this container may use."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):  # Windows
        most = 8 << 30
    for limit in _LIMITS:
        with suppress(OSError, ValueError):
            most = min(most, int((_GROUPS / limit).read_text()))
    return most


def pass_tokens(device: torch.device, memory: int | None = None) -> int:
    """Tokens of a forward pass that suit a device: 65,536 on a large GPU, which ``PASS_TOKENS`` leave waiting
    (``benchmarks/gpu``).

    Args:
        device: computes the pass.
        memory: its bytes; None: ask it.
    """
    if device.type != "cuda" or (memory or device_memory(device)) < LARGE:
        return PASS_TOKENS
    return 4 * PASS_TOKENS


def free_memory(device: torch.device) -> int | None:
    """Bytes that this process holds or can still get; None if the system does not report them."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    with suppress(OSError, ValueError, KeyError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        for limit, use in zip(_LIMITS, _USES, strict=True):
            with suppress(OSError, ValueError):
                free = min(free, int((_GROUPS / limit).read_text()) - int((_GROUPS / use).read_text()))
        return free + status_bytes("VmRSS")
    return None


def out_of_memory(problem: Exception) -> bool:
    """Whether an error means that memory ran out, on any device."""
    return isinstance(problem, (MemoryError, torch.OutOfMemoryError)) or memory_words(problem)


def forget_peak(device: torch.device) -> bool:
    """Make ``peak_memory`` count from now on; False if the system cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return True
    return False


def peak_memory(device: torch.device) -> int:
    """The most bytes this process has held since ``forget_peak``, or ever if the system cannot forget.

    For a GPU the bytes allocated there, for a CPU the resident memory.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if peak := status_bytes("VmHWM"):
        return peak
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def status_bytes(field: str) -> int:
    """A field of /proc/self/status in bytes (VmRSS: resident now, VmHWM: its peak); 0 if there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    return 0


def every_weight(model: Any) -> dict[str, torch.Tensor]:
    """Every weight by name, including those that accelerate has offloaded."""
    state: dict[str, torch.Tensor] = model.state_dict()
    if not any(tensor.is_meta for tensor in state.values()):
        return state
    from accelerate.utils.modeling import get_state_dict_offloaded_model

    offloaded = get_state_dict_offloaded_model(model)
    return {name: offloaded[name] if tensor.is_meta else tensor for name, tensor in state.items()}
