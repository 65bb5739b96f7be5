"""Your own tasks: ``softstart meta-train``, ``adapt``, ``predict``, ``export`` and ``push``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from softstart.errors import SoftstartError
from softstart.files import atomic

if TYPE_CHECKING:
    from softstart.prompt import SoftPrompt

console = Console()
errors = Console(stderr=True)

Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, …; by default the GPU if there is one.")]
Model = Annotated[str | None, typer.Option("--backbone", help="By default the one the prompt was made on.")]
Revision = Annotated[str | None, typer.Option(help="Hub revision of the prompt.")]
Input = Annotated[
    str | None, typer.Option("--input", help="The input, from a row's columns: '{title}: {body}'.")
]
Output = Annotated[str | None, typer.Option(help="The output, from a row's columns.")]
Label = Annotated[str | None, typer.Option(help="The column of labels.")]
MaxInput = Annotated[int, typer.Option(min=1, help="Longer inputs are cut, and counted in a warning.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse inputs that are too long.")]


def meta_train(
    folder: Annotated[Path, typer.Argument(help="Source tasks: a CSV, TSV, JSONL or parquet file each.")],
    out: Annotated[Path, typer.Option(help="Folder for the learned start, for adapt --init.")],
    backbone: Annotated[str, typer.Option(help="softstart/tiny, a folder or a hub id.")] = "softstart/tiny",
    revision: Annotated[str | None, typer.Option(help="Hub revision of the backbone.")] = None,
    input: Input = None,
    output: Output = None,
    label: Label = None,
    algorithm: Annotated[
        str, typer.Option(help="multitask, maml, fomaml, reptile, … (see --set).")
    ] = "multitask",
    steps: Annotated[int, typer.Option(min=1, help="Outer steps.")] = 100,
    lr: Annotated[float, typer.Option(min=0, help="Outer learning rate.")] = 0.3,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A field of the algorithm: --set inner_lr=3.")
    ] = None,
    length: Annotated[int, typer.Option(min=1, help="Prompt length.")] = 20,
    seed: int = 0,
    max_input_tokens: MaxInput = 512,
    device: Device = None,
) -> None:
    """Learn a start from a folder of tables, one source task each. Safe to kill and repeat."""
    from softstart.backbone import Backbone
    from softstart.encoding import TextFormat
    from softstart.gym.own import RawData, source_tasks
    from softstart.own_tasks import learn_start, outer_loop

    chosen, config = outer_loop(algorithm, steps=steps, lr=lr, seed=seed, overrides=overrides or [])
    tasks = source_tasks(folder, RawData("", input=input, output=output, label=label))
    model = Backbone.from_pretrained(backbone, device=device, revision=revision)
    text = TextFormat("{input}", max_input_tokens=max_input_tokens)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("learning a start", total=config.steps)
        start = learn_start(
            model, tasks, chosen, config, length=length, text=text, folder=out,
            progress=lambda n, note="": bar.update(task, advance=n, description=note),
        )  # fmt: skip
    start.info["input"] = input or "{input}"
    start.save_pretrained(out)
    console.print(f"start of {len(tasks)} source tasks: {out}", highlight=False, soft_wrap=True)


def adapt(
    train: Annotated[str, typer.Option(help="Labeled rows: CSV, TSV, JSONL, parquet.")],
    init: Annotated[str | None, typer.Option(help="A learned start: file, folder or hub id.")] = None,
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
    seed: int = 0,
    max_input_tokens: MaxInput = 512,
    strict: Strict = False,
    device: Device = None,
) -> None:
    """Tune a prompt on your task from a learned start, beside plain prompt tuning: did the start help?"""
    import torch

    from softstart.adaptation import AdaptConfig
    from softstart.backbone import TINY
    from softstart.encoding import TextFormat
    from softstart.gym.own import RawData, whole_task
    from softstart.own_tasks import LEARNED, PT, adapt_own, fitting, plain_start, verdict

    start = _load(init, revision) if init else None
    raw = RawData(train, input=input, output=output, label=label, metric=metric, test=test)
    task = whole_task(raw, splits=splits)
    model = _backbone(start, backbone or (None if start else TINY), device)
    size = len(start.tensor) if start else length
    text, long = fitting(model, size, task, TextFormat("{input}", max_input_tokens))
    _too_long(long, text.max_input_tokens, strict)
    starts = {PT: torch.stack([plain_start(model, size, seed + i) for i in range(splits)])}
    if start:
        starts[LEARNED] = start.check_for(model, str(init))
    config = AdaptConfig(steps=steps, eval_every=max(1, steps // 12), max_tokens=2048)
    found = adapt_own(model, task, starts, text=text, rates=lr or (0.5, 0.3), config=config, seed=seed)
    table = Table("start", "dev", "test", "from … to", "lr", "best step", title=f"{task.name}: {task.metric}")
    for name, tuned in found.items():
        scores = (f"{100 * tuned.dev:.1f}", f"{100 * tuned.test:.1f}", _range(tuned.tests))
        table.add_row(name, *scores, f"{tuned.lr:g}", str(tuned.best_step))
    console.print(table)
    sample = next(iter(task.samples.values()))
    console.print(
        f"{len(sample.train)} rows to learn from, {len(sample.dev)} dev, {len(task.test)} test"
        + ("" if test else " (a fifth of --train)")
        + (f"; means over {splits} splits of train and dev" if splits > 1 else ""),
        highlight=False,
    )
    best = LEARNED if start else PT
    if start:
        gains = [a - b for a, b in zip(found[LEARNED].tests, found[PT].tests, strict=True)]
        console.print(f"the learned start {verdict(gains)}", highlight=False, soft_wrap=True)
    if out:
        prompt = found[best].prompt
        prompt.info["input"] = input or "{input}"
        (prompt.save_pretrained if prompt.placement == "prefix" else prompt.save)(out)
        console.print(f"{best}: {out}", highlight=False, soft_wrap=True)


def predict(
    prompt: Annotated[str, typer.Argument(help="A tuned prompt: file, folder or hub id.")],
    rows: Annotated[str, typer.Option(help="Rows to predict: CSV, TSV, JSONL, parquet.")],
    out: Annotated[Path, typer.Option(help="Where to write: .csv or .jsonl.")],
    backbone: Model = None,
    revision: Revision = None,
    input: Input = None,
    label: Annotated[
        list[str] | None, typer.Option(help="A label word to rank; give it once for each.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write outputs freely, without ranking labels.")
    ] = False,
    max_input_tokens: MaxInput = 512,
    strict: Strict = False,
    device: Device = None,
) -> None:
    """Predict unlabeled rows: each row in order with its prediction and the probability of each label."""
    from softstart.gym.rows import read_rows
    from softstart.own_tasks import Predictor

    if out.suffix not in (".csv", ".jsonl"):
        raise SoftstartError(f"cannot write '{out.name}'", mend="Use .csv or .jsonl.")
    loaded = _load(prompt, revision)
    model = _backbone(loaded, backbone, device)
    labels = [] if write else label
    fields = input or loaded.info.get("input") or "{input}"
    predictor = Predictor(
        model, loaded, labels, input=fields, max_input_tokens=max_input_tokens, strict=strict
    )
    count = _write(out, predictor(read_rows(rows)))
    _too_long(predictor.truncated, predictor.max_input_tokens, strict)
    console.print(f"{count} rows: {out}", highlight=False, soft_wrap=True)


def export(
    prompt: Annotated[
        str, typer.Argument(help="A prompt: file (.safetensors, .pt, .npy), folder or hub id.")
    ],
    out: Annotated[Path, typer.Argument(help="A folder (PEFT adapter) or a .safetensors file.")],
    revision: Revision = None,
) -> None:
    """Convert a prompt of any known format to a PEFT adapter or one safetensors file."""
    loaded = _load(prompt, revision)
    if out.suffix == ".safetensors":
        loaded.save(out)
    else:
        loaded.save_pretrained(out)
    console.print(str(out), highlight=False, soft_wrap=True)


def push(
    prompt: Annotated[str, typer.Argument(help="A prompt: file or folder.")],
    repo: Annotated[str, typer.Argument(help="owner/name on the Hugging Face hub.")],
    private: Annotated[bool, typer.Option("--private", help="Create it as a private repository.")] = False,
) -> None:
    """Upload a prompt to the Hugging Face hub as a PEFT adapter with a model card."""
    console.print(_load(prompt, None).push_to_hub(repo, private=private), highlight=False, soft_wrap=True)


def _range(scores: Sequence[float]) -> str:
    return f"{100 * min(scores):.1f} … {100 * max(scores):.1f}"


def _load(source: str, revision: str | None) -> SoftPrompt:
    from softstart.prompt import SoftPrompt

    prompt = SoftPrompt.from_pretrained(source, revision=revision)
    if "note" in prompt.info:
        errors.print(f"warning: {prompt.info['note']}", highlight=False, soft_wrap=True)
    return prompt


def _backbone(prompt: SoftPrompt | None, name: str | None, device: str | None) -> Any:
    from softstart.backbone import Backbone

    name = name or (prompt.backbone if prompt else None)
    if not name:
        raise SoftstartError("the prompt does not say what backbone it was made on", mend="Give --backbone.")
    own = prompt is not None and name == prompt.backbone
    return Backbone.from_pretrained(
        name,
        device=device,
        revision=(prompt.revision or None) if prompt and own else None,
        placement=prompt.placement if prompt else "prefix",  # type: ignore[arg-type]
    )


def _too_long(count: int, limit: int, strict: bool) -> None:
    if not count:
        return
    what = f"{count} inputs are longer than {limit} tokens"
    if strict:
        raise SoftstartError(what, mend="Raise --max-input-tokens within the model's window.")
    errors.print(f"warning: {what} and were cut", highlight=False, soft_wrap=True)


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    """Write rows as they come → how many; the columns are those of the first."""
    count, writer = 0, None
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        for row in rows:
            count += 1
            if path.suffix == ".jsonl":
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                continue
            if writer is None:
                writer = csv.DictWriter(file, list(row), lineterminator="\n", extrasaction="ignore")
                writer.writeheader()
            writer.writerow(row)
    return count


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    commands: Iterable[Any] = (meta_train, adapt, predict, export, push)
    for command in commands:
        app.command()(command)
