"""``softstart arg`` and ``similarity``: what results, tasks and prompts say."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softstart.cli.opening import existing, table
from softstart.cli.options import (
    Device,
    Input,
    Interval,
    Label,
    LabelWords,
    NoHeader,
    Output,
)
from softstart.cli.terminal import progress_bar, say, say_data, warn_all
from softstart.errors import SoftstartError
from softstart.storage.csv_files import csv_text, read_csv

if TYPE_CHECKING:
    import pandas as pd

    from softstart.diagnostics.task_similarity import Recommendation, Similarities


class Shown(StrEnum):
    """How gains are shown."""

    table = "table"
    csv = "csv"


def arg(
    results: Annotated[list[Path], typer.Argument(help="One or more results.csv.")],
    baseline: Annotated[str, typer.Option(help="Gains are relative to this method.")] = "pt",
    format: Annotated[Shown, typer.Option(help="How to print it.")] = Shown.table,
    interval: Interval = None,
    mixed: Annotated[bool, typer.Option("--mixed", help="Accept results of different protocols.")] = False,
) -> None:
    """Compute average relative gains from results. Every method gets an interval and paired tests.

    \b
    Examples:
      softstart arg runs/mine/results.csv
      softstart arg a.csv b.csv --baseline multitask --format csv
    """
    from softstart.analysis import DEFAULT_INTERVAL, arg_table, refuse_mixed, with_tests

    rows = read_results(results)
    if not mixed:
        refuse_mixed(rows, baseline)
    table = with_tests(rows, arg_table(rows, baseline, interval=interval or DEFAULT_INTERVAL), baseline)
    if format is Shown.csv:
        say_data(csv_text(table))
    else:
        say(table.to_string(index=False))


def read_results(paths: list[Path]) -> pd.DataFrame:
    """The rows of several result tables.

    Raises:
        SoftstartError: one cannot be read, or holds test scores that are no fractions.
    """
    import pandas as pd

    from softstart.analysis import check_scores

    tables = []
    for path in paths:
        tables.append(read_csv(path))
        check_scores(tables[-1], str(path))
    return pd.concat(tables, ignore_index=True)


def similarity(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY | PROMPT...",
            help="A study folder; or prompts to compare: files, folders, FILE#NAME, files of several.",
        ),
    ],
    train: Annotated[
        str | None, typer.Option(help="Labeled rows of your own task: which start should it take?")
    ] = None,
    input: Input = None,
    output: Output = None,
    label: Label = None,
    labels: LabelWords = None,
    no_header: NoHeader = False,
    prompt_steps: Annotated[
        int,
        typer.Option(min=0, help="Steps of tuning a prompt for every task, to compare prompts; 0: none."),
    ] = 60,
    device: Device = None,
) -> None:
    """Measure how similar a study's tasks are. Does that predict gains, and does following it pay?

    Of stored prompts in place of a study: the cosine of each with the one most like it.

    \b
    Examples:
      softstart similarity runs/mine
      softstart similarity runs/mine --train mine.csv
      softstart similarity tuned-a tuned-b prompts.safetensors#best
    """
    from softstart.diagnostics.task_similarity import recommend, similarities
    from softstart.gym.tables import whole_task
    from softstart.study.results.folder import SIMILARITY

    if _are_prompts(paths):
        _compare_prompts(paths, train)
        return
    folder = existing(Path(paths[0]))
    if train:
        task = whole_task(table(train, input, output, label, labels, no_header))
        warn_all(task.notes)
        with progress_bar("measuring gradients"):
            advice = recommend(folder, task, device)
        _show_recommendation(advice, train)
        return
    with progress_bar("tuning prompts") as progress:
        result = similarities(folder, device, prompt_steps=prompt_steps, progress=progress)
    if prompt_steps and "prompt, matched" not in result.measures:
        say("rows of prompts are not matched: pip install 'softstart[analysis]'")
    _show_similarities(result)
    say(str(folder / SIMILARITY))


def _are_prompts(paths: list[str]) -> bool:
    from softstart.prompt.formats import OF, SUFFIXES, WEIGHTS_FILE, is_prompt_folder

    first = Path(paths[0])
    of_prompts = is_prompt_folder(first) or (first / WEIGHTS_FILE).exists()
    return len(paths) > 1 or of_prompts or first.suffix in SUFFIXES or OF in paths[0]


def _compare_prompts(sources: list[str], train: str | None) -> None:
    from softstart.diagnostics.prompt_similarity import compare_prompts, nearest_prompts

    if train:
        raise SoftstartError(
            "stored prompts recommend no start",
            where="--train",
            fix="Give a study folder, or leave --train out.",
        )
    with progress_bar("comparing prompts"):
        similar = compare_prompts(sources)
    if "matched" not in similar:
        say("rows of prompts are not matched: pip install 'softstart[analysis]'")
    say("The prompt most like each, and their cosines:")
    say(nearest_prompts(similar).round(3).to_string(index=False))


def _show_similarities(result: Similarities) -> None:
    from softstart.analysis.similarity import follow_summary, small_p_values

    say(f"{len(next(iter(result.measures.values())))} tasks; measures: {', '.join(result.measures)}")
    if len(result.correlations):
        say("\nSimilarity to the sources against gain (rank correlation over targets):")
        say(result.correlations.round(3).to_string(index=False))
        small, able, expected = small_p_values(result.correlations)
        of = len(result.correlations)
        say(f"p < .05: {small} of {of}; by chance {expected:.1f} of the {able} that can get there")
    if len(result.followed):
        say("\nFollowing the recommendation, each target left out (gain in points):")
        say(follow_summary(result.followed).round(2).to_string(index=False))
    else:
        say("\nNo two settings share targets: there is no start to choose, so nothing to recommend.")


def _show_recommendation(advice: Recommendation, train: str) -> None:
    say(f"By {advice.measure}, the sources of these settings are most similar to {train}:")
    say(advice.starts.drop(columns="init").round(3).to_string(index=False))
    nearest = (f"{row.task} {row.similarity:.2f}" for row in advice.sources[:5].itertuples())
    say(f"\nNearest sources: {', '.join(nearest)}\n")
    say(f"softstart adapt --init {advice.starts['init'].iloc[0]} --train {train}")
