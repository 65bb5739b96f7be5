"""From tables to what the page's template shows: plain values, texts and figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from softstart.analysis import influence
from softstart.analysis.tasks import task_intervals
from softstart.analysis.units import points
from softstart.progress import duration
from softstart.report import figures
from softstart.report.style import MethodStyles
from softstart.report.tables import GROUP, Comparison, Grid, group_names
from softstart.report.verdict import SIGNIFICANT, certainty, headline
from softstart.report.words import gain_words, in_points, interval, number, p_value, plural, signed

_POINTS_OF_A_CURVE = 5
"""How many points of a curve are also given as numbers."""

_STRETCHES = 60
"""Into how many stretches a curve of meta-training is averaged."""


@dataclass(frozen=True)
class Doubts:
    """Tables that qualify the gains: ``task_intervals`` and ``influence``; may be empty."""

    intervals: pd.DataFrame
    influence: pd.DataFrame


def doubts(rows: pd.DataFrame, gains: pd.DataFrame, baseline: str, interval: str) -> Doubts:
    """The tables of ``Doubts``; empty ones without the baseline."""
    if baseline not in set(rows["method"]):
        return Doubts(*[pd.DataFrame(columns=[*GROUP, "method", "task"])] * 2)
    return Doubts(task_intervals(rows, baseline, interval=interval), influence(gains))


def comparison(group: Comparison, styles: MethodStyles, doubts: Doubts) -> dict[str, Any]:
    """One group of cells: ARG bars, the table of scores, the gains by task with their intervals."""
    label, baseline = styles.label, styles.baseline_label
    judged = [m for m in group.methods if m != styles.baseline and m in group.arg]
    args = {
        label(m): (gain.arg, gain.arg_interval.low, gain.arg_interval.high)
        for m in judged
        for gain in [group.arg[m]]
    }
    gains = {t: {label(m): group.gains.get((t, m), math.nan) for m in judged} for t in group.tasks}
    bands = {
        (str(r["task"]), label(str(r["method"]))): (float(r["low"]), float(r["high"]))
        for r in _of_group(doubts.intervals, group).to_dict("records")
    }
    undefined = {
        task: f"undefined: {baseline} scores {in_points(score)}"
        for task, score in group.baseline.items()
        if not score > 0
    }
    title = f"gain over {baseline}, {group.name}"

    def bars(narrow: bool) -> str:
        named = f"Average relative {title}"
        axis = f"average relative gain over {baseline}"
        return figures.bars(args, styles.numbers, title=named, axis=axis, narrow=narrow)

    def dots(narrow: bool) -> str:
        named, axis = f"Relative {title}, by task", f"relative gain over {baseline}"
        return figures.dots(
            gains, styles.numbers, title=named, axis=axis, absent=undefined, limits=bands, narrow=narrow
        )

    return {
        "name": group.name,
        "id": anchor_of(group.name),
        "main": group.key[GROUP.index("variant")] == "main",
        "methods": group.methods,
        "about": {task: about(group, task) for task in group.tasks},
        "against": against(group, styles),
        "tasks": [(task, [_cell(group, task, method) for method in group.methods]) for task in group.tasks],
        "summary": _summary(group, doubts, styles),
        "judged": judged,
        "gains": (["target task", *map(label, judged)], _gain_cells(gains, bands)),
        "bars": drawn(bars),
        "dots": drawn(dots),
    }


def drawn(figure: Callable[[bool], str]) -> tuple[Markup, Markup]:
    """A figure for a wide page and for a narrow one."""
    return Markup(figure(False)), Markup(figure(True))


def about(group: Comparison, task: str) -> str:
    """What the scores of a task are: metric, shots, and what is scored without reading, where known."""
    facts, parts = group.facts.get(task), []
    if facts and facts.metric:
        parts.append(facts.metric)
    if facts and facts.shots:
        parts.append(f"k = {facts.shots}")
    if task in group.blind:
        chance, majority = map(in_points, group.blind[task])
        parts += [f"chance {chance}", f"majority {majority}"]
    return ", ".join(parts)


def against(group: Comparison, styles: MethodStyles) -> tuple[list[str], list[list[tuple[str, str, bool]]]]:
    """Every method against every other: the header, and rows of (difference in points, p, told apart).

    Empty rows with fewer than three methods, where the table of gains says it all.
    """
    if len(group.methods) < 3:
        return [], []
    body = []
    for method in group.methods:
        cells = [(styles.label(method), "", False)]
        for other in group.methods:
            pair = group.pairs.get((method, other))
            apart = pair is not None and pair.p_holm <= SIGNIFICANT
            cells.append(
                (signed(pair.difference_points), p_value(pair.p_holm), apart) if pair else ("", "", False)
            )
        body.append(cells)
    return ["", *map(styles.label, group.methods)], body


def _gain_cells(
    gains: Mapping[str, Mapping[str, float]], bands: Mapping[tuple[str, str], tuple[float, float]]
) -> list[list[str]]:
    """Gains by task and label, with their intervals, as text."""
    unknown = (math.nan, math.nan)
    return [
        [
            task,
            *(
                f"{signed(gain)} {interval(*bands.get((task, name), unknown))}".strip()
                for name, gain in by_label.items()
            ),
        ]
        for task, by_label in gains.items()
    ]


def _of_group(table: pd.DataFrame, group: Comparison) -> pd.DataFrame:
    return table[(table[GROUP] == list(group.key)).all(axis=1)]


def weightiest(group: Comparison, doubts: Doubts, method: str) -> tuple[float, str] | None:
    """What is left of an ARG without the task that changes it most, and that task."""
    without = _of_group(doubts.influence, group)
    if "change" not in without:
        return None
    of_method = without[(without["method"] == method) & (without["gain"] != 0)].dropna(subset="change")
    if of_method.empty:
        return None
    most = max(of_method.to_dict("records"), key=lambda row: abs(row["change"]))
    return float(most["arg_without"]), str(most["task"])


def _summary(group: Comparison, doubts: Doubts, styles: MethodStyles) -> list[tuple[str, list[str]]]:
    """The rows below the scores: ARG, its companions and how far to trust it, one text per method; rows
    that have nothing to say are left out.
    """
    gains = [gain_words(group.arg.get(method)) for method in group.methods]
    without = [weightiest(group, doubts, method) for method in group.methods]
    rows = [
        ("Mean", [in_points(group.mean(method)) for method in group.methods]),
        ("ARG, %", [gain.arg for gain in gains]),
        ("95 % interval", [gain.arg_interval for gain in gains]),
        ("Median gain, %", [gain.median for gain in gains]),
        ("Mean gain, points", [gain.points for gain in gains]),
        ("Symmetric gain, %", [gain.symmetric for gain in gains]),
        ("W/T/L", [gain.record for gain in gains]),
        (
            "p (Holm)",
            [
                "" if method == styles.baseline else gain.p_holm
                for method, gain in zip(group.methods, gains, strict=True)
            ],
        ),
        (
            "ARG without its weightiest task, %",
            [f"{signed(rest[0])} ({rest[1]})" if rest else "" for rest in without],
        ),
    ]
    return [(title, texts) for title, texts in rows if any(texts)]


def finding(group: Comparison, styles: MethodStyles, seeds: int) -> tuple[str, str]:
    """The result of a group of cells, and how it was tested; the second may be empty."""
    return headline(group, styles), certainty(group, styles, seeds)


def matrix(
    groups: Sequence[Comparison], methods: Sequence[str]
) -> list[tuple[str, str, list[tuple[str, str, bool]]]]:
    """ARG by group and method: (name, anchor, by method (ARG, its interval, whether that excludes zero))."""
    rows = []
    for group in groups:
        cells = []
        for method in methods:
            gain = group.arg.get(method)
            words = gain_words(gain)
            cells.append(
                (words.arg, words.arg_interval, gain is not None and gain.arg_interval.excludes_zero)
            )
        rows.append((group.name, anchor_of(group.name), cells))
    return rows


def _cell(group: Comparison, task: str, method: str) -> dict[str, Any]:
    """One number of the table and the runs it comes from; ``score`` is None where there is none."""
    score = group.scores.get((task, method))
    return {
        "method": method,
        "score": score,
        "best": score is not None and group.is_best(task, method),
        "anchor": anchor_of(group.name, task, method),
    }


def learning_curves(
    rows: pd.DataFrame, curves: pd.DataFrame, styles: MethodStyles
) -> Iterator[tuple[str, list[tuple[str, Markup]], Grid]]:
    """For each group of cells its name, for each task the figure of mean dev curves, and their values."""
    if "selected" in curves:
        curves = curves[curves["selected"].astype(bool)]
    if curves.empty:
        return
    curves = curves.assign(**{column: rows[column].iloc[0] for column in GROUP if column not in curves})
    names = group_names(curves)
    for key, group in curves.groupby(GROUP, sort=False):
        scores = points(group["dev"].dropna())
        limits = figures.padded(float(scores.min()), float(scores.max())) if len(scores) else None
        panels: list[tuple[str, Markup]] = []
        shown: dict[tuple[str, ...], list[tuple[float, float]]] = {}
        for task, of_task in group.groupby("task"):
            methods = [m for m in styles.in_order(of_task["method"]) if m in styles]
            of_method = {styles.label(m): of_task[of_task["method"] == m] for m in methods}
            means = {label: _mean_curve(curve) for label, curve in of_method.items()}
            bands = {label: _band(curve) for label, curve in of_method.items()}
            title = f"Dev score while adapting to {task}"
            figure = figures.lines(
                means, styles.numbers, title=title, y_label="dev score, points", y_limits=limits, bands=bands
            )
            panels.append((str(task), Markup(figure)))
            shown |= {(str(task), label): curve for label, curve in means.items()}
        yield names[key], panels, _in_numbers(shown, ["target task", "method"])


def _in_numbers(curves: Mapping[tuple[str, ...], Sequence[tuple[float, float]]], names: list[str]) -> Grid:
    """A few values of every curve: at evenly spaced steps, the last value up to there."""
    steps = sorted({x for curve in curves.values() for x, _ in curve})
    last, gaps = len(steps) - 1, _POINTS_OF_A_CURVE - 1
    few = [steps[round(i * last / gaps)] for i in range(_POINTS_OF_A_CURVE)] if steps else []
    few = list(dict.fromkeys(few))
    body = []
    for name, curve in curves.items():
        values = [[y for x, y in curve if x <= step][-1:] or [math.nan] for step in few]
        body.append([*name, *(number(y, 2) for (y,) in values)])
    return [*names, *(f"step {step:,.0f}" for step in few)], body


def _band(curve: pd.DataFrame) -> list[tuple[float, float, float]]:
    """One standard error below and above the mean curve, in points; empty with a single run."""
    wide = points(_by_run(curve))
    if wide.shape[1] < 2:
        return []
    mean, error = wide.mean(axis=1), wide.sem(axis=1)
    return [(float(s), float(m - e), float(m + e)) for s, m, e in zip(wide.index, mean, error, strict=True)]


def _mean_curve(curve: pd.DataFrame) -> list[tuple[float, float]]:
    """Mean dev score in points by step."""
    mean = points(_by_run(curve).mean(axis=1))
    return list(zip(mean.index.astype(float), mean.astype(float), strict=True))


def _by_run(curve: pd.DataFrame) -> pd.DataFrame:
    """Dev scores, steps by runs; a run that stopped early stays at its last score."""
    run = [column for column in ("sample", "seed", "lr", "run") if column in curve]
    wide = curve.assign(all=0).pivot_table(index="step", columns=["all", *run], values="dev")
    return wide.ffill()


def meta_curve(curves: pd.DataFrame | None, styles: MethodStyles) -> tuple[list[str], Markup, Grid] | None:
    """Methods, the figure of their losses, and its values; single meta-batches are noisy, so means of 60
    stretches.
    """
    if curves is None or curves.empty:
        return None
    stretch = max(1.0, (curves["step"].max() + 1) / _STRETCHES)
    curves = curves.assign(step=(curves["step"] // stretch + 0.5) * stretch)
    methods = [m for m in styles.in_order(curves["method"]) if m in styles]
    means = {}
    for method in methods:
        loss = curves[curves["method"] == method].groupby("step")["loss"].mean()
        means[styles.label(method)] = list(zip(loss.index.astype(float), loss.astype(float), strict=True))
    figure = figures.lines(
        means, styles.numbers, title="Loss of meta-training", x_label="meta-update", y_label="nats per token"
    )
    values = _in_numbers({(label,): curve for label, curve in means.items()}, ["method"])
    return methods, Markup(figure), values


def cost_table(
    costs: Mapping[str, Any] | pd.DataFrame, styles: MethodStyles
) -> tuple[list[str], list[list[tuple[str, Any]]]]:
    """Header and rows of the cost table: each cell as text, and what it is sorted by."""
    if isinstance(costs, pd.DataFrame):
        table = costs
    elif costs and all(isinstance(value, Mapping) for value in costs.values()):
        table = pd.DataFrame.from_dict(dict(costs), orient="index").rename_axis("").reset_index()
    else:
        table = pd.DataFrame(list(costs.items()), columns=["", "cost"])
    columns = [str(column) for column in table]
    body = [
        [(_cost(column, value, styles), value) for column, value in zip(columns, row, strict=True)]
        for row in table.itertuples(index=False, name=None)
    ]
    return [column.replace("_", " ") for column in columns], body


def _cost(column: str, value: Any, styles: MethodStyles) -> str:
    if isinstance(value, str):
        return styles.label(value) if column in ("", "method") else value
    if pd.isna(value):
        return "–"
    if column.endswith("seconds"):
        return duration(float(value))
    if column.endswith("flops"):
        return f"{value:.2g}".replace("e+", "e")
    if column == "memory":
        return f"{value / 2**20:,.0f} MiB"
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,.2f}"


def tiles(rows: pd.DataFrame, costs: Mapping[str, Any] | pd.DataFrame) -> list[tuple[str, str]]:
    """The few numbers that say how big the study is, each with its name."""
    numbers = [(f"{n:,}", plural(n, name)) for name, n in sizes(rows).items() if name in _TILES]
    numbers.append((f"{len(rows):,}", plural(len(rows), "selected run")))
    if isinstance(costs, pd.DataFrame):
        seconds = costs.filter(regex="seconds$").to_numpy(dtype=float)
        if seconds.size:
            numbers.append((duration(float(np.nansum(seconds))), "computing"))
    return numbers


_TILES = ("method", "target task", "few-shot sample", "meta-training seed")


def sizes(rows: pd.DataFrame) -> dict[str, int]:
    """How many settings, methods, … a result table has, by the name of one."""
    columns = {
        "setting": "setting",
        "method": "method",
        "target task": "task",
        "few-shot sample": "sample",
        "meta-training seed": "seed",
        "budget": "budget",
    }
    return {name: int(rows[column].nunique()) for name, column in columns.items()}


def runs(rows: pd.DataFrame, styles: MethodStyles) -> list[dict[str, Any]]:
    """Every run behind the table; the first of each cell carries the anchor that its number links to."""
    names = group_names(rows)
    columns = ["task", "method", "sample", "seed", *(c for c in ("lr", "dev") if c in rows), "test"]
    lines: list[dict[str, Any]] = []
    seen: set[str] = set()
    for row in rows.sort_values([*GROUP, "task", "method", "sample", "seed"]).to_dict("records"):
        name = names[tuple(row[column] for column in GROUP)]
        anchor = anchor_of(name, str(row["task"]), str(row["method"]))
        cells = [(column, run_value(column, row[column], styles)) for column in columns]
        lines.append(
            {"anchor": None if anchor in seen else anchor, "cells": cells, "run": row.get("run", "")}
        )
        seen.add(anchor)
    return lines


def run_value(column: str, value: Any, styles: MethodStyles) -> str:
    """A value of one run as text: scores in points, methods by their labels."""
    if column == "method":
        return styles.label(str(value))
    if column in ("dev", "test"):
        return in_points(float(value), 2)
    return f"{value:g}" if isinstance(value, float) else str(value)


def anchor_of(*parts: str) -> str:
    """A fragment identifier of letters, digits, hyphens and underscores; distinct parts stay distinct."""
    ascii_only = ("".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}_" for c in p) for p in parts)
    return "-".join(("runs", *ascii_only))
