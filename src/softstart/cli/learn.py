"""Your own tasks: ``softstart meta-train`` and ``adapt``; ``softstart.cli.prompt`` has what follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from softstart.cli import prompt as prompt_cli
from softstart.cli.prompt import (
    Device,
    Input,
    MaxInput,
    Model,
    Output,
    Revision,
    Strict,
    backbone_of,
    console,
    load_prompt,
    too_long,
)
from softstart.errors import SoftstartError

if TYPE_CHECKING:
    from softstart.prompt import SoftPrompt

Label = Annotated[str | None, typer.Option(help="The column of labels.")]
NAMED = "vocabulary, task_names, labels, text:WORDS, average:FOLDER"
"""What ``--init`` takes beside a file, a folder or a hub id."""
Seed = Annotated[int, typer.Option(help="Seed of the plain start, the splits and the data order.")]


def meta_train(
    folder: Annotated[Path, typer.Argument(help="Source tasks: a CSV, TSV, JSONL or parquet file each.")],
    out: Annotated[Path, typer.Option(help="Folder for the learned start, for adapt --init.")],
    backbone: Annotated[str, typer.Option(help="softstart/tiny, a folder or a hub id.")] = "softstart/tiny",
    revision: Annotated[str | None, typer.Option(help="Hub revision of the backbone.")] = None,
    input: Input = None,
    output: Output = None,
    label: Label = None,
    algorithm: Annotated[
        str, typer.Option(help="multitask, maml, fomaml, reptile, metasgd, anil, imaml, spot; see --set.")
    ] = "multitask",
    init: Annotated[
        str, typer.Option(help=f"Where learning begins: {NAMED}, or a prompt (file, folder, hub id).")
    ] = "vocabulary",
    steps: Annotated[int, typer.Option(min=1, help="Outer steps.")] = 100,
    lr: Annotated[float, typer.Option(min=0, help="Outer learning rate.")] = 0.3,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A field of the algorithm: --set inner_lr=3.")
    ] = None,
    length: Annotated[int, typer.Option(min=1, help="Prompt length.")] = 20,
    seed: Seed = 0,
    max_input_tokens: MaxInput = 512,
    device: Device = None,
) -> None:
    """Learn a start from a folder of tables, one source task each. Safe to kill and repeat.

    \b
    Examples:
      softstart meta-train sources/ --out start
      softstart meta-train sources/ --out start --algorithm fomaml --set inner_lr=3.0 --steps 60
      softstart meta-train sources/ --out start --backbone google/t5-base-lm-adapt --length 100
    """
    from softstart.backbone import Backbone
    from softstart.gym.tables import RawData, source_tasks
    from softstart.training.distributed import this_job
    from softstart.training.encoding import TextFormat
    from softstart.yourtasks.learn_and_adapt import learn_start, named_start, outer_loop
    from softstart.yourtasks.starts import chooses_by_target

    if chooses_by_target(init):
        raise SoftstartError(
            "source tasks have no target to be near to", where="--init", fix="Use average:FOLDER."
        )
    chosen, config = outer_loop(algorithm, steps=steps, lr=lr, seed=seed, overrides=overrides or [])
    tasks = source_tasks(folder, RawData("", input=input, output=output, label=label))
    model = Backbone.from_pretrained(backbone, device=device, revision=revision)
    text = TextFormat("{input}", max_input_tokens=max_input_tokens)
    first = _given(init) or named_start(model, init, tasks, length=length, seed=seed)
    lead = this_job().lead
    with Progress(console=console, transient=True, disable=not (lead and console.is_terminal)) as bar:
        task = bar.add_task("learning a start", total=config.steps)
        start = learn_start(
            model, tasks, chosen, config, init=first.check_for(model, init), text=text, folder=out,
            progress=lambda n, note="": bar.update(task, advance=n, description=note),
        )  # fmt: skip
    if not lead:
        return
    start.info["input"] = input or "{input}"
    start.save_pretrained(out)
    console.print(f"start of {len(tasks)} source tasks: {out}", highlight=False, soft_wrap=True)


def adapt(
    train: Annotated[str, typer.Option(help="Labeled rows: CSV, TSV, JSONL, parquet.")],
    init: Annotated[
        str | None,
        typer.Option(help=f"A learned start (file, folder, hub id), or: {NAMED}, nearest:FOLDER."),
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="Labeled rows to test on; else a fifth of --train.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the tuned prompt, as a PEFT adapter.")] = None,
    backbone: Model = None,
    revision: Revision = None,
    input: Input = None,
    output: Output = None,
    label: Label = None,
    metric: Annotated[str | None, typer.Option(help="ACC, EM, Classification-F1, Rouge-L, …")] = None,
    lr: Annotated[list[float] | None, typer.Option(help="Learning rates; the best on dev is kept.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of tuning.")] = 300,
    length: Annotated[int, typer.Option(min=1, help="Prompt length, without --init.")] = 20,
    splits: Annotated[
        int, typer.Option(min=1, help="Splits of --train into train and dev; all are tuned and shown.")
    ] = 3,
    seed: Seed = 0,
    max_input_tokens: MaxInput = 512,
    strict: Strict = False,
    device: Device = None,
) -> None:
    """Tune a prompt on your task from a learned start, beside plain prompt tuning: did the start help?

    \b
    Examples:
      softstart adapt --init start --train mine.csv --test more.csv --out tuned
      softstart adapt --train mine.csv --input '{title}: {body}' --label topic --lr 0.3 --lr 0.1
    """
    import torch

    from softstart.backbone import TINY
    from softstart.gym.tables import RawData, whole_task
    from softstart.training.configs import AdaptConfig
    from softstart.training.distributed import this_job
    from softstart.training.encoding import TextFormat
    from softstart.yourtasks.learn_and_adapt import (
        LEARNED,
        PT,
        adapt_own,
        fitting,
        named_start,
        plain_start,
        verdict,
    )

    start = _given(init, revision) if init else None
    name = LEARNED if start else f"start {init}"
    raw = RawData(train, input=input, output=output, label=label, metric=metric, test=test)
    task = whole_task(raw, splits=splits)
    model = backbone_of(start, backbone or (None if start else TINY), device)
    if init and not start:
        start = named_start(model, init, [task], length=length, seed=seed)
    size = len(start.tensor) if start else length
    text, long = fitting(model, size, task, TextFormat("{input}", max_input_tokens))
    too_long(long, text.max_input_tokens, strict)
    starts: dict[str, Any] = {PT: torch.stack([plain_start(model, size, seed + i) for i in range(splits)])}
    if start:
        start.check_for(model, str(init))
        starts[name] = start
    config = AdaptConfig(steps=steps, eval_every=max(1, steps // 12), max_tokens=2048)
    rates = lr or [0.5, 0.3]
    lead = this_job().lead
    with Progress(console=console, transient=True, disable=not (lead and console.is_terminal)) as bar:
        tuning = bar.add_task("tuning", total=steps * len(starts) * len(rates) * splits)
        found = adapt_own(
            model, task, starts, text=text, rates=rates, config=config, seed=seed,
            progress=lambda n, note="": bar.update(tuning, advance=n, description=note),
        )  # fmt: skip
    if not lead:
        return
    table = Table("start", "dev", "test", "from … to", "lr", "best step", title=f"{task.name}: {task.metric}")
    for of, tuned in found.items():
        scores = (f"{100 * tuned.dev:.1f}", f"{100 * tuned.test:.1f}", _range(tuned.tests))
        table.add_row(of, *scores, f"{tuned.lr:g}", str(tuned.best_step))
    console.print(table)
    sample = next(iter(task.samples.values()))
    console.print(
        f"{len(sample.train)} rows to learn from, {len(sample.dev)} dev, {len(task.test)} test"
        + ("" if test else " (a fifth of --train)")
        + (f"; means over {splits} splits of train and dev" if splits > 1 else ""),
        highlight=False,
    )
    best = name if start else PT
    if start:
        if near := found[name].prompt.info.get("nearest"):
            console.print(f"nearest source: {', '.join(near)}", highlight=False, soft_wrap=True)
        gains = [a - b for a, b in zip(found[name].tests, found[PT].tests, strict=True)]
        console.print(f"the {name} {verdict(gains)}", highlight=False, soft_wrap=True)
    if out:
        prompt = found[best].prompt
        prompt.info.update(input=input or "{input}", output=output or (f"{{{label}}}" if label else None))
        (prompt.save_pretrained if prompt.fits_peft else prompt.save)(out)
        console.print(f"{best}: {out}", highlight=False, soft_wrap=True)


def _range(scores: Sequence[float]) -> str:
    return f"{100 * min(scores):.1f} … {100 * max(scores):.1f}"


def _given(init: str, revision: str | None = None) -> SoftPrompt | None:
    """The prompt of ``--init``; None if it names an initializer."""
    from softstart.yourtasks.starts import is_named

    return None if is_named(init) else load_prompt(init, revision)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    commands: Iterable[Any] = (
        meta_train,
        adapt,
        prompt_cli.predict,
        prompt_cli.evaluate,
        prompt_cli.export,
        prompt_cli.push,
    )
    for command in commands:
        app.command()(command)
