"""The command line: parse, call, print."""

from __future__ import annotations

import os
import signal
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from softstart.cli.analysis import arg, inspect, report, show, similarity
from softstart.cli.gym import gym_app
from softstart.cli.learn import add_to
from softstart.cli.machine import doctor
from softstart.cli.prompt import Device
from softstart.cli.study import explain_protocol, join_running, results, show_estimate, status
from softstart.errors import SoftstartError, memory_words

if TYPE_CHECKING:
    from softstart.study import Study

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 110},
    help="Learn where a soft prompt should start (meta prompt tuning).\n\n"
    "\b\nExamples:\n"
    "  softstart demo                     the whole story, offline, in minutes\n"
    "  softstart run study.yaml           compare methods over tasks\n"
    "  softstart adapt --train mine.csv   tune a prompt on your own rows\n"
    "  softstart COMMAND --help           every command has examples",
)
tiny_app = typer.Typer(no_args_is_help=True, help="The embedded tiny language model.")
app.add_typer(tiny_app, name="tiny")
app.add_typer(gym_app, name="gym")

SHARED = ("meta-train", "adapt")
"""Commands whose work the processes of a launcher share."""

console = Console()
errors = Console(stderr=True)

Out = Annotated[Path | None, typer.Option("--out", help="Study folder; by default runs/NAME.")]
Threads = Annotated[int | None, typer.Option(help="Compute in this process alone, with so many CPU threads.")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Worker processes of one thread each; by default one a core; 1, and on a GPU: this process.",
    ),
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Override a key: --set meta.steps=100.")]


