"""Tables and figures as files of their own, for papers and slides: CSV, LaTeX, SVG, and PNG and PDF."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from softstart.analysis import (
    CELL,
    DEFAULT_INTERVAL,
    best_of_tasks,
    calibration_table,
    compare_methods,
    influence,
    largest_budget,
    speed_table,
    with_defaults,
)
from softstart.analysis.reference import agreement
from softstart.errors import SoftstartError
from softstart.report import latex, sections, views
from softstart.report.standalone import alone, in_panels
from softstart.report.style import Appearance, MethodStyles
from softstart.report.tables import GROUP, Comparison, comparisons
from softstart.storage.csv_files import csv_text
from softstart.storage.files import atomic


def write_files(
    folder: Path,
    rows: pd.DataFrame,
    arg: pd.DataFrame,
    gains: pd.DataFrame,
    *,
    baseline: str = "pt",
    curves: pd.DataFrame | None = None,
    costs: pd.DataFrame | None = None,
    footing: pd.DataFrame | None = None,
    similarity: Mapping[str, Any] | None = None,
    raster: bool = False,
    appearance: Mapping[str, Appearance] | None = None,
    interval: str = DEFAULT_INTERVAL,
    study: str = "",
) -> list[Path]:
    """Write the tables as CSV, those for a paper as LaTeX too, and every figure as SVG.

    ``scores.tex`` has a whole table a group, with caption and label. ``colors.tex`` defines the colors of the
    methods for figures drawn with LaTeX.

    Args:
        folder: where to write; created if missing.
        rows: one row per selected run (see ``softstart.analysis.arg``).
        arg: ``softstart.analysis.arg_table`` of ``softstart.analysis.largest_budget(rows)``.
        gains: ``softstart.analysis.relative_gains`` of the same.
        baseline: the method gains are relative to.
        curves: dev scores by step (see ``softstart.report.write_report``); without, no curves and no speed.
        costs: one row per method; without, no costs.
        footing: what each method may use and takes (see ``softstart.report.write_report``); without, none.
        similarity: what ``softstart similarity`` wrote.
        raster: also draw ARG and gains as PNG and PDF; needs matplotlib.
        appearance: label and color of methods by name (see ``softstart.report.write_report``).
        interval: how ``arg`` got its intervals (see ``softstart.report.write_report``).
        study: its name, the first part of labels in LaTeX.

    Returns:
        The files written.

    Raises:
        SoftstartError: there is nothing to compare, matplotlib is missing, or a file cannot be written.
    """
    top = largest_budget(with_defaults(rows))
    styles = MethodStyles(top["method"], appearance, baseline)
    if top.empty or baseline not in set(top["method"]):
        raise SoftstartError(f"there is no result of {styles.baseline_label} to compare with yet")
    if raster:
        _matplotlib()
    compared = compare_methods(top, baseline)
    tests = compared.loc[compared["other"] == baseline, [*CELL, "p", "p_holm"]]
    groups = list(comparisons(top, arg, styles, gains))
    texts = {
        "arg.csv": csv_text(arg.merge(tests, on=CELL, how="left")),
        "gains.csv": csv_text(gains),
        "methods.csv": csv_text(compared),
        "arg.tex": latex.arg_table(groups, styles),
        "scores.tex": _scores_latex(groups, top, styles, study),
        "methods.tex": latex.pairs_table(groups, styles),
        "colors.tex": _colors_latex(styles),
        **dict(_tables(top, gains, styles, interval, curves, costs, similarity)),
        **dict(_judged(top, styles, interval, footing)),
        **dict(_figures(groups, top, arg, gains, styles, interval, curves, similarity)),
    }
    for name, text in texts.items():
        with atomic(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [folder / name for name in texts] + (_raster(folder, groups, styles) if raster else [])


def _figures(
    groups: Sequence[Comparison],
    rows: pd.DataFrame,
    arg: pd.DataFrame,
    gains: pd.DataFrame,
    styles: MethodStyles,
    interval: str,
    curves: pd.DataFrame | None,
    similarity: Mapping[str, Any] | None,
) -> Iterator[tuple[str, str]]:
    baseline, doubts = styles.baseline_label, views.doubts(rows, gains, styles.baseline, interval)
    for n, group in enumerate(groups, 1):
        shown = views.comparison(group, styles, doubts)
        if not shown["judged"]:
            continue
        title = f"gain over {baseline}, {group.name}"
        yield f"arg-{n}.svg", alone(f"Average relative {title}", shown["bars"][0], styles, shown["judged"])
        yield f"gains-{n}.svg", alone(f"Relative {title}, by task", shown["dots"][0], styles, shown["judged"])
    for n, (name, figure, _) in enumerate(sections.ablations(arg, styles), 1):
        title = f"Gain over {baseline} by variant, {name}"
        yield f"ablations-{n}.svg", alone(title, figure[0], styles, styles.others)
    if part := sections.similarity(similarity, styles):
        yield "similarity.svg", alone("How similar the tasks are", part["figure"][0], styles, [])
        if part["panels"]:
            title = "Gain in points against similarity to the sources"
            yield "similarity-gain.svg", in_panels(title, dict(part["panels"]), styles, styles.others)
    drawn = views.learning_curves(rows, pd.DataFrame() if curves is None else curves, styles)
    for n, (name, panels, _) in enumerate(drawn, 1):
        title = f"Dev score while adapting, {name}"
        yield f"curves-{n}.svg", in_panels(title, dict(panels), styles, list(styles))


def _tables(
    rows: pd.DataFrame,
    gains: pd.DataFrame,
    styles: MethodStyles,
    interval: str,
    curves: pd.DataFrame | None,
    costs: pd.DataFrame | None,
    similarity: Mapping[str, Any] | None,
) -> Iterator[tuple[str, str]]:
    """The other tables that there are, each under its file's name."""
    yield "influence.csv", csv_text(influence(gains))
    if curves is not None and len(curves):
        yield "speed.csv", csv_text(speed_table(rows, curves, styles.baseline, interval=interval))
        if speed := sections.speed(rows, curves, styles, interval):
            yield "speed.tex", latex.tabular(*speed)
    if costs is not None and len(costs):
        header, body = views.cost_table(costs, styles)
        yield "costs.csv", csv_text(costs)
        yield "costs.tex", latex.tabular(header, [[text for text, _ in row] for row in body])
    if published := sections.published(gains, styles):
        yield "published.csv", csv_text(agreement(gains, styles.baseline))
        yield "published.tex", latex.tabular(*published[0])
    for name in ("correlations", "points", "followed"):
        if values := (similarity or {}).get(name):
            yield f"similarity-{name}.csv", csv_text(pd.DataFrame(values))


