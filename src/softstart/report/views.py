"""From tables to what the page's template shows: plain values, texts and figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from softstart.report import figures
from softstart.report.tables import (
    GROUP,
    Comparison,
    Gain,
    duration,
    group_names,
    in_order,
    interval,
    label,
    points,
    signed,
)


def comparison(group: Comparison, series: Mapping[str, int], baseline: str) -> dict[str, Any]:
    """One group of cells: ARG bars, the table of scores, the gains by task."""
    judged = [m for m in group.methods if m != baseline and m in group.arg]
    args = {label(m): (group.arg[m].arg, group.arg[m].low, group.arg[m].high) for m in judged}
    gains = {t: {label(m): group.gains.get((t, m), math.nan) for m in judged} for t in group.tasks}
    undefined = {
        task: f"undefined: {label(baseline)} scores {points(100 * score)}"
        for task, score in group.baseline.items()
        if not score > 0
    }
    of_label = _by_label(series)
    what = f"over {label(baseline)}, {group.name}"
    return {
        "name": group.name,
        "methods": group.methods,
        "tasks": [(task, [_cell(group, task, method) for method in group.methods]) for task in group.tasks],
        "summary": _summary(group),
        "judged": judged,
        "bars": Markup(figures.bars(args, of_label, title=f"Average relative gain {what}")),
        "dots": Markup(
            figures.dots(gains, of_label, title=f"Relative gain {what}, by task", absent=undefined)
        ),
    }


def _cell(group: Comparison, task: str, method: str) -> dict[str, Any]:
    """One number of the table and the runs it comes from; ``score`` is None where there is none."""
    score = group.scores.get((task, method))
    return {
        "method": method,
        "score": score,
        "best": score is not None and group.is_best(task, method),
        "anchor": _anchor(group.name, task, method),
    }


def _summary(group: Comparison) -> list[tuple[str, list[str]]]:
    """The rows below the scores: ARG and its companions, one text per method."""
    readings: list[tuple[str, Callable[[Gain], str]]] = [
        ("ARG, %", lambda g: signed(g.arg) + g.marks),
        ("95 % interval", lambda g: interval(g.low, g.high)),
        ("Median gain, %", lambda g: signed(g.median)),
        ("Mean gain, points", lambda g: signed(g.abs_gain)),
        ("W / T / L", lambda g: " / ".join(map(str, g.record))),
    ]
    gains = [group.arg.get(method) for method in group.methods]
    return [(title, [read(gain) if gain else "" for gain in gains]) for title, read in readings]


def learning_curves(
    rows: pd.DataFrame, curves: pd.DataFrame, series: Mapping[str, int]
) -> Iterator[tuple[str, list[tuple[str, Markup]]]]:
    """For each group of cells its name and, for each task, the figure of mean dev curves."""
    if "selected" in curves:
        curves = curves[curves["selected"].astype(bool)]
    if curves.empty:
        return
    curves = curves.assign(**{column: rows[column].iloc[0] for column in GROUP if column not in curves})
    names = group_names(curves)
    for key, group in curves.groupby(GROUP, sort=False):
        scores = group["dev"].dropna() * 100
        limits = figures.padded(float(scores.min()), float(scores.max())) if len(scores) else None
        panels = []
        for task, of_task in group.groupby("task"):
            methods = [m for m in in_order(of_task["method"]) if m in series]
            means = {label(m): _mean_curve(of_task[of_task["method"] == m]) for m in methods}
            title = f"Dev score while adapting to {task}"
            figure = figures.lines(means, _by_label(series), title=title, y_limits=limits)
            panels.append((str(task), Markup(figure)))
        yield names[key], panels


def _mean_curve(curve: pd.DataFrame) -> list[tuple[float, float]]:
    """Mean dev score (points) by step; a run that stopped early stays at its last score."""
    run = [column for column in ("sample", "seed", "lr", "run") if column in curve]
    wide = curve.assign(all=0).pivot_table(index="step", columns=["all", *run], values="dev")
    mean = wide.ffill().mean(axis=1) * 100
    return list(zip(mean.index.astype(float), mean.astype(float), strict=True))


def meta_curve(curves: pd.DataFrame | None, series: Mapping[str, int]) -> tuple[list[str], Markup] | None:
    """Methods, and the figure of their losses: single meta-batches are noisy, so means of 60 stretches."""
    if curves is None or curves.empty:
        return None
    stretch = max(1.0, (curves["step"].max() + 1) / 60)
    curves = curves.assign(step=(curves["step"] // stretch + 0.5) * stretch)
    methods = [m for m in in_order(curves["method"]) if m in series]
    means = {}
    for method in methods:
        loss = curves[curves["method"] == method].groupby("step")["loss"].mean()
        means[label(method)] = list(zip(loss.index.astype(float), loss.astype(float), strict=True))
    return methods, Markup(figures.lines(means, _by_label(series), title="Loss of meta-training"))


def cost_table(costs: Mapping[str, Any] | pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the cost table, as text."""
    if isinstance(costs, pd.DataFrame):
        table = costs
    elif costs and all(isinstance(value, Mapping) for value in costs.values()):
        table = pd.DataFrame.from_dict(dict(costs), orient="index").rename_axis("").reset_index()
    else:
        table = pd.DataFrame(list(costs.items()), columns=["", "cost"])
    columns = [str(column) for column in table]
    body = [
        [_cost(column, value) for column, value in zip(columns, row, strict=True)]
        for row in table.itertuples(index=False, name=None)
    ]
    return [column.replace("_", " ") for column in columns], body


