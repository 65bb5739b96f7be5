"""Tables and figures as files of their own, for papers and slides: CSV, LaTeX, SVG, and PNG and PDF."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from softstart.analysis import (
    CELL,
    compare_methods,
    influence,
    largest_budget,
    speed_table,
    with_defaults,
)
from softstart.analysis.reference import agreement
from softstart.errors import SoftstartError
from softstart.report import sections, views
from softstart.report.style import alone, color, standalone
from softstart.report.tables import (
    AGREEMENT_HEADER,
    Comparison,
    agreement_cells,
    comparisons,
    in_order,
    interval,
    label,
    points,
    signed,
)
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
    similarity: Mapping[str, Any] | None = None,
    raster: bool = False,
) -> list[Path]:
    """Write the tables as CSV, those for a paper as LaTeX too, and every figure as SVG.

    Args:
        folder: where to; made if it is not there.
        rows: one row per selected run (see ``softstart.analysis.arg``).
        arg: ``softstart.analysis.arg_table`` of ``softstart.analysis.largest_budget(rows)``.
        gains: ``softstart.analysis.relative_gains`` of the same.
        baseline: the method gains are relative to.
        curves: dev scores by step (see ``softstart.report.write_report``); without, no curves and no speed.
        costs: one row per method; without, no costs.
        similarity: what ``softstart similarity`` wrote.
        raster: also draw ARG and gains as PNG and PDF; needs matplotlib.

    Returns:
        The files written.

    Raises:
        SoftstartError: there is nothing to compare, matplotlib is missing, or a file cannot be written.
    """
    top = largest_budget(with_defaults(rows))
    if top.empty or baseline not in set(top["method"]):
        raise SoftstartError(f"there is no result of {label(baseline)} to compare with yet")
    if raster:
        _matplotlib()
    tests = compare_methods(top, baseline)
    tests = tests.loc[tests["other"] == baseline, [*CELL, "p", "p_holm"]]
    groups = list(comparisons(top, arg, gains))
    texts = {
        "arg.csv": arg.merge(tests, on=CELL, how="left").to_csv(index=False),
        "gains.csv": gains.to_csv(index=False),
        "arg.tex": _arg_latex(groups, baseline),
        "scores.tex": "\n".join(map(_scores_latex, groups)),
        **dict(_tables(top, gains, baseline, curves, costs, similarity)),
        **dict(_figures(groups, top, arg, gains, baseline, curves, similarity)),
    }
    for name, text in texts.items():
        with atomic(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [folder / name for name in texts] + (_raster(folder, groups, baseline) if raster else [])


def _figures(
    groups: Sequence[Comparison],
    rows: pd.DataFrame,
    arg: pd.DataFrame,
    gains: pd.DataFrame,
    baseline: str,
    curves: pd.DataFrame | None,
    similarity: Mapping[str, Any] | None,
) -> Iterator[tuple[str, str]]:
    series = {method: i for i, method in enumerate(in_order([*rows["method"], baseline]))}
    beside = views.extra(rows, gains, baseline)
    for n, group in enumerate(groups, 1):
        shown = views.comparison(group, series, baseline, beside)
        if not shown["judged"]:
            continue
        named = {label(method): series[method] for method in shown["judged"]}
        what = f"over {label(baseline)}, {group.name}"
        yield f"arg-{n}.svg", alone(f"Average relative gain {what}", shown["bars"], named)
        yield f"gains-{n}.svg", alone(f"Relative gain {what}, by task", shown["dots"], named)
    others = {label(method): i for method, i in series.items() if method != baseline}
    for n, (name, figure, _) in enumerate(sections.ablations(arg, series, baseline), 1):
        yield f"ablations-{n}.svg", alone(f"Gain over {label(baseline)} by variant, {name}", figure, others)
    found = sections.similarity(similarity, series)
    if found:
        yield "similarity.svg", alone("How alike the tasks are", found["figure"], {})
        if found["panels"]:
            title = "Gain in points against similarity to the sources"
            yield "similarity-gain.svg", standalone(title, dict(found["panels"]), others)
    every = {label(method): i for method, i in series.items()}
    drawn = views.learning_curves(rows, pd.DataFrame() if curves is None else curves, series)
    for n, (name, panels, _) in enumerate(drawn, 1):
        yield f"curves-{n}.svg", standalone(f"Dev score while adapting, {name}", dict(panels), every)


def _tables(
    rows: pd.DataFrame,
    gains: pd.DataFrame,
    baseline: str,
    curves: pd.DataFrame | None,
    costs: pd.DataFrame | None,
    similarity: Mapping[str, Any] | None,
) -> Iterator[tuple[str, str]]:
    """Tables beside gains and scores, each under its file's name: those there are."""
    yield "influence.csv", influence(gains).to_csv(index=False)
    if curves is not None and len(curves):
        yield "speed.csv", speed_table(rows, curves, baseline).to_csv(index=False)
        if found := sections.speed(rows, curves, baseline):
            yield "speed.tex", _latex(*found)
    if costs is not None and len(costs):
        header, body = views.cost_table(costs)
        yield "costs.csv", costs.to_csv(index=False)
        yield "costs.tex", _latex(header, [[text for text, _ in row] for row in body])
    if len(beside := agreement(gains, baseline)):
        yield "published.csv", beside.to_csv(index=False)
        yield "published.tex", _latex(AGREEMENT_HEADER, agreement_cells(beside))
    for name in ("correlations", "points", "followed"):
        if values := (similarity or {}).get(name):
            yield f"similarity-{name}.csv", pd.DataFrame(values).to_csv(index=False)


