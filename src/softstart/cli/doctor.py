"""The command that looks at the machine: ``softstart doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softstart.cli.options import Device, Overrides
from softstart.cli.terminal import new_table, progress_bar, say, show_table

if TYPE_CHECKING:
    import torch

    from softstart.diagnostics.machine import Machine, Speed


def doctor(
    bench: Annotated[
        bool, typer.Option("--bench", help="Measure products, copies and an adaptation (seconds).")
    ] = False,
    device: Device = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the measurement.")] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="A study file: the memory a worker needs for it, or why it does not fit."),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(min=0, help="Plan for a GPU with this many GiB, whether there is one here or not."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Plan for this many workers on one device; by default as many as run starts."
        ),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Show what this machine can run. --bench measures its speed, and how much of it an adaptation reaches.

    \b
    Examples:
      softstart doctor
      softstart doctor --bench --threads 1
      softstart doctor --plan study.yaml --memory 80
    """
    import torch

    from softstart.backbone.devices import prefer_device
    from softstart.diagnostics.machine import measure, this_machine

    place = prefer_device(device)
    if plan:
        _plan(plan, overrides or [], place, memory, workers)
        return
    if threads:
        torch.set_num_threads(threads)
    lines = _facts(this_machine())
    if bench:
        with progress_bar("measuring"):
            lines += ["", *_speed(measure(place))]
    say("\n".join(lines))


def _plan(
    file: Path, overrides: list[str], place: torch.device, memory: float | None, workers: int | None
) -> None:
    """Print what a worker needs for a study, by what it does.

    Raises:
        SoftstartError: it does not fit.
    """
    from softstart.backbone.devices import device_memory
    from softstart.study import default_workers, load_study
    from softstart.study.cost.memory_needs import gib, study_needs

    kind = place.type if memory is None else "cuda"
    has = device_memory(place) if memory is None else int(memory * 2**30)
    workers = workers or default_workers(kind)
    needs = study_needs(load_study(file, overrides), kind, has)
    table = new_table("a worker", "memory", "bound")
    for name, size in (("before any work", needs.base), ("weights", needs.weights)):
        table.add_row(name, gib(size), "")
    for part in needs.peaks:
        table.add_row(part.name, gib(part.bytes), f"{part.key}={part.tokens}" if part.key else "")
    show_table(table)
    if not needs.known:
        say("the tasks are not at hand: texts as long as the study allows")
    # Printed before the check, which may end in an error.
    times = f" x {workers} workers" if workers > 1 else ""
    say(f"peak on {kind}: {gib(needs.total)}{times} of {gib(has)}")
    needs.check(has, workers)


def _facts(machine: Machine) -> list[str]:
    from softstart.diagnostics.machine import EXTRAS

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
