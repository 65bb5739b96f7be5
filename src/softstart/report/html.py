"""The report: one HTML file that opens anywhere, without network or assets."""

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

from softstart.analysis import DEFAULT_INTERVAL, largest_budget, with_defaults, with_tests
from softstart.analysis.units import points
from softstart.errors import SoftstartError
from softstart.report import figures, sections, views
from softstart.report.caveats import caveats, question
from softstart.report.standalone import figure_rules
from softstart.report.style import Appearance, MethodStyles, method_rules, page_rules
from softstart.report.tables import comparisons
from softstart.report.verdict import glossary, overall, warnings
from softstart.report.words import in_points
from softstart.storage.files import atomic

_MOST_RUNS = 1500
"""With more runs the page does not list them all in its body, to stay light."""


def write_report(
    path: str | Path,
    study: Mapping[str, Any],
    rows: pd.DataFrame,
    curves: pd.DataFrame,
    arg: pd.DataFrame,
    gains: pd.DataFrame,
    costs: Mapping[str, Any] | pd.DataFrame,
    *,
    footing: pd.DataFrame | None = None,
    baseline: str = "pt",
    meta_curves: pd.DataFrame | None = None,
    environment: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    similarity: Mapping[str, Any] | None = None,
    protocol: Sequence[Mapping[str, str]] = (),
    appearance: Mapping[str, Appearance] | None = None,
    interval: str = DEFAULT_INTERVAL,
) -> None:
    """Write the self-contained HTML report of a study, atomically.

    Args:
        path: the file to write; links to the raw numbers assume ``results.csv`` in the same folder.
        study: the resolved study, of plain types; shown as YAML. ``name`` becomes the title.
        rows: one row per selected run (see ``softstart.analysis.arg``); ``run`` is its key.
        curves: dev scores of adaptation: ``method``, ``task``, ``step``, ``dev``, the columns that name a
            run, and ``selected`` where not every run was; may be empty.
        arg: ``softstart.analysis.arg_table`` of ``softstart.analysis.largest_budget(rows)``.
        gains: ``softstart.analysis.relative_gains`` of the same.
        costs: one row per method or stage (a mapping of mappings is turned into one). Columns that end in
            ``seconds`` are shown as durations, whole numbers with separators; others as they are.
        footing: what each method may use and what it takes, one row each (see ``study.results.frames``).
        baseline: the method gains are relative to.
        meta_curves: loss of meta-training: ``method``, ``step``, ``loss``, and ``seed`` where several.
        environment: versions, machine, date: what one needs to run it again.
        notes: what one has to know before all else, such as what is missing, one sentence each.
        similarity: what ``softstart similarity`` wrote (``similarity.json``).
        protocol: ``what``, ``published`` and ``here`` of every value of the published protocol.
        appearance: label and color of methods by name; by default those of known methods
            (``softstart.report.style.DEFAULTS``).
        interval: how ``arg`` got its intervals, a name in ``softstart.analysis.INTERVALS``; the other
            intervals of the page are made in the same way.

    Raises:
        SoftstartError: if there is no row yet, a column is missing or the file cannot be written.
    """
    every = with_defaults(rows)
    rows = largest_budget(every)
    if rows.empty:
        raise SoftstartError("there is no result to report yet", fix="Run the study first.")
    styles = MethodStyles(rows["method"], appearance, baseline)
    page = _template().render(
        title=str(study.get("name", "Study")),
        css=Markup(_style_sheet(styles)),
        numbers={method: style.number for method, style in styles.items()},
        keys={method: Markup(figures.marker(style.number)) for method, style in styles.items()},
        label=styles.label,
        others=styles.others,
        baseline=styles.baseline_label,
        **_results(every, curves, arg, gains, styles, interval),
        tiles=views.tiles(rows, costs),
        similarity=sections.similarity(similarity, styles),
        departures=sections.departures(protocol),
        meta_curve=views.meta_curve(meta_curves, styles),
        costs=views.cost_table(costs, styles),
        footing=sections.footing(footing, styles),
        notes=notes,
        study=yaml.safe_dump(dict(study), sort_keys=False, allow_unicode=True),
        environment=environment or {},
    )
    with atomic(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _results(
    every: pd.DataFrame,
    curves: pd.DataFrame,
    arg: pd.DataFrame,
    gains: pd.DataFrame,
    styles: MethodStyles,
    interval: str,
) -> dict[str, Any]:
    """What the page shows of the results, from the rows of every budget."""
    rows = largest_budget(every)
    judged = styles.baseline in set(rows["method"])
    tested = with_tests(rows, arg, styles.baseline) if judged else arg
    groups = list(comparisons(rows, tested, styles, gains))
    doubts = views.doubts(rows, gains, styles.baseline, interval)
    return {
        "question": question(rows, styles),
        "overall": overall(groups, styles),
        "glossary": glossary(rows, styles),
        "warnings": [text for group in groups for text in warnings(group, styles)],
        "groups": [
            {"finding": views.finding(group, styles, rows["seed"].nunique())}
            | views.comparison(group, styles, doubts)
            for group in groups
        ],
        "matrix": views.matrix(groups, styles.others),
        "budgets": sections.budgets(every, styles, interval) if judged else None,
        "speed": sections.speed(rows, curves, styles, interval) if judged else None,
        "calibration": sections.calibration(rows, styles, interval),
        "agreement": sections.published(gains, styles) if judged else None,
        "ablations": sections.ablations(arg, styles) if judged else [],
        "curves": list(views.learning_curves(rows, curves, styles)),
        "caveats": caveats(rows, groups, styles, interval),
        "runs": views.runs(rows, styles) if len(rows) <= _MOST_RUNS else [],
        "n_runs": len(rows),
        "runs_by_cell": sections.runs_by_cell(rows, styles),
    }


def _style_sheet(styles: MethodStyles) -> str:
    """The rules of the page: its colors, its layout, its figures, its methods and the check boxes."""
    boxes = "\n".join(
        f"body:has(#show-{i}:not(:checked)) main :is(.s{i}, .m{i}) {{ display: none; }}"
        for i in range(len(styles))
    )
    return "\n".join([page_rules(), _read("report.css"), figure_rules(), method_rules(styles), boxes])


@cache
def _read(name: str) -> str:
    return (resources.files("softstart.report") / name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("softstart.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(in_points=in_points, points=points)
    return environment.get_template("report.html.j2", globals={"js": Markup(_read("report.js"))})
