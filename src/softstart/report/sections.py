"""The parts of the page that stand beside the comparison: budgets, speed, the published study, similarity."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from softstart.analysis import arg_table, speed_table
from softstart.analysis.reference import agreement
from softstart.analysis.similarity import cluster_order, follow_summary
from softstart.errors import SoftstartError
from softstart.report import figures
from softstart.report.tables import (
    AGREEMENT_HEADER,
    AGREEMENT_NOTE,
    GROUP,
    Grid,
    agreement_cells,
    by_group,
    group_names,
    in_order,
    interval,
    label,
    p_value,
    points,
    signed,
    steps_or_never,
)
from softstart.report.views import anchor_of


def budget_panels(arg: pd.DataFrame, series: Mapping[str, int], baseline: str) -> dict[str, str]:
    """Gain in points against budget: one figure for each setting, backbone, prompt length and variant.

    Args:
        arg: ``softstart.analysis.arg_table`` of a study with several budgets.
        series: method → number.
        baseline: left out, since its gain is zero by definition.
    """
    panels = {
        name: {
            label(m): [
                (int(row["budget"]), row["mean_abs_gain"], row["abs_low"], row["abs_high"])
                for row in of_group[of_group["method"] == m].sort_values("budget").to_dict("records")
            ]
            for m in in_order(of_group["method"])
            if m != baseline
        }
        for name, of_group in by_group(arg, without="budget")
    }
    return figures.by_budget(panels, {label(method): i for method, i in series.items()})


def budgets(
    rows: pd.DataFrame, series: Mapping[str, int], baseline: str
) -> tuple[list[tuple[str, Markup]], Grid] | None:
    """The panels of ``budget_panels`` and what they show as a table; None for a single budget."""
    if rows["budget"].nunique() < 2:
        return None
    arg = arg_table(rows, baseline)
    panels = budget_panels(arg, series, baseline)
    body = [
        [name, label(row["method"]), str(row["budget"] or "full"), _points(row)]
        for name, of_group in by_group(arg, without="budget")
        for row in of_group.to_dict("records")
        if row["method"] != baseline
    ]
    figures_ = [(name, Markup(figure)) for name, figure in panels.items()]
    return figures_, (["setting", "method", "steps", "gain, points"], body)


def _points(row: Mapping[Any, Any]) -> str:
    """A gain in points with its interval."""
    return f"{signed(row['mean_abs_gain'])} {interval(row['abs_low'], row['abs_high'])}".strip()


def speed(rows: pd.DataFrame, curves: pd.DataFrame, baseline: str) -> Grid | None:
    """Area under the dev curve and steps to the baseline's best, as a table; None without curves."""
    if curves.empty or "run" not in curves or "run" not in rows:
        return None
    table = speed_table(rows, curves, baseline)
    if table.empty:
        return None
    body = []
    for name, of_group in by_group(rows[[*GROUP, "method"]].drop_duplicates().merge(table)):
        for method in in_order(of_group["method"]):
            row = of_group[of_group["method"] == method].to_dict("records")[0]
            body.append([name, label(method), *speed_cells(row, method == baseline)])
    return ["setting", "method", "area", "area gain", f"steps to {label(baseline)}'s best", "reached"], body


def speed_cells(row: Mapping[Any, Any], is_baseline: bool) -> list[str]:
    """Area, its gain, steps to the baseline's best and the share that gets there, with intervals, as text."""
    area = f"{points(row['area'])} [{points(row['area_low'])}, {points(row['area_high'])}]"
    gain = f"{signed(row['area_gain'])} {interval(row['area_gain_low'], row['area_gain_high'])}"
    low, high = (steps_or_never(row[f"steps_{end}"]) for end in ("low", "high"))
    share = ", ".join(points(100 * row[f"reached_{end}"], 0) for end in ("low", "high"))
    return [
        area,
        "" if is_baseline else gain,
        f"{steps_or_never(row['steps'])} [{low}, {high}]",
        "" if is_baseline else f"{100 * row['reached']:.0f} % [{share}]",
    ]


def published(gains: pd.DataFrame, baseline: str) -> tuple[list[str], list[list[str]], str] | None:
    """Our gains beside the published ones; None without a common setting."""
    if "setting" not in gains or (table := agreement(gains, baseline)).empty:
        return None
    return AGREEMENT_HEADER, agreement_cells(table), AGREEMENT_NOTE


def ablations(arg: pd.DataFrame, series: Mapping[str, int], baseline: str) -> list[tuple[str, Markup, Grid]]:
    """Gain in points by variant for each setting and backbone with several: name, figure, values."""
    found = []
    for (setting, backbone), part in arg[arg["method"] != baseline].groupby(
        ["setting", "backbone"], sort=False
    ):
        if part["variant"].nunique() < 2:
            continue
        gains: dict[str, dict[str, float]] = {}
        limits, body = {}, []
        part = part.assign(rank=part["method"].map(series))
        part = part.sort_values("rank", kind="stable").sort_values(
            "variant", key=lambda v: v != "main", kind="stable"
        )
        for row in part.to_dict("records"):
            variant, method = str(row["variant"]), label(str(row["method"]))
            gains.setdefault(variant, {})[method] = float(row["mean_abs_gain"])
            limits[variant, method] = (float(row["abs_low"]), float(row["abs_high"]))
            body.append([variant, method, _points(row)])
        numbers = {label(method): i for method, i in series.items()}
        name = " · ".join(str(part) for part in (setting, backbone) if part)
        title = f"Gain over {label(baseline)} in points by variant, {name}"
        figure = figures.dots(gains, numbers, title=title, unit="points", limits=limits)
        found.append((name, Markup(figure), (["variant", "method", "gain, points"], body)))
    return found


