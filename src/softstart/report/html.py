"""The report: one HTML file that opens anywhere, without network, script or assets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from softstart.analysis import with_defaults
from softstart.errors import SoftstartError
from softstart.files import atomic
from softstart.report import figures, views
from softstart.report.caveats import caveats, headline
from softstart.report.tables import comparisons, in_order, label, points

# Okabe and Ito's color-blind-safe palette, darkened or lightened for contrast: (on light, on dark).
_COLORS = {
    "pt": ("#6b7280", "#9aa3b2"),
    "ft": ("#b8588f", "#e59cc6"),
    "multitask": ("#d18f00", "#f2b134"),
    "maml": ("#0072b2", "#56b4e9"),
    "fomaml": ("#00896b", "#35c79c"),
    "reptile": ("#d55e00", "#ff8f4a"),
}
_SPARE = (("#7570b3", "#a9a5e0"), ("#8a6d3b", "#c9a66b"), ("#2b8cbe", "#8ccbe8"), ("#a50f15", "#f0888c"))
_MOST_RUNS = 3000
"""With more runs the page names results.csv in place of listing them, to stay light."""


def write_report(
    path: str | Path,
    study: Mapping[str, Any],
    rows: pd.DataFrame,
    curves: pd.DataFrame,
    arg: pd.DataFrame,
    gains: pd.DataFrame,
    costs: Mapping[str, Any] | pd.DataFrame,
    *,
    baseline: str = "pt",
    meta_curves: pd.DataFrame | None = None,
    environment: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write the self-contained HTML report of a study, atomically.

    Args:
        path: the file to write; links to the raw numbers assume ``results.csv`` in the same folder.
        study: the resolved study, of plain types; shown as YAML. ``name`` becomes the title.
        rows: one row per selected run (see ``softstart.analysis.arg``); ``run`` is its key.
        curves: dev scores of adaptation: ``method``, ``task``, ``step``, ``dev``, the columns that name a
            run, and ``selected`` where not every run was; may be empty.
        arg: ``softstart.analysis.arg_table(rows)``.
        gains: ``softstart.analysis.relative_gains(rows)``.
        costs: one row per method or stage (a mapping of mappings is turned into one). Columns that end in
            ``seconds`` are shown as durations, whole numbers with separators; others as they are.
        baseline: the method gains are relative to.
        meta_curves: loss of meta-training: ``method``, ``step``, ``loss``, and ``seed`` where several.
        environment: versions, machine, date: what one needs to run it again.
        notes: further caveats, one sentence each.

    Raises:
        SoftstartError: if there is no row yet, a column is missing or the file cannot be written.
    """
    rows = with_defaults(rows)
    if rows.empty:
        raise SoftstartError("there is no result to report yet", mend="Run the study first.")
    series = {method: i for i, method in enumerate(in_order([*rows["method"], baseline]))}
    groups = list(comparisons(rows, arg, gains))
    page = _template().render(
        title=str(study.get("name", "Study")),
        tiles=views.tiles(rows, costs),
        colors=[_color(method, i) for method, i in series.items()],
        keys={method: Markup(figures.marker(i)) for method, i in series.items()},
        groups=[
            {"headline": headline(group, baseline), **views.comparison(group, series, baseline)}
            for group in groups
        ],
        curves=list(views.learning_curves(rows, curves, series)),
        meta_curve=views.meta_curve(meta_curves, series),
        costs=views.cost_table(costs),
        caveats=[*caveats(rows, groups, baseline), *notes],
        study=yaml.safe_dump(dict(study), sort_keys=False, allow_unicode=True),
        environment=environment or {},
        runs=views.runs(rows) if len(rows) <= _MOST_RUNS else [],
        n_runs=len(rows),
        baseline=baseline,
    )
    with atomic(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("softstart.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(points=points, label=label)
    style = (resources.files("softstart.report") / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2", globals={"css": Markup(style)})


def _color(method: str, i: int) -> tuple[int, str, str]:
    light, dark = _COLORS.get("multitask" if method == "multi" else method, _SPARE[i % len(_SPARE)])
    return i, light, dark