@app.command()
def demo(
    out: Out = Path("demo"),
    device: Device = None,
    workers: Workers = None,
    threads: Threads = None,
    seed: Annotated[int, typer.Option(help="Seed of meta-training and of the data order.")] = 42,
) -> None:
    """The whole story on the embedded model and mini gym: offline, on a CPU, in minutes.

    \b
    Examples:
      softstart demo
      softstart demo --out somewhere --seed 43
    """
    from softstart.study import parse_study

    text = resources.files("softstart.study").joinpath("demo.yaml").read_text(encoding="utf-8")
    _execute(parse_study(text, "demo.yaml", [f"meta_seeds=[{seed}]"]), out, device, workers, threads)


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="A study file (YAML).")],
    out: Out = None,
    gym: Annotated[str | None, typer.Option(help="mini, or a folder in CrossFit's format.")] = None,
    backbone: Annotated[str | None, typer.Option(help="softstart/tiny, a folder or a hub id.")] = None,
    overrides: Overrides = None,
    device: Device = None,
    workers: Workers = None,
    threads: Threads = None,
    ray: Annotated[
        str | None, typer.Option(help="A Ray cluster to compute on: its address, or local.")
    ] = None,
    tracker: Annotated[
        str | None, typer.Option(help="Send learning curves to tensorboard, trackio, wandb or mlflow.")
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
    gpu: Annotated[str, typer.Option(help="With --dry-run: hours on this GPU: H200, H100 or A100.")] = "H200",
    gpu_rate: Annotated[
        float | None, typer.Option(min=0.001, help="With --dry-run: hours at so many measured TFLOP/s.")
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
    extra = [f"{key}={value}" for key, value in (("gym", gym), ("backbone", backbone)) if value]
    if dry_run:
        # What is not on this machine is not fetched just to look.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    declared = _load(study, [*extra, *(overrides or [])])
    folder = out or _folder(declared)
    if join:
        join_running(folder, device)
        return
    if dry_run:
        at_a_time = workers or (1 if threads else None)
        show_estimate(declared, folder, device, at_a_time, gpu, gpu_rate)
        return
    further = {"ray": ray, "tracker": tracker, "retry_failed": retry_failed, "stall": stall}
    _execute(declared, out, device, workers, threads, **further)


@tiny_app.command()
def pretrain(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the finished model.")],
    tokens: Annotated[int, typer.Option(help="Training tokens; the shipped model saw so many.")] = 30_000_000,
    seed: Annotated[int, typer.Option(help="Seed of text, weights and order; the shipped model's is 0.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; the shipped model was trained with one.")] = 1,
) -> None:
    """Regenerate the embedded backbone: its text, its tokenizer, its weights. Safe to kill and repeat.

    \b
    Examples:
      softstart tiny pretrain --out pretrained
      softstart tiny pretrain --out pretrained --tokens 3000000
    """
    from softstart.tiny.pretrain import pretrain as train

    train(out, tokens=tokens, seed=seed, threads=threads, log=console.print)


# In the order of use, after demo and run: help lists them so.
app.command()(status)
app.command()(doctor)
app.command("results")(results)
app.command()(explain_protocol)
app.command()(arg)
app.command()(report)
add_to(app)
app.command()(similarity)
app.command()(inspect)


def main() -> NoReturn:
    """Entry point: one clear line for anything that goes wrong, a traceback only with --debug."""
    # Read when torch loads: threads that spin for work make a busy machine ten times slower (measured).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    for which in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(which) != signal.SIG_IGN:
            signal.signal(which, _interrupt)
    code = _main(arguments, debug)
    # What is left to do is to end: an interrupt needs no words for that.
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, signal.SIG_DFL)
    sys.exit(code)


def _main(arguments: list[str], debug: bool) -> int:
    try:
        return _run(arguments, debug)
    except KeyboardInterrupt:
        _deaf()
        return _interrupted()


def _run(arguments: list[str], debug: bool) -> int:
    try:
        _alone(arguments)
        code: int | None = app(arguments, standalone_mode=False)
        # typer turns an interrupt into this code itself, without a word.
        return _interrupted() if code == 130 else code or 0
    except Exception as problem:
        _deaf()
        return _explain(problem, debug)


def _deaf() -> None:
    """Let no further interrupt, as from a launcher whose job has failed, end the telling of an error."""
    for which in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(which) is _interrupt:
            signal.signal(which, signal.SIG_IGN)


def _alone(arguments: list[str]) -> None:
    """Refuse to do the same thing several times beside each other."""
    command = next((a for a in arguments if not a.startswith("-")), "")
    if os.environ.get("RANK") and os.environ.get("WORLD_SIZE", "1") != "1" and command not in SHARED:
        raise SoftstartError(
            f"softstart {command} cannot share its work under torchrun or accelerate launch",
            fix="Start it as one process; a study has --workers and --ray.",
        )


def _explain(problem: Exception, debug: bool) -> int:
    name = type(problem).__name__
    if name == "Abort":
        return _interrupted()
    if hasattr(problem, "exit_code") and hasattr(problem, "format_message"):
        problem.show()  # type: ignore[attr-defined]
        return int(problem.exit_code)
    if debug:
        raise problem
    if isinstance(problem, SoftstartError):
        return _fail(str(problem))
    if isinstance(problem, OSError):
        return _fail(f"{problem.filename or 'file'}: {problem.strerror or problem}")
    if isinstance(problem, MemoryError) or memory_words(problem):
        return _fail(f"out of memory ({problem}). A smaller backbone, dtype or max_tokens needs less")
    return _fail(f"{name}: {problem}. This is a bug in Softstart; --debug shows where.", 70)


def _fail(message: str, code: int = 1) -> int:
    errors.print(f"error: {message}", markup=False, highlight=False, soft_wrap=True)
    return code


def _interrupted() -> int:
    return _fail("interrupted; what was finished is kept: run the same command again to go on", 130)


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _load(path: Path, overrides: list[str] | None = None) -> Study:
    from softstart.study import load_study

    return load_study(path, overrides or [])


def _folder(study: Study) -> Path:
    """Where a study goes by default; its name comes from a file, and must not lead anywhere else."""
    plain = Path(study.name).name == study.name and study.name.strip(".") and study.name.isprintable()
    if not plain or len(study.name) > 100:
        raise SoftstartError(
            f"the study's name {study.name[:100]!r} cannot be that of a folder",
            fix="Give --out, or another name.",
        )
    return Path("runs") / study.name


def _execute(
    study: Study,
    out: Path | None,
    device: str | None,
    workers: int | None,
    threads: int | None,
    **how: Any,
) -> None:
    import torch

    from softstart.cli.display import TerminalDisplay
    from softstart.study import default_workers, run_study

    if threads and (workers or 1) > 1:
        raise SoftstartError("--threads is for this process alone", fix="Leave out --workers or --threads.")
    if threads:
        torch.set_num_threads(threads)
    folder = out or _folder(study)
    with TerminalDisplay(console) as display:
        outcome = run_study(
            study,
            folder,
            display=display,
            device=device,
            workers=workers or (1 if threads else default_workers(device)),
            **how,
        )
    show(outcome)
