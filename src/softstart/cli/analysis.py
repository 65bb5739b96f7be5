"""``softstart arg``, ``report``, ``similarity`` and ``inspect``: what results, tasks and prompts say."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console

from softstart.cli.learn import Label
from softstart.cli.prompt import Input, Output
from softstart.errors import SoftstartError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from softstart.prompt import SoftPrompt
    from softstart.study import Outcome

console = Console()


def arg(
    results: Annotated[list[Path], typer.Argument(help="One results.csv or several.")],
    baseline: Annotated[str, typer.Option(help="Gains are relative to this method.")] = "pt",
    format: Annotated[str, typer.Option(help="table or csv.")] = "table",
    mixed: Annotated[bool, typer.Option("--mixed", help="Accept results of different protocols.")] = False,
) -> None:
    """Average relative gain of every method in a result table, with intervals and paired tests.

    \b
    Examples:
      softstart arg runs/mine/results.csv
      softstart arg a.csv b.csv --baseline multitask --format csv
    """
    from softstart.analysis import arg_table, refuse_mixed, with_tests

    if format not in ("table", "csv"):
        raise SoftstartError(f"unknown format '{format}'", fix="Use table or csv.")
    rows = _read(results)
    if not mixed:
        refuse_mixed(rows, baseline)
    table = with_tests(rows, arg_table(rows, baseline), baseline)
    if format == "csv":
        sys.stdout.write(table.to_csv(index=False))
    else:
        console.print(table.to_string(index=False), highlight=False, soft_wrap=True)


def _read(paths: list[Path]) -> pd.DataFrame:
    import pandas as pd

    tables = []
    for path in paths:
        try:
            tables.append(pd.read_csv(path))
        except (OSError, ValueError) as problem:
            raise SoftstartError(f"cannot read the results ({problem})", where=str(path)) from problem
    return pd.concat(tables, ignore_index=True)


def report(
    folder: Annotated[Path, typer.Argument(help="A study folder.")],
    markdown: Annotated[Path | None, typer.Option(help="Write the comparison to this file, too.")] = None,
    command: Annotated[
        str | None, typer.Option(help="What made the results; shown in the Markdown file.")
    ] = None,
    raster: Annotated[
        bool, typer.Option("--raster", help="Draw figures as PNG and PDF, too (needs matplotlib).")
    ] = False,
) -> None:
    """Write report.html of a study folder again, and its tables and figures as files under report/.

    \b
    Examples:
      softstart report runs/mine
      softstart report runs/mine --markdown comparison.md --raster
    """
    from softstart.study import report_study

    outcome = report_study(existing(folder))
    if "pt" in set(outcome.rows.get("method", ())):
        commands = [*([command] if command else []), _called()]
        for path in (outcome.folder / "report" / "report.md", *([markdown] if markdown else [])):
            _markdown(outcome, path, commands)
        _files(outcome, raster)
    elif not outcome.rows.empty:
        lost = f"report/ and {markdown} are" if markdown else "report/ is"
        told = f"no results of pt to compare with: {lost} not written"
        console.print(told, highlight=False, markup=False, soft_wrap=True)
    show(outcome)
    if markdown and markdown.exists():
        console.print(str(markdown), highlight=False, soft_wrap=True)


def _files(outcome: Outcome, raster: bool) -> None:
    import pandas as pd

    from softstart.report.files import write_files

    write_files(
        outcome.folder / "report",
        outcome.rows,
        outcome.arg,
        outcome.gains,
        curves=pd.read_csv(outcome.folder / "curves.csv"),
        costs=outcome.costs,
        similarity=_similarity(outcome),
        raster=raster,
    )


def _similarity(outcome: Outcome) -> Any:
    """What ``softstart similarity`` found; None if it was not asked."""
    found = outcome.folder / "similarity.json"
    return json.loads(found.read_text(encoding="utf-8")) if found.exists() else None


def similarity(
    folder: Annotated[Path, typer.Argument(help="A study folder with results.")],
    train: Annotated[
        str | None, typer.Option(help="Labeled rows of your own task: which start should it take?")
    ] = None,
    input: Input = None,
    output: Output = None,
    label: Label = None,
    prompt_steps: Annotated[
        int,
        typer.Option(min=0, help="Steps of tuning a prompt for every task, to compare prompts; 0: do not."),
    ] = 60,
    device: Annotated[str | None, typer.Option(help="Where to compute; by default the GPU.")] = None,
) -> None:
    """How alike a study's tasks are, whether that foretells gains, and whether following it pays.

    \b
    Examples:
      softstart similarity runs/mine
      softstart similarity runs/mine --train mine.csv
    """
    from rich.progress import Progress

    from softstart.analysis.similarity import follow_summary
    from softstart.diagnostics.similarity import similarities

    existing(folder)
    if train:
        return _recommend(folder, train, input, output, label, device)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("tuning prompts", total=None)
        found = similarities(
            folder, device, prompt_steps=prompt_steps,
            progress=lambda n, note="": bar.update(task, advance=n, description="tuning prompts"),
        )  # fmt: skip
    lines = [f"{len(next(iter(found.measures.values())))} tasks; measures: {', '.join(found.measures)}"]
    if prompt_steps and "prompt, matched" not in found.measures:
        lines.append("rows of prompts are not matched: pip install 'softstart[analysis]'")
    if len(found.correlations):
        lines += ["", "Similarity to the sources against gain (rank correlation over targets):"]
        lines.append(found.correlations.round(3).to_string(index=False))
    if len(found.followed):
        lines += ["", "Following the recommendation, each target left out (gain in points):"]
        lines.append(follow_summary(found.followed).round(2).to_string(index=False))
    else:
        lines += ["", "No two settings share targets: there is no start to choose, so nothing to recommend."]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    console.print(str(folder / "similarity.json"), highlight=False, soft_wrap=True)


def _recommend(
    folder: Path, train: str, input: str | None, output: str | None, label: str | None, device: str | None
) -> None:
    from softstart.diagnostics.similarity import recommend
    from softstart.gym.tables import RawData, whole_task

    found = recommend(folder, whole_task(RawData(train, input=input, output=output, label=label)), device)
    nearest = (f"{row.task} {row.similarity:.2f}" for row in found.sources[:5].itertuples())
    lines = [
        f"By {found.measure}, the sources of these settings are most similar to {train}:",
        found.starts.drop(columns="init").round(3).to_string(index=False),
        "",
        f"Nearest sources: {', '.join(nearest)}",
        "",
        f"softstart adapt --init {found.starts['init'].iloc[0]} --train {train}",
    ]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def inspect(
    prompt: Annotated[Path, typer.Argument(help="A prompt file, or a folder in PEFT's format.")],
    before: Annotated[Path | None, typer.Option(help="An earlier prompt, such as its start.")] = None,
    backbone: Annotated[str | None, typer.Option(help="By default the one the prompt names.")] = None,
    nearest: Annotated[int, typer.Option(min=1, help="Vocabulary words a row.")] = 3,
    study: Annotated[
        Path | None, typer.Option(help="A study folder: also measure MAML's inner loop on its sources.")
    ] = None,
) -> None:
    """Norms, nearest vocabulary words and movement of a prompt; with --study what second order adds.

    \b
    Examples:
      softstart inspect start
      softstart inspect tuned --before start --nearest 5
    """
    from softstart.backbone import load_backbone
    from softstart.diagnostics.inspection import prompt_facts

    loaded = _prompt(prompt)
    model = load_backbone(backbone or loaded.backbone)
    tensor = loaded.check_for(model, str(prompt))
    earlier = _prompt(before).check_for(model, str(before)) if before else None
    facts = prompt_facts(model, tensor, earlier, nearest=nearest)
    low, middle, high = facts.vocabulary
    console.print(f"{len(facts.rows)} rows of width {tensor.shape[1]}", highlight=False)
    spread = f"median {middle:.2f}, 90 % within {low:.2f} to {high:.2f}"
    console.print(f"vocabulary norms: {spread}", highlight=False)
    for i, row in enumerate(facts.rows):
        words = "  ".join(f"{word} {score:.2f}" for word, score in row.nearest)
        text = f"{i:4d}  norm {row.norm:8.2f}  {words}"
        if before:
            old = "  ".join(f"{word} {score:.2f}" for word, score in row.before)
            text += f"   moved {row.moved:8.2f} from {old}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    if study:
        _second_order(existing(study), tensor)


def _prompt(path: Path) -> SoftPrompt:
    from softstart.prompt import SoftPrompt

    return SoftPrompt.from_pretrained(path) if path.is_dir() else SoftPrompt.load(path)


def _second_order(folder: Path, theta: Tensor) -> None:
    from softstart.algorithms import MAML
    from softstart.diagnostics.inspection import second_order
    from softstart.study.declare.reading import load_study, variants_of
    from softstart.study.declare.spec import MAIN, resolve_methods
    from softstart.study.plan.inputs import Inputs
    from softstart.study.results.stores import open_store
    from softstart.study.run.resources import Resources
    from softstart.training.episodes import EpisodeSampler, Item
    from softstart.training.meta_training import with_rate
    from softstart.training.starts import draw_start

    declared = load_study(folder / "study.yaml")
    resources = Resources(variants_of(declared))
    model = resources.backbone(MAIN)
    with open_store(folder, readonly=True) as store:
        part = next(p for p in Inputs.from_json(store.inputs()).parts if p.variant == MAIN)
    tasks = [resources.encoded(MAIN, name, source=True) for name in part.source]
    start = draw_start(model, declared.prompt, tasks, declared.meta_seeds[0])
    samples = declared.source_samples or declared.samples
    items = [Item(task.name, task.train[s], task.dev[s]) for task in tasks for s in samples]
    shown = False
    for method in resolve_methods(declared):
        if method.meta is None or method.kind not in ("maml", "fomaml"):
            continue
        a = method.algorithm
        maml = MAML(**{k: getattr(a, k) for k in ("inner_lr", "inner_steps", "support_size", "query_size")})
        maml = cast(MAML, with_rate(maml, method.meta, start))
        sampler = EpisodeSampler(items, maml, method.meta, model.tokenizer.pad_token_id, model.device)
        found = second_order(model, maml, theta.to(model.device), [sampler.draw(step) for step in range(8)])
        shown = True
        console.print(
            f"{method.name}: the inner loop moves the prompt {100 * found.displacement:.3g} % of its norm; "
            f"exact and first-order meta-gradient: cosine {found.cosine:.4f}, lengths {found.ratio:.3g} to 1",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    if not shown:
        console.print("the study has no method with an inner loop on a query set", highlight=False)


def _markdown(outcome: Outcome, path: Path, commands: list[str]) -> None:
    import pandas as pd
    import yaml

    from softstart.report.markdown import write_markdown

    folder = outcome.folder
    write_markdown(
        path,
        yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8")),
        outcome.rows,
        pd.read_csv(folder / "curves.csv"),
        outcome.arg,
        outcome.gains,
        commands=commands,
        environment=outcome.environment,
        notes=outcome.notes,
        costs=outcome.costs,
        protocol=outcome.protocol,
        similarity=_similarity(outcome),
    )


def _called() -> str:
    """The command line as it was called."""
    return shlex.join(["softstart", *sys.argv[1:]])


def show(outcome: Outcome) -> None:
    """Print the comparison and where it lies.

    Raises:
        SoftstartError: there is no result yet, or part of the study failed.
    """
    from softstart.report.console import comparison_table

    if outcome.rows.empty:
        raise SoftstartError(f"no result yet ({'; '.join(outcome.failures) or 'nothing is computed'})")
    console.print(comparison_table(outcome.rows, outcome.arg, console.width))
    for note in outcome.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    for name in ("report.html", "results.csv"):
        console.print(str(outcome.folder / name), highlight=False, soft_wrap=True)
    if outcome.failures:
        raise SoftstartError(
            f"{len(outcome.failures)} part(s) of the study failed: {outcome.failures[0]}",
            fix="Everything else is kept; run again after fixing.",
        )


def existing(folder: Path) -> Path:
    """The folder, if it is one."""
    if not folder.is_dir():
        raise SoftstartError("no such study folder", where=str(folder), fix="Give the --out of a run.")
    return folder
