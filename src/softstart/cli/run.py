"""``softstart demo`` and ``run``: compute a study, or tell what it would take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softstart.cli.options import (
    Device,
    Overrides,
    StudyBackbone,
    StudyFile,
    StudyOut,
    TextCache,
    Threads,
    Workers,
)
from softstart.cli.outcome import show_outcome
from softstart.cli.resuming import resumable
from softstart.cli.terminal import console, new_table, say, show_table
from softstart.errors import SoftstartError

if TYPE_CHECKING:
    from softstart.study import Study


def demo(
    out: StudyOut = Path("demo"),
    backbone: StudyBackbone = None,
    gym: Annotated[
        str | None, typer.Option(help="Real few-shot tasks, with --backbone: a folder in CrossFit's format.")
    ] = None,
    device: Device = None,
    workers: Workers = None,
    threads: Threads = None,
    seed: Annotated[int, typer.Option(help="Seed of meta-training and of the data order.")] = 42,
) -> None:
    """Show the whole story, offline, in minutes. A small study of the embedded model and mini gym, on a CPU.

    \b
    Examples:
      softstart demo
      softstart demo --out somewhere --seed 43
      softstart demo --backbone smollm2 --gym path/to/gym --out demo-real
    """
    from importlib.resources import files

    from softstart.backbone import TINY
    from softstart.study import parse_study
    from softstart.study.declare.real_demo import real_demo

    if gym is not None or backbone not in (None, TINY):
        real = real_demo(gym, backbone or "smollm2", seed)
        _compute(real, out or Path("demo"), device, workers, threads)
        return
    text = files("softstart.study").joinpath("demo.yaml").read_text(encoding="utf-8")
    study = parse_study(text, "demo.yaml", [f"meta_seeds=[{seed}]"])
    _compute(study, out or Path("demo"), device, workers, threads)


def run(
    study: StudyFile,
    out: StudyOut = None,
    gym: Annotated[str | None, typer.Option(help="mini, or a folder in CrossFit's format.")] = None,
    backbone: StudyBackbone = None,
    overrides: Overrides = None,
    device: Device = None,
    workers: Workers = None,
    threads: Threads = None,
    text_cache: TextCache = None,
    executor: Annotated[
        str | None, typer.Option(help="Where to compute: <executors>, or an import path.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="A Ray cluster to compute on: its address, or local.")
    ] = None,
    tracker: Annotated[
        str | None, typer.Option(help="Send learning curves to <trackers>, or an import path.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Compute again what diverged.")
    ] = False,
    stall: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds without progress after which a worker counts as hung."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be computed and what it takes.")
    ] = False,
    gpu: Annotated[str, typer.Option(help="With --dry-run: hours on this GPU, one of: <gpus>.")] = "H200",
    gpu_rate: Annotated[
        float | None, typer.Option(min=0.001, help="With --dry-run: hours at this measured rate in TFLOP/s.")
    ] = None,
    join: Annotated[
        bool, typer.Option("--join", help="Work for the process that runs this study on this machine.")
    ] = False,
) -> None:
    """Run what is missing of a study and report. Safe to kill and repeat.

    \b
    Examples:
      softstart run study.yaml --dry-run
      softstart run study.yaml --out runs/mine --workers 4
      softstart run study.yaml --gym DIR --backbone google/t5-large-lm-adapt --set prompt.length=100
    """
    from softstart.study import load_study

    if dry_run:
        # A look at a study downloads nothing.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    given = (("gym", gym), ("backbone", backbone), ("text_cache", text_cache))
    named = [f"{key}={value}" for key, value in given if value not in (None, "")]
    declared = load_study(study, [*named, *(overrides or [])])
    folder = out or _default_folder(declared)
    if join:
        _join(folder, device)
    elif dry_run:
        _show_estimate(declared, folder, device, workers or (1 if threads else None), gpu, gpu_rate)
    else:
        _compute(
            declared,
            folder,
            device,
            workers,
            threads,
            executor=executor,
            ray=ray,
            tracker=tracker,
            retry_failed=retry_failed,
            stall=stall,
        )


def _default_folder(study: Study) -> Path:
    """Where a study goes by default; its name comes from a file, and must not lead anywhere else."""
    plain = Path(study.name).name == study.name and study.name.strip(".") and study.name.isprintable()
    if not plain or len(study.name) > 100:
        raise SoftstartError(
            f"the study's name {study.name[:100]!r} cannot be the name of a folder",
            fix="Give --out, or another name.",
        )
    return Path("runs") / study.name


def _compute(
    study: Study, folder: Path, device: str | None, workers: int | None, threads: int | None, **further: Any
) -> None:
    import torch

    from softstart.cli.display import TerminalDisplay
    from softstart.study import default_workers, run_study

    if threads and (workers or 1) > 1:
        raise SoftstartError("--threads is for this process alone", fix="Leave out --workers or --threads.")
    if threads:
        torch.set_num_threads(threads)
    resumable(lambda: _has_work(folder))
    with TerminalDisplay(console()) as display:
        outcome = run_study(
            study,
            folder,
            display=display,
            device=device,
            workers=workers or (1 if threads else default_workers(device)),
            **further,
        )
    show_outcome(outcome)


def _has_work(folder: Path) -> bool:
    """Whether a study folder holds anything to go on from: a prompt, a checkpoint or a result."""
    from softstart.study.results.folder import CHECKPOINTS, PROMPTS
    from softstart.study.results.stores import open_store

    if any(next((folder / name).glob("*"), None) for name in (PROMPTS, CHECKPOINTS)):
        return True
    with open_store(folder, readonly=True) as store:
        return bool(store.runs())


def _join(folder: Path, device: str | None) -> None:
    """Lend this process to the one that runs a study."""
    from softstart.study import join_study

    done = join_study(folder, device, say)
    say(f"its process has ended; pieces of work done here: {done}")


def _show_estimate(
    study: Study, folder: Path, device: str | None, workers: int | None, gpu: str, gpu_rate: float | None
) -> None:
    """Print what a study would take."""
    import torch

    from softstart.progress import duration
    from softstart.study import default_workers
    from softstart.study.cost.estimate import estimate
    from softstart.study.cost.gpu_hours import cost_lines

    workers = workers or default_workers(device)
    if workers > 1:
        torch.set_num_threads(1)
    needed = estimate(study, folder, device)
    table = new_table("", "planned", "done")
    for name, (planned, done) in needed.counts.items():
        table.add_row(name, f"{planned:,}", f"{done:,}")
    show_table(table)
    fewer = (needed.computed_tokens or needed.tokens or 0) < (needed.tokens or 0)
    for name, text in (
        ("tokens to process", needed.tokens and f"{needed.tokens:.2g}"),
        ("floating-point operations", needed.flops and f"{needed.flops:.2g}"),
        ("tokens computed, as prompts or texts are read once", fewer and f"{needed.computed_tokens:.2g}"),
        ("floating-point operations of them", fewer and f"{needed.computed_flops:.2g}"),
        (
            f"time with {workers} worker{'s' if workers > 1 else ''}",
            None if needed.seconds is None else duration(needed.seconds / workers),
        ),
        ("memory of a worker", needed.memory and f"{needed.memory / 2**30:.1f} GB"),
    ):
        if text:
            say(f"{name}: about {text}")
    for line in (*cost_lines(study, needed, gpu, gpu_rate), *needed.notes):
        say(line)
