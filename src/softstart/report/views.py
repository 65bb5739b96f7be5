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
from softstart.report import figures
from softstart.report.caveats import certainty, headline, leading
from softstart.report.tables import (
    GROUP,
    Comparison,
    Gain,
    Grid,
    duration,
    group_names,
    in_order,
    interval,
    label,
    p_value,
    points,
    signed,
)

_NONE = (math.nan, math.nan)
_FEW = 5
"""So many points of a curve are told as numbers."""


def comparison(group: Comparison, series: Mapping[str, int], baseline: str, extra: Extra) -> dict[str, Any]:
    """One group of cells: ARG bars, the table of scores, the gains by task with their intervals."""
    judged = [m for m in group.methods if m != baseline and m in group.arg]
    args = {label(m): (group.arg[m].arg, group.arg[m].low, group.arg[m].high) for m in judged}
    gains = {t: {label(m): group.gains.get((t, m), math.nan) for m in judged} for t in group.tasks}
    limits = _of_group(extra.limits, group)
    bands = {
        (str(r["task"]), label(str(r["method"]))): (float(r["low"]), float(r["high"]))
        for r in limits.to_dict("records")
    }
    values = [
        [
            task,
            *(
                f"{signed(v)} {interval(*bands.get((task, name), _NONE))}".strip()
                for name, v in of_task.items()
            ),
        ]
        for task, of_task in gains.items()
    ]
    undefined = {
        task: f"undefined: {label(baseline)} scores {points(100 * score)}"
        for task, score in group.baseline.items()
        if not score > 0
    }
    of_label = _by_label(series)
    what = f"over {label(baseline)}, {group.name}"
    return {
        "name": group.name,
        "id": anchor_of(group.name),
        "main": group.key[GROUP.index("variant")] == "main",
        "methods": group.methods,
        "tasks": [(task, [_cell(group, task, method) for method in group.methods]) for task in group.tasks],
        "summary": [*_summary(group), *_doubts(group, extra, baseline)],
        "judged": judged,
        "gains": (["target task", *map(label, judged)], values),
        "bars": Markup(figures.bars(args, of_label, title=f"Average relative gain {what}")),
        "dots": Markup(
            figures.dots(
                gains, of_label, title=f"Relative gain {what}, by task", absent=undefined, limits=bands
            )
        ),
    }


@dataclass(frozen=True)
class Extra:
    """Tables beside the gains: ``task_intervals`` and ``influence``; may be empty."""

    limits: pd.DataFrame
    influence: pd.DataFrame


def extra(rows: pd.DataFrame, gains: pd.DataFrame, baseline: str) -> Extra:
    """The tables of ``Extra``; empty ones without the baseline."""
    if baseline not in set(rows["method"]):
        return Extra(*[pd.DataFrame(columns=[*GROUP, "method", "task"])] * 2)
    return Extra(task_intervals(rows, baseline), influence(gains))


def _of_group(table: pd.DataFrame, group: Comparison) -> pd.DataFrame:
    return table[(table[GROUP] == list(group.key)).all(axis=1)]


def weightiest(group: Comparison, extra: Extra, method: str) -> tuple[float, str] | None:
    """What is left of an ARG without the task that carries most of it, and that task."""
    without = _of_group(extra.influence, group)
    if "change" not in without:
        return None
    of_method = without[(without["method"] == method) & (without["gain"] != 0)].dropna(subset="change")
    if of_method.empty:
        return None
    most = max(of_method.to_dict("records"), key=lambda row: abs(row["change"]))
    return float(most["arg_without"]), str(most["task"])


def _doubts(group: Comparison, extra: Extra, baseline: str) -> list[tuple[str, list[str]]]:
    """How far to trust the ARG of each method, as rows of the table of scores."""
    p, rest = [], []
    for method in group.methods:
        gain, without = group.arg.get(method), weightiest(group, extra, method)
        p.append(p_value(gain.p) if gain and method != baseline else "")
        rest.append(f"{signed(without[0])} ({without[1]})" if without else "")
    return [("p (Holm)", p), ("ARG without its weightiest task, %", rest)]


def finding(group: Comparison, baseline: str, extra: Extra, seeds: int) -> tuple[str, str]:
    """What was found in a group of cells, and how sure that is; the second may be empty."""
    method = leading(group, baseline)
    sure = "" if method is None else certainty(group.arg[method], weightiest(group, extra, method), seeds)
    return headline(group, baseline), sure