def departures(protocol: Sequence[Mapping[str, str]]) -> dict[str, Any] | None:
    """The values of the published protocol that the study changed, and those it kept; None if unknown.

    Args:
        protocol: ``what``, ``published`` and ``here`` of every value.
    """
    if not protocol:
        return None
    rows = [[value["what"], value["published"], value["here"]] for value in protocol]
    changed = [row for row in rows if row[1] != row[2]]
    kept = [row[:2] for row in rows if row[1] == row[2]]
    return {"header": ["value", "as published", "here"], "changed": changed, "kept": kept}


def similarity(found: Mapping[str, Any] | None, series: Mapping[str, int]) -> dict[str, Any] | None:
    """Heat map, scatter of similarity and gain, correlations and recommendation, from ``similarity.json``.

    Raises:
        SoftstartError: the file is not what ``softstart similarity`` writes.
    """
    if not found:
        return None
    try:
        measure = found["measures"]["gradient"]
        table = pd.DataFrame(measure["values"], measure["tasks"], measure["tasks"])
        body = [
            [r["setting"], label(r["method"]), r["measure"], *_rho(r), str(r["n_tasks"])]
            for r in found["correlations"]
        ]
        panels = _scatter(found.get("points", []), series)
        values = [
            [
                r["setting"],
                label(r["method"]),
                r["task"],
                *(signed(_number(r[n]), 2) for n in ("similarity", "gain")),
            ]
            for r in found.get("points", [])
            if r["measure"] == "gradient"
        ]
        followed = recommendation(found.get("followed", []))
    except (KeyError, TypeError, ValueError) as problem:
        raise SoftstartError(
            f"similarity.json cannot be used ({problem!r})", fix="Run softstart similarity again."
        ) from problem
    order = cluster_order(table.to_numpy())
    table = table.iloc[order, order]
    title = "Cosine between the gradients of tasks at a shared start"
    figure = figures.heat_map(list(table.index), table.to_numpy().tolist(), title=title)
    header = ["setting", "method", "similarity of", "rank correlation", "p", "targets"]
    return {
        "figure": Markup(figure),
        "header": header,
        "body": [row for row in body if row[2] == "gradient"],
        "others": [row for row in body if row[2] != "gradient"],
        "panels": panels,
        "told": (["setting", "method", "target", "similarity", "gain, points"], values),
        "methods": [method for method in series if method in {r["method"] for r in found.get("points", [])}],
        "followed": followed,
    }


def _scatter(points: Sequence[Mapping[str, Any]], series: Mapping[str, int]) -> list[tuple[str, Markup]]:
    """A panel a setting: the similarity of gradients to the sources against gain."""
    panels: dict[str, dict[str, list[tuple[str, float, float]]]] = {}
    for row in points:
        if row["measure"] == "gradient" and row["method"] in series:
            x, y = (_number(row[name]) for name in ("similarity", "gain"))
            of_method = panels.setdefault(row["setting"], {}).setdefault(label(row["method"]), [])
            of_method.append((row["task"], x, y))
    numbers = {label(method): i for method, i in series.items()}
    return [
        (
            setting,
            Markup(
                figures.scatter(
                    groups,
                    numbers,
                    title=f"Gain in points against similarity to the sources, {setting}",
                    x_label="mean cosine to the sources",
                )
            ),
        )
        for setting, groups in panels.items()
    ]


def recommendation(followed: Sequence[Mapping[str, Any]]) -> Grid | None:
    """What following the recommendation would have gained; None where there was no start to choose."""
    if not followed:
        return None
    table = follow_summary(pd.DataFrame(followed))
    means = ("gain", "random", "widest", "fixed", "best")
    body = [
        [
            str(row["settings"]),
            label(str(row["method"])),
            *(signed(row[name]) for name in means),
            p_value(row["p"]),
            p_value(row["p_widest"]),
            str(row["n_tasks"]),
        ]
        for row in table.to_dict("records")
    ]
    header = ["starts from", "method", "recommended", "random", "most sources", "best on others"]
    return [*header, "best in hindsight", "p, random", "p, most sources", "targets"], body


def _rho(row: Mapping[str, Any]) -> tuple[str, str]:
    return signed(_number(row["rho"]), 2), p_value(_number(row["p"]))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def behind(rows: pd.DataFrame) -> tuple[list[str], Markup]:
    """The columns, and as JSON the runs of every cell under its anchor, for the page's script."""
    columns = [c for c in ("sample", "seed", "lr", "best_step", "dev", "test", "run") if c in rows]
    names = group_names(rows)
    cells: dict[str, list[list[str]]] = {}
    for row in rows.sort_values([*GROUP, "task", "method", "sample", "seed"]).to_dict("records"):
        name = names[tuple(row[column] for column in GROUP)]
        key = anchor_of(name, str(row["task"]), str(row["method"]))
        cells.setdefault(key, []).append([_shown(column, row[column]) for column in columns])
    # Names from data may hold "</script>".
    return columns, Markup(json.dumps({"cells": cells}, ensure_ascii=True).replace("<", "\\u003c"))


def _shown(column: str, value: Any) -> str:
    if column in ("dev", "test"):
        return points(float(value) * 100, 2)
    return f"{value:g}" if isinstance(value, float) else str(value)
