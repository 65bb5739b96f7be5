"""The command that looks at the machine: ``softstart doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from softstart.machine import Machine, Speed

console = Console()


def doctor(
    bench: Annotated[
        bool, typer.Option("--bench", help="Measure products, copies and an adaptation (seconds).")
    ] = False,
    device: Annotated[str | None, typer.Option(help="Where to measure; by default the GPU.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the measurement.")] = None,
) -> None:
    """What this machine can run; with --bench how fast it is, and how much of that an adaptation gets."""
    import torch

    from softstart.backbone.base import prefer_device
    from softstart.machine import measure, this_machine

    place = prefer_device(device)
    if threads:
        torch.set_num_threads(threads)
    lines = _facts(this_machine())
    if bench:
        lines += ["", *_speed(measure(place))]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _facts(machine: Machine) -> list[str]:
    from softstart.machine import EXTRAS

    lines = [machine.platform, f"{machine.cores} cores, {machine.threads} threads for one process", ""]
    for device in machine.devices:
        dtypes = ", ".join(device.dtypes)
        lines.append(f"{device.name}  {device.kind}, {device.memory / 2**30:.1f} GiB: {dtypes}")
    lines.append("")
    for name, version in machine.packages.items():
        purpose = f"  for {EXTRAS[name]}" if name in EXTRAS else ""
        lines.append(f"{name:12}  {version or 'absent':14}{purpose}".rstrip())
    return lines


def _speed(speed: Speed) -> list[str]:
    share = f"{speed.fraction:.0%} of the product's, {speed.steps:.1f} steps a second over a pack"
    return [
        f"on {speed.device} with {speed.threads} threads:",
        *(f"matrix product {name:9} {rate / 1e9:10.0f} GFLOP/s" for name, rate in speed.matmul.items()),
        f"copy                     {speed.copy / 1e9:10.1f} GB/s read and written",
        f"adaptation float32       {speed.adaptation / 1e9:10.0f} GFLOP/s, {share} of the embedded backbone",
    ]
