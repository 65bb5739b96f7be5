"""What ``softstart report`` writes under ``report/``: the comparison as Markdown, tables, figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from softstart.report.files import write_files
from softstart.report.markdown import write_markdown
from softstart.storage.csv_files import read_csv
from softstart.study.results.folder import CURVES, REPORT_FILES, STUDY_FILE
from softstart.study.results.outcome import BASELINE, Outcome


def comparable(outcome: Outcome) -> bool:
    """Whether there are results of the baseline to compare the others with."""
    return BASELINE in set(outcome.rows.get("method", ()))


def write_report_files(
    outcome: Outcome, commands: Sequence[str], *, markdown: Path | None = None, raster: bool = False
) -> None:
    """Write the comparison of a study as Markdown, and its tables and figures as files of their own.

    Args:
        outcome: a study with results of the baseline.
        commands: what made the results and the report, for the Markdown file.
        markdown: a further place for the Markdown file.
        raster: also draw figures as PNG and PDF.

    Raises:
        SoftstartError: matplotlib is not installed.
    """
    folder = outcome.folder
    curves = read_csv(folder / CURVES)
    study = yaml.safe_load((folder / STUDY_FILE).read_text(encoding="utf-8"))
    for path in (folder / REPORT_FILES / "report.md", *([markdown] if markdown else [])):
        write_markdown(
            path,
            study,
            outcome.rows,
            curves,
            outcome.arg,
            outcome.gains,
            commands=commands,
            environment=outcome.environment,
            notes=outcome.notes,
            costs=outcome.costs,
            footing=outcome.footing,
            protocol=outcome.protocol,
            similarity=outcome.similarity,
            appearance=outcome.appearance,
            interval=outcome.interval,
        )
    write_files(
        folder / REPORT_FILES,
        outcome.rows,
        outcome.arg,
        outcome.gains,
        curves=curves,
        costs=outcome.costs,
        footing=outcome.footing,
        similarity=outcome.similarity,
        raster=raster,
        appearance=outcome.appearance,
        interval=outcome.interval,
        study=str(study.get("name", "")),
    )
