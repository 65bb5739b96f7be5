"""The command line: its commands, its exit codes, its answer to signals."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

import typer

from softstart.cli import analysis, doctor, inspect, learn, prompt, resuming, run, starts, study
from softstart.cli.backbone import backbone_app
from softstart.cli.gym import gym_app
from softstart.cli.many_values import ManyValues
from softstart.cli.terminal import flush_output, note, prepare_output, say_error, warn
from softstart.cli.tiny import tiny_app
from softstart.errors import SoftstartError, memory_words

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

app.add_typer(tiny_app, name="tiny")
app.add_typer(gym_app, name="gym")
app.add_typer(backbone_app, name="backbone")

SHARED = ("meta-train", "adapt")
"""Commands whose work the processes of a launcher share."""

# Help lists commands in this order, the order of use.
for command in (
    run.demo,
    run.run,
    study.status,
    doctor.doctor,
    study.results,
    study.explain_protocol,
    analysis.arg,
    study.report,
    starts.starts,
    learn.meta_train,
    learn.adapt,
    prompt.predict,
    prompt.evaluate,
    prompt.export,
    prompt.push,
    analysis.similarity,
    inspect.inspect,
):
    app.command(cls=ManyValues)(command)


def main() -> NoReturn:
    """Entry point: one clear line for anything that goes wrong, a traceback only with --debug."""
    # Read when torch loads: threads that spin for work make a busy machine ten times slower (measured).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.showwarning = _show_warning
    show_log()
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    for which in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(which) != signal.SIG_IGN:
            signal.signal(which, _interrupt)
    prepare_output()
    code = _main(arguments, debug)
    try:
        flush_output()
    except SoftstartError as problem:
        code = code or _fail(str(problem))
    # Nothing is left to do: an interrupt now ends the program without a message.
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, signal.SIG_DFL)
    sys.exit(code)


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


def show_log() -> None:
    """Show what the package logs, such as the memory that texts may take, on standard error."""
    log = logging.getLogger("softstart")
    log.setLevel(logging.INFO)
    log.addHandler(_Notes())


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Our own warnings are for users: one line. Those of libraries are not."""
    if issubclass(category, UserWarning) and "softstart" in Path(filename).parts:
        warn(str(message))


def _main(arguments: list[str], debug: bool) -> int:
    resuming.begin()
    try:
        return _run(arguments, debug)
    except KeyboardInterrupt:
        return _interrupted()


def _run(arguments: list[str], debug: bool) -> int:
    try:
        _refuse_launcher(arguments)
        _refuse_empty(arguments)
        code: int | None = app(arguments, standalone_mode=False)
        # typer turns an interrupt into this code itself, without a message.
        return _interrupted() if code == 130 else code or 0
    except Exception as problem:
        _ignore_signals()
        return _explain(problem, debug)


def _ignore_signals() -> None:
    """Print an error to its end, even if further signals come, as from a launcher whose job has failed."""
    _answer(signal.SIG_IGN)


def _refuse_launcher(arguments: list[str]) -> None:
    """Refuse to do the same work once per process of a launcher."""
    command = next((a for a in arguments if not a.startswith("-")), "")
    if os.environ.get("RANK") and os.environ.get("WORLD_SIZE", "1") != "1" and command not in SHARED:
        raise SoftstartError(
            f"softstart {command} cannot share its work under torchrun or accelerate launch",
            fix="Start it as one process; a study has --workers and --ray.",
        )


def _refuse_empty(arguments: list[str]) -> None:
    """Refuse an empty argument, such as of a variable that is not set, before it passes for none at all."""
    if "" in arguments:
        before = arguments[max(0, arguments.index("") - 1)]
        raise SoftstartError(f"an empty argument after '{before}'", fix="Give it a value, or leave it out.")


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
        unnamed = "standard output" if isinstance(problem, BrokenPipeError) else "file"
        return _fail(f"{problem.filename or unnamed}: {problem.strerror or problem}")
    if isinstance(problem, MemoryError) or memory_words(problem):
        return _fail(f"out of memory ({problem}). A smaller backbone, dtype or max_tokens needs less")
    return _fail(f"{name}: {problem}. This is a bug in Softstart; --debug shows where.", 70)


def _fail(message: str, code: int = 1) -> int:
    with suppress(OSError):  # nobody reads it
        say_error(message)
    return code


def _interrupted() -> int:
    _ignore_signals()
    if resuming.something_kept():
        return _fail("interrupted; what was finished is kept: run the same command again to go on", 130)
    return _fail("interrupted", 130)


@dataclass(frozen=True)
class _Repeated:
    """Answers interrupts after the first: for a second it ignores them, then one ends the program at once."""

    first: float

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if time.monotonic() - self.first > 1:
            os.write(2, b"error: interrupted at once; what was finished before is kept\n")
            os._exit(130)


def _answer(handler: _Repeated | signal.Handlers) -> None:
    """Answer interrupts with another handler, where the one at work is the program's own."""
    for which in (signal.SIGINT, signal.SIGTERM):
        ours = signal.getsignal(which)
        if ours is _interrupt or isinstance(ours, _Repeated):
            signal.signal(which, handler)


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    """Stop in order at the first signal."""
    _answer(_Repeated(time.monotonic()))
    raise KeyboardInterrupt