def _judged(
    rows: pd.DataFrame, styles: MethodStyles, interval: str, footing: pd.DataFrame | None
) -> Iterator[tuple[str, str]]:
    """How far probabilities hold, and what each method may use, each under its file's name."""
    if part := sections.calibration(rows, styles, interval):
        yield "calibration.csv", csv_text(calibration_table(rows, interval=interval))
        yield "calibration.tex", latex.tabular(*part[0])
    if footing is not None and (part := sections.footing(footing, styles)):
        yield "footing.csv", csv_text(footing)
        yield "footing.tex", latex.tabular(*part[0])


def _scores_latex(groups: Sequence[Comparison], rows: pd.DataFrame, styles: MethodStyles, study: str) -> str:
    """The table of scores of every group."""
    best = best_of_tasks(rows)
    seeds = int(rows["seed"].nunique())
    tables = []
    for group in groups:
        of_group = best[(best[GROUP] == list(group.key)).all(axis=1)]
        bold = {str(r["task"]): (str(r["method"]), float(r["p"])) for r in of_group.to_dict("records")}
        tables.append(latex.scores_table(group, styles, bold, seeds, study))
    return "\n".join(tables)


def _colors_latex(styles: MethodStyles) -> str:
    """The colors of the methods on white, needs the package xcolor."""
    lines = ["% \\usepackage{xcolor}"]
    for method, style in styles.items():
        name = "-".join(["method", str(style.number), *re.findall(r"[A-Za-z0-9]+", method)])
        comment = " ".join(style.label.split())
        lines.append(f"\\definecolor{{{name}}}{{HTML}}{{{style.color.light[1:].upper()}}}  % {comment}")
    return "\n".join([*lines, ""])


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError as problem:
        raise SoftstartError(
            "PNG and PDF figures need matplotlib", fix="pip install 'softstart[figures]'"
        ) from problem
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _raster(folder: Path, groups: Sequence[Comparison], styles: MethodStyles) -> list[Path]:
    """ARG with intervals and the gain on every task, a figure a group."""
    pyplot, written = _matplotlib(), []
    for n, group in enumerate(groups, 1):
        methods = [m for m in group.methods if m != styles.baseline and m in group.arg]
        if not methods:
            continue
        size = (9, 1.2 + 0.28 * max(len(group.tasks), 2 * len(methods)))
        figure, axes = pyplot.subplots(1, 2, figsize=size, layout="constrained")
        _draw(axes, group, methods, styles)
        figure.suptitle(group.name, parse_math=False)
        for kind in ("png", "pdf"):
            path = folder / f"gains-{n}.{kind}"
            with atomic(path) as temporary:
                figure.savefig(temporary, format=kind, dpi=200)
            written.append(path)
        pyplot.close(figure)
    return written


_MATPLOTLIB_MARKERS = "os^DvPX_"
"""Those of ``softstart.report.figures``, in their order."""


def _draw(axes: Any, group: Comparison, methods: Sequence[str], styles: MethodStyles) -> None:
    """Bars of ARG on the left axes, gains by task on the right."""
    left, right = axes
    for i, method in enumerate(methods):
        gain, style = group.arg[method], styles[method]
        left.barh(i, gain.arg, color=style.color.light, height=0.6)
        ends = [gain.arg_interval.low, gain.arg_interval.high]
        left.plot(ends, [i, i], color="white", linewidth=3)
        left.plot(ends, [i, i], color="black", linewidth=1)
        values = [group.gains.get((task, method), float("nan")) for task in group.tasks]
        marker = _MATPLOTLIB_MARKERS[style.number % len(_MATPLOTLIB_MARKERS)]
        right.plot(
            values,
            range(len(values)),
            marker,
            color=style.color.light,
            label=style.label,
            markersize=4,
        )
    for each, names in ((left, list(map(styles.label, methods))), (right, list(group.tasks))):
        each.set_yticks(range(len(names)), names)
        each.invert_yaxis()
        each.axvline(0, color="gray", linewidth=0.8)
    left.set_xlabel(f"ARG over {styles.baseline_label}, %")
    right.set_xlabel(f"gain over {styles.baseline_label}, %")
    right.legend(fontsize="small", frameon=False)