def matrix(
    groups: Sequence[Comparison], methods: Sequence[str]
) -> list[tuple[str, str, list[tuple[str, str, bool]]]]:
    """ARG by group and method: (name, anchor, by method (ARG, its interval, whether that excludes zero))."""
    rows = []
    for group in groups:
        gains = [group.arg.get(method) for method in methods]
        cells = [
            (signed(g.arg) + g.marks, interval(g.low, g.high), g.sure) if g else ("", "", False)
            for g in gains
        ]
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
) -> Iterator[tuple[str, list[tuple[str, Markup]], Grid]]:
    """For each group of cells its name, for each task the figure of mean dev curves, and their values."""
    if "selected" in curves:
        curves = curves[curves["selected"].astype(bool)]
    if curves.empty:
        return
    curves = curves.assign(**{column: rows[column].iloc[0] for column in GROUP if column not in curves})
    names = group_names(curves)
    for key, group in curves.groupby(GROUP, sort=False):
        scores = group["dev"].dropna() * 100
        limits = figures.padded(float(scores.min()), float(scores.max())) if len(scores) else None
        panels: list[tuple[str, Markup]] = []
        told: dict[tuple[str, ...], list[tuple[float, float]]] = {}
        for task, of_task in group.groupby("task"):
            methods = [m for m in in_order(of_task["method"]) if m in series]
            means = {label(m): _mean_curve(of_task[of_task["method"] == m]) for m in methods}
            title = f"Dev score while adapting to {task}"
            bands = {label(m): _band(of_task[of_task["method"] == m]) for m in methods}
            named = _by_label(series)
            figure = figures.lines(means, named, title=title, y_limits=limits, bands=bands)
            panels.append((str(task), Markup(figure)))
            told |= {(str(task), name): curve for name, curve in means.items()}
        yield names[key], panels, _told(told, ["target task", "method"])


def _told(curves: Mapping[tuple[str, ...], Sequence[tuple[float, float]]], names: list[str]) -> Grid:
    """A few values of every curve: at steps evenly apart, what it had last come to."""
    steps = sorted({x for curve in curves.values() for x, _ in curve})
    few = [steps[round(i * (len(steps) - 1) / (_FEW - 1))] for i in range(_FEW)] if steps else []
    few = list(dict.fromkeys(few))
    body = []
    for name, curve in curves.items():
        at = [[y for x, y in curve if x <= step][-1:] or [math.nan] for step in few]
        body.append([*name, *(points(y, 2) for (y,) in at)])
    return [*names, *(f"step {step:,.0f}" for step in few)], body


def _band(curve: pd.DataFrame) -> list[tuple[float, float, float]]:
    """One standard error below and above the mean curve; empty with a single run."""
    wide = _by_run(curve) * 100
    if wide.shape[1] < 2:
        return []
    mean, error = wide.mean(axis=1), wide.sem(axis=1)
    return [(float(s), float(m - e), float(m + e)) for s, m, e in zip(wide.index, mean, error, strict=True)]


def _mean_curve(curve: pd.DataFrame) -> list[tuple[float, float]]:
    """Mean dev score (points) by step."""
    mean = _by_run(curve).mean(axis=1) * 100
    return list(zip(mean.index.astype(float), mean.astype(float), strict=True))


def _by_run(curve: pd.DataFrame) -> pd.DataFrame:
    """Dev scores, steps by runs; a run that stopped early stays at its last score."""
    run = [column for column in ("sample", "seed", "lr", "run") if column in curve]
    wide = curve.assign(all=0).pivot_table(index="step", columns=["all", *run], values="dev")
    return wide.ffill()


def meta_curve(
    curves: pd.DataFrame | None, series: Mapping[str, int]
) -> tuple[list[str], Markup, Grid] | None:
    """Methods, the figure of their losses, and its values; single meta-batches are noisy, so means of 60
    stretches.
    """
    if curves is None or curves.empty:
        return None
    stretch = max(1.0, (curves["step"].max() + 1) / 60)
    curves = curves.assign(step=(curves["step"] // stretch + 0.5) * stretch)
    methods = [m for m in in_order(curves["method"]) if m in series]
    means = {}
    for method in methods:
        loss = curves[curves["method"] == method].groupby("step")["loss"].mean()
        means[label(method)] = list(zip(loss.index.astype(float), loss.astype(float), strict=True))
    figure = figures.lines(means, _by_label(series), title="Loss of meta-training")
    return methods, Markup(figure), _told({(name,): curve for name, curve in means.items()}, ["method"])


def cost_table(costs: Mapping[str, Any] | pd.DataFrame) -> tuple[list[str], list[list[tuple[str, Any]]]]:
    """Header and rows of the cost table: each cell as text, and what it is sorted by."""
    if isinstance(costs, pd.DataFrame):
        table = costs
    elif costs and all(isinstance(value, Mapping) for value in costs.values()):
        table = pd.DataFrame.from_dict(dict(costs), orient="index").rename_axis("").reset_index()
    else:
        table = pd.DataFrame(list(costs.items()), columns=["", "cost"])
    columns = [str(column) for column in table]
    body = [
        [(_cost(column, value), value) for column, value in zip(columns, row, strict=True)]
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
    if column == "flops":
        return f"{value:.2g}".replace("e+", "e")
    if column == "memory":
        return f"{value / 2**20:,.0f} MiB"
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
        anchor = anchor_of(name, str(row["task"]), str(row["method"]))
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


def anchor_of(*parts: str) -> str:
    """A fragment identifier of letters, digits, hyphens and underscores; distinct parts stay distinct."""
    ascii_only = ("".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}_" for c in p) for p in parts)
    return "-".join(("runs", *ascii_only))


def _by_label(series: Mapping[str, int]) -> dict[str, int]:
    return {label(method): i for method, i in series.items()}