def _arg_latex(groups: Sequence[Comparison], baseline: str) -> str:
    """ARG by group and method, needs the package booktabs."""
    methods = in_order([m for group in groups for m in group.methods if m != baseline])
    body = []
    for name, _, cells in views.matrix(groups, methods):
        body.append([name, *(f"{value} {range}".strip() for value, range, _ in cells)])
    return _latex(["", *map(label, methods)], body)


def _scores_latex(group: Comparison) -> str:
    """Mean test scores (points) by task and method of one group, ARG below."""
    body = []
    for task in group.tasks:
        scores = [group.scores.get((task, method)) for method in group.methods]
        body.append([task, *(points(score.mean) if score else "" for score in scores)])
    gains = [group.arg.get(method) for method in group.methods]
    last = ["ARG, %", *(f"{signed(g.arg)}{g.marks} {interval(g.low, g.high)}" if g else "" for g in gains)]
    return f"% {' '.join(group.name.split())}\n" + _latex(["", *map(label, group.methods)], body, last)


def _latex(header: Sequence[str], body: Sequence[Sequence[str]], last: Sequence[str] = ()) -> str:
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", _cells(header), r"\midrule"]
    lines += map(_cells, body)
    lines += [r"\midrule", _cells(last)] if last else []
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _cells(texts: Sequence[str]) -> str:
    return " & ".join("".join(_LATEX.get(c, c) for c in text) for text in texts) + r" \\"


_LATEX = {
    **{c: rf"\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "\u2212": "$-$", "†": r"$\dagger$", "·": r"$\cdot$", "–": "--", "\n": " ",
}  # fmt: skip


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


def _raster(folder: Path, groups: Sequence[Comparison], baseline: str) -> list[Path]:
    """ARG with intervals and the gain on every task, a figure a group."""
    pyplot, written = _matplotlib(), []
    for n, group in enumerate(groups, 1):
        methods = [m for m in group.methods if m != baseline and m in group.arg]
        if not methods:
            continue
        size = (9, 1.2 + 0.28 * max(len(group.tasks), 2 * len(methods)))
        figure, (left, right) = pyplot.subplots(1, 2, figsize=size, layout="constrained")
        for i, method in enumerate(methods):
            gain, tint = group.arg[method], color(method, i)[0]
            left.barh(i, gain.arg, color=tint, height=0.6)
            left.plot([gain.low, gain.high], [i, i], color="black", linewidth=1)
            values = [group.gains.get((task, method), float("nan")) for task in group.tasks]
            right.plot(values, range(len(values)), "o", color=tint, label=label(method), markersize=4)
        for axes, names in ((left, list(map(label, methods))), (right, list(group.tasks))):
            axes.set_yticks(range(len(names)), names)
            axes.invert_yaxis()
            axes.axvline(0, color="gray", linewidth=0.8)
        left.set_xlabel(f"ARG over {label(baseline)}, %")
        right.set_xlabel(f"gain over {label(baseline)}, %")
        right.legend(fontsize="small", frameon=False)
        figure.suptitle(group.name, parse_math=False)
        for kind in ("png", "pdf"):
            path = folder / f"gains-{n}.{kind}"
            with atomic(path) as temporary:
                figure.savefig(temporary, format=kind, dpi=200)
            written.append(path)
        pyplot.close(figure)
    return written
