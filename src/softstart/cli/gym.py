"""``softstart gym``: list, show, build, sample and verify few-shot tasks."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softstart.cli.listing import ListingCommand
from softstart.cli.many_values import ManyValues
from softstart.cli.options import (
    AllowShort,
    AsPublished,
    Catalog,
    Force,
    GymOut,
    Input,
    Json,
    LabelWords,
    NoHeader,
    Output,
    Seeds,
    Shots,
)
from softstart.cli.resuming import resumable
from softstart.cli.terminal import errors, new_table, progress_bar, say, say_json, show_table, warn

if TYPE_CHECKING:
    from softstart.gym.build import Report

gym_app = typer.Typer(no_args_is_help=True, help="Few-shot tasks: list, show, build, sample, verify.")


@gym_app.command(name="list", cls=ListingCommand)
def list_tasks(
    category: Annotated[str | None, typer.Option(help="Part of the ontology, such as nli.")] = None,
    metric: Annotated[str | None, typer.Option(help="Tasks scored by this metric.")] = None,
    setting: Annotated[str | None, typer.Option(help="Tasks of a setting: its name, or a YAML file.")] = None,
    available: Annotated[
        str | None, typer.Option(help="Tasks whose data comes from one of: <availability>.")
    ] = None,
    gym: Annotated[str | None, typer.Option(help="List a gym: mini, a folder, a file.")] = None,
    catalog: Catalog = None,
    as_json: Json = False,
) -> None:
    """List tasks. Of the mini gym also what each is for, or why it is not used, and its levels in %.

    \b
    Examples:
      softstart gym list --category nli
      softstart gym list --gym mini
    """
    from softstart.gym.listing import LEVELS, list_facts

    facts = list_facts(category, metric, setting, available, gym, catalog)
    if as_json:
        say_json(facts)
        return
    mini = bool(facts) and all("role" in row for row in facts)
    last = ("role", *LEVELS) if mini else ("kind", "available", "sources / targets of")
    table = new_table("task", "category", "metric", "k", *last)
    for row in facts:
        shown = [row[key] for key in ("name", "category", "metric", "shots")]
        if mini:
            shown += [row["role"], *("-" if row[key] is None else f"{100 * row[key]:.1f}" for key in LEVELS)]
        else:
            shown += [row["kind"], row["available"], f"{len(row['source_in'])} / {len(row['target_in'])}"]
        table.add_row(*map(str, shown))
    show_table(table)
    say(f"{len(facts)} tasks")


@gym_app.command(cls=ListingCommand)
def show(
    task: Annotated[str, typer.Argument(help="A task's name.")],
    gym: Annotated[str | None, typer.Option(help="Show an example from this gym.")] = None,
    as_published: AsPublished = False,
    catalog: Catalog = None,
    as_json: Json = False,
) -> None:
    """Show where a task comes from and what it looks like. Also the settings that use it.

    \b
    Examples:
      softstart gym show ag_news
      softstart gym show claim_city --gym mini
    """
    from softstart.gym.listing import show_facts

    with _warnings_as_lines():
        facts = show_facts(task, gym, catalog, as_published=as_published)
    if as_json:
        say_json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        if shown not in (None, "", {}):
            text = json.dumps(shown, ensure_ascii=False) if isinstance(shown, dict) else str(shown)
            say(f"{name:{width}}  {text}")


@gym_app.command(cls=ManyValues)
def build(
    tasks: Annotated[list[str] | None, typer.Argument(help="Names of tasks.")] = None,
    out: GymOut = Path("gym"),
    setting: Annotated[str | None, typer.Option(help="All tasks of a setting.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All tasks of the catalog.")] = False,
    source: Annotated[
        Path | None,
        typer.Option(
            help="Rows to use instead of the hub's: DIR/SPLIT.parquet, or DIR/TASK/SPLIT.parquet; or .jsonl."
        ),
    ] = None,
    catalog: Catalog = None,
    seeds: Seeds = None,
    shots: Shots = None,
    version: Annotated[str, typer.Option(help="v2 (April 2022), or v1 (April 2021).")] = "v2",
    jobs: Annotated[int, typer.Option(help="Tasks built at the same time.")] = 2,
    timeout: Annotated[float, typer.Option(help="Seconds after which building a task is given up.")] = 3600,
    force: Force = False,
    allow_short: AllowShort = False,
    as_json: Json = False,
) -> None:
    """Build tasks in CrossFit's format. Rows come from the hub or from files; safe to kill and repeat.

    \b
    Examples:
      softstart gym build ag_news emo --out gym
      softstart gym build --setting qa2qa --out gym
      softstart gym build ag_news --source rows/ --out gym
    """
    from softstart.gym.jobs import build_tasks, choose, jobs_for

    with _warnings_as_lines():
        entries = choose(tasks or [], setting, everything, catalog)
    work, absent = jobs_for(
        entries, out, source, asked=not everything, seeds=seeds, k=shots, version=version, force=force,
        allow_short=allow_short,
    )  # fmt: skip
    reports: list[Report] = []
    resumable(lambda: any(report.status != "failed" for report in reports))
    for report in build_tasks(work, jobs, timeout):
        reports.append(report)
        if not as_json:
            say(f"[{len(reports)}/{len(work)}] {report.task}: {report.status}{' (kept)' * report.kept}")
    reports.sort(key=lambda report: report.task)
    if as_json:
        say_json([asdict(report) for report in reports])
    else:
        _report(reports)
        if absent:
            say(f"{len(absent)} other tasks have no rows in {source}")
    if any(report.status == "failed" for report in reports):
        raise typer.Exit(1)


@gym_app.command(cls=ManyValues)
def sample(
    data: Annotated[str, typer.Argument(help="CSV, TSV, JSONL or parquet; or hf:DATASET on the hub.")],
    out: GymOut = Path("gym"),
    name: Annotated[str | None, typer.Option(help="Name of the task; by default the file's.")] = None,
    input: Input = None,
    output: Output = None,
    label: Annotated[str | None, typer.Option(help="Column to balance: k rows of each value.")] = None,
    labels: LabelWords = None,
    no_header: NoHeader = False,
    kind: Annotated[str | None, typer.Option(help="classification or text2text.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="One of: <metrics>; by default Classification-F1 or EM.")
    ] = None,
    category: Annotated[str, typer.Option(help="Path in the ontology.")] = "own",
    test: Annotated[str | None, typer.Option(help="File (hub: split) of test rows; else a fifth.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a hub dataset.")] = None,
    split: Annotated[str, typer.Option(help="Split of a hub dataset to sample from.")] = "train",
    delimiter: Annotated[str | None, typer.Option(help="Delimiter of a CSV file.")] = None,
    seeds: Seeds = None,
    shots: Shots = None,
    force: Force = False,
    allow_short: AllowShort = False,
) -> None:
    """Make a few-shot task from your own rows. They are sampled as CrossFit does.

    \b
    Examples:
      softstart gym sample reviews.csv --shots 16 --out gym
      softstart gym sample mail.jsonl --input '{subject}: {body}' --label folder --out gym
    """
    from softstart.gym.build import Job, build_task
    from softstart.gym.sampling import SEEDS
    from softstart.gym.tables import RawData, described, label_words
    from softstart.gym.task import check_kind

    raw = RawData(
        data, name, input, output, label, label_words(labels or []), check_kind(kind) if kind else None,
        metric, category, test, config=config, split=split, delimiter=delimiter,
        header=False if no_header else None,
    )  # fmt: skip
    with progress_bar("sampling"):
        entry, odd = described(raw)
        job = Job(
            entry,
            out,
            shipped=False,
            seeds=tuple(seeds or SEEDS),
            k=shots,
            force=force,
            allow_short=allow_short,
        )
        report = build_task(job)
    for note in (*odd, *report.notes):
        warn(note)
    say(
        f"{entry.name}: {entry.kind}, {entry.metric}, k = {shots or entry.shots}, in {out / entry.name}"
        f"{' (kept: nothing changed)' * report.kept}"
    )


@gym_app.command(cls=ListingCommand)
def verify(
    folder: Annotated[Path, typer.Argument(help="A folder of tasks in CrossFit's format.")],
    as_published: AsPublished = False,
    as_json: Json = False,
) -> None:
    """Check a folder of tasks, whoever made it. Reports checksums, broken rows and leaks into the test set.

    \b
    Examples:
      softstart gym verify gym
      softstart gym verify gym --as-published
    """
    from softstart.gym.verify import verify as check

    with progress_bar("checking"):
        checks = list(check(folder, as_published=as_published))
    if as_json:
        say_json([asdict(checked) for checked in checks])
    else:
        table = new_table("task", "files", "readable", "notes")
        for c in checks:
            files = f"{c.verdict} ({len(c.differs)} differ)" if c.differs else c.verdict
            files += f" ({len(c.missing)} missing)" if c.missing else ""
            table.add_row(c.task, files, "no" if c.problem else "yes", "; ".join(c.notes))
        show_table(table)
        for c in checks:
            for what, text in (("differs", ", ".join(c.differs)), ("broken", c.problem)):
                if text:
                    say(f"{c.task} {what}: {text}")
        counts = {v: sum(c.verdict == v for c in checks) for v in dict.fromkeys(c.verdict for c in checks)}
        say(", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
    if any(c.differs or c.problem for c in checks):
        raise typer.Exit(1)


@gym_app.command(cls=ListingCommand)
def settings(
    name: Annotated[str | None, typer.Argument(help="A setting's name, or a YAML file of your own.")] = None,
    gym: Annotated[str | None, typer.Option(help="Compare the rows of this gym's tasks, too.")] = None,
    as_json: Json = False,
) -> None:
    """List settings, or show one. Of one: its tasks, and what its two sides have in common.

    \b
    Examples:
      softstart gym settings
      softstart gym settings qa2qa
    """
    from softstart.gym.listing import all_settings, setting_facts

    if name is None:
        rows = all_settings()
        if as_json:
            say_json(rows)
            return
        table = new_table("setting", "source", "target", "shared data")
        for row in rows:
            table.add_row(*map(str, row.values()))
        show_table(table)
        return
    facts = setting_facts(name, gym)
    if as_json:
        say_json(facts)
        return
    for side in ("source", "target", "dev"):
        if facts[side]:
            say(f"{side} ({len(facts[side])}): {', '.join(facts[side])}")
    for pair in facts["overlaps"]:
        warn(f"source {pair['source']} and target {pair['target']} share {pair['degree']}: {pair['why']}")


def _report(reports: Sequence[Report]) -> None:
    table = new_table("task", "status", "notes")
    for report in reports:
        kept = " (kept)" if report.kept else ""
        table.add_row(report.task, report.status + kept, "; ".join(report.notes))
    show_table(table)
    for report in reports:
        if report.differs:
            say(f"{report.task} differs: {', '.join(report.differs)}")
        if report.problem:
            errors().print(f"{report.task} failed: {report.problem}", soft_wrap=True)
    counts = {s: sum(r.status == s for r in reports) for s in ("exact", "differs", "built", "failed")}
    say(", ".join(f"{n} {status}" for status, n in counts.items() if n) or "nothing to build")


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        warn(str(warning.message))
