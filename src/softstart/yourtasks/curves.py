"""Learning curves of ``adapt`` and ``meta-train``: kept as a table and drawn, next to the prompt."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from softstart.analysis.units import points
from softstart.report import figures
from softstart.report.standalone import in_panels
from softstart.report.style import MethodStyles
from softstart.storage.csv_files import csv_text
from softstart.storage.files import atomic

COLUMNS = ["start", "split", "lr", "selected", "step", "dev", "loss"]


@dataclass(frozen=True)
class RunCurve:
    """The curve of one run: its split (a sample of the task), its learning rate, whether dev chose it, and
    its (step, dev score, mean training loss since the last evaluation)."""

    split: int
    lr: float
    selected: bool
    points: tuple[tuple[int, float, float], ...]


def curve_files(out: Path) -> tuple[Path, Path]:
    """Where the table and the figure of a prompt's curves are kept: in its folder, or next to its file."""
    if out.suffix == ".safetensors":
        return out.with_name(f"{out.stem}-curves.csv"), out.with_name(f"{out.stem}-curves.svg")
    return out / "curves.csv", out / "curves.svg"


def keep_curves(out: Path, curves: Mapping[str, Sequence[RunCurve]]) -> None:
    """Write the curves of every run, and draw the means over splits of the runs that dev chose.

    Args:
        out: the prompt's folder or file.
        curves: by start, those of all its runs.

    Raises:
        SoftstartError: a file cannot be written.
    """
    rows = [
        (name, run.split, run.lr, run.selected, *point)
        for name, runs in curves.items()
        for run in runs
        for point in run.points
    ]
    styles = MethodStyles(curves, baseline=next(iter(curves)))
    chosen = {name: [run for run in runs if run.selected] for name, runs in curves.items()}
    dev = {name: [(x, points(y)) for x, y in _mean(runs, 1)] for name, runs in chosen.items()}
    loss = {name: _mean(runs, 2) for name, runs in chosen.items()}
    panels = {
        "dev": figures.lines(dev, styles.numbers, title="Dev score", y_label="dev score, points"),
        "training loss": figures.lines(loss, styles.numbers, title="Loss", y_label="nats per token"),
    }
    figure = in_panels("Learning curves: means over splits, best rates", panels, styles, list(styles))
    _write(out, pd.DataFrame(rows, columns=COLUMNS), figure)


def keep_losses(out: Path, curve: Sequence[Mapping[str, float]]) -> None:
    """Write the losses of a meta-training by step, and draw them.

    Raises:
        SoftstartError: a file cannot be written.
    """
    table = pd.DataFrame(list(curve))
    losses = {
        str(name): list(zip(table["step"].astype(float), table[name].astype(float), strict=True))
        for name in table
        if name not in ("step", "kept")
    }
    if not losses:
        return
    styles = MethodStyles(losses, baseline=next(iter(losses)))
    panel = figures.lines(
        losses, styles.numbers, title="Loss", x_label="outer step", y_label="nats per token"
    )
    _write(out, table, in_panels("Loss of meta-training", {"loss": panel}, styles, list(losses)))


def _mean(runs: Sequence[RunCurve], column: int) -> list[tuple[float, float]]:
    """The mean over runs of a column by step; a run that ended early counts up to there."""
    by_step: defaultdict[int, list[float]] = defaultdict(list)
    for run in runs:
        for point in run.points:
            if math.isfinite(point[column]):
                by_step[point[0]].append(point[column])
    return [(float(step), sum(values) / len(values)) for step, values in sorted(by_step.items())]


def _write(out: Path, table: pd.DataFrame, figure: str) -> None:
    for path, text in zip(curve_files(out), (csv_text(table), figure), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