def _cost(column: str, value: Any) -> str:
    if isinstance(value, str):
        return label(value) if column in ("", "method") else value
    if pd.isna(value):
        return "–"
    if column.endswith("seconds"):
        return duration(float(value))
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,.2f}"


def tiles(rows: pd.DataFrame, costs: Mapping[str, Any] | pd.DataFrame) -> list[tuple[str, str]]:
    """The few numbers that say how big the study is, each with its name."""
    counts = [
        ("method", rows["method"].nunique()),
        ("target task", rows["task"].nunique()),
        ("few-shot sample", rows["sample"].nunique()),
        ("meta-training seed", rows["seed"].nunique()),
        ("selected run", len(rows)),
    ]
    found = [(f"{n:,}", name + ("" if n == 1 else "s")) for name, n in counts]
    if isinstance(costs, pd.DataFrame):
        seconds = costs.filter(regex="seconds$").to_numpy(dtype=float)
        if seconds.size:
            found.append((duration(float(np.nansum(seconds))), "computing"))
    return found


def runs(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Every run behind the table; the first of each cell carries the anchor that its number links to."""
    names = group_names(rows)
    columns = ["task", "method", "sample", "seed", *(c for c in ("lr", "dev") if c in rows), "test"]
    found: list[dict[str, Any]] = []
    seen: set[str] = set()
    for row in rows.sort_values([*GROUP, "task", "method", "sample", "seed"]).to_dict("records"):
        name = names[tuple(row[column] for column in GROUP)]
        anchor = _anchor(name, str(row["task"]), str(row["method"]))
        cells = [(column, _run_value(column, row[column])) for column in columns]
        found.append(
            {"anchor": None if anchor in seen else anchor, "cells": cells, "run": row.get("run", "")}
        )
        seen.add(anchor)
    return found


def _run_value(column: str, value: Any) -> str:
    if column == "method":
        return label(str(value))
    return points(float(value) * 100, 2) if column in ("dev", "test") else str(value)


def _anchor(*parts: str) -> str:
    """A fragment identifier of letters, digits, hyphens and underscores; distinct parts stay distinct."""
    ascii_only = ("".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}_" for c in p) for p in parts)
    return "-".join(("runs", *ascii_only))


def _by_label(series: Mapping[str, int]) -> dict[str, int]:
    return {label(method): i for method, i in series.items()}
