"""What ``softstart report`` writes under ``report/``: the comparison as Markdown, tables, figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from softstart.report.files import write_files
from softstart.report.markdown import write_markdown
from softstart.study.results.folder import CURVES, REPORT_FILES, SIMILARITY, STUDY_FILE
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
        SoftstartError: ``similarity.json`` is damaged, or matplotlib is not installed.
    """
    folder = outcome.folder
    curves, similarity = pd.read_csv(folder / CURVES), read_similarity(folder)
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
            protocol=outcome.protocol,
            similarity=similarity,
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
        similarity=similarity,
        raster=raster,
        appearance=outcome.appearance,
        interval=outcome.interval,
    )


def read_similarity(folder: Path) -> Any:
    """What ``softstart similarity`` wrote into a study folder; None if it was not called."""
    path = folder / SIMILARITY
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
