"""The parts of the page next to the comparison: budgets, speed, the published study, similarity, runs."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from softstart.analysis import arg_table, calibration_table, speed_table
from softstart.analysis.calibration import CALIBRATION
from softstart.analysis.reference import agreement
from softstart.analysis.similarity import cluster_order, follow_summary
from softstart.errors import SoftstartError
from softstart.report import figures, views, words
from softstart.report.style import MethodStyles
from softstart.report.tables import GROUP, Grid, by_group, gain_of, group_names
from softstart.report.views import anchor_of, run_value
from softstart.report.words import (
    gain_words,
    in_percent,
    number,
    p_value,
    signed,
    steps_or_never,
)

AGREEMENT_HEADER = ["setting", "method", "ARG %, ours", "published", "tasks", "same sign", "rank correlation"]
AGREEMENT_NOTE = (
    "Relative gains of T5-large as published, on the tasks that both have: how many have the same sign, and "
    "the correlation of the ranks of the gains over tasks."
)


def budget_panels(arg: pd.DataFrame, styles: MethodStyles) -> dict[str, str]:
    """Gain in points against budget: one figure for each setting, backbone, prompt length and variant.

    The baseline is left out, since its gain is zero by definition.

    Args:
        arg: ``softstart.analysis.arg_table`` of a study with several budgets.
        styles: the methods.
    """
    panels = {
        name: {
            styles.label(m): [
                (int(row["budget"]), row["mean_abs_gain"], row["abs_low"], row["abs_high"])
                for row in of_group[of_group["method"] == m].sort_values("budget").to_dict("records")
            ]
            for m in styles.in_order(of_group["method"])
            if m != styles.baseline
        }
        for name, of_group in by_group(arg, without="budget")
    }
    return figures.by_budget(panels, styles.numbers)


def compares_budgets(rows: pd.DataFrame, styles: MethodStyles) -> bool:
    """Whether there are gains at several budgets: the baseline alone has none."""
    return rows["budget"].nunique() > 1 and bool(styles.others)


def budgets(
    rows: pd.DataFrame, styles: MethodStyles, interval: str
) -> tuple[list[tuple[str, Markup]], Grid] | None:
    """The panels of ``budget_panels`` and their values as a table; None for a single budget or method."""
    if not compares_budgets(rows, styles):
        return None
    arg = arg_table(rows, styles.baseline, interval=interval)
    panels = [(name, Markup(figure)) for name, figure in budget_panels(arg, styles).items()]
    body = [
        [
            name,
            styles.label(row["method"]),
            str(row["budget"] or "full"),
            gain_words(gain_of(row)).points_full,
        ]
        for name, of_group in by_group(arg, without="budget")
        for row in of_group.to_dict("records")
        if row["method"] != styles.baseline
    ]
    return panels, (["setting", "method", "steps", "gain, points"], body)


def speed(rows: pd.DataFrame, curves: pd.DataFrame, styles: MethodStyles, interval: str) -> Grid | None:
    """Area under the dev curve and steps to the baseline's best, as a table; None without curves."""
    if curves.empty or "run" not in curves or "run" not in rows:
        return None
    table = speed_table(rows, curves, styles.baseline, interval=interval)
    if table.empty:
        return None
    body = []
    for name, of_group in by_group(rows[[*GROUP, "method"]].drop_duplicates().merge(table)):
        for method in styles.in_order(of_group["method"]):
            row = of_group[of_group["method"] == method].to_dict("records")[0]
            body.append([name, styles.label(method), *speed_cells(row, method == styles.baseline)])
    return ["setting", "method", *speed_header(styles)], body


def speed_header(styles: MethodStyles) -> list[str]:
    """The titles of ``speed_cells``."""
    return ["area, points", "area gain, points", f"steps to {styles.baseline_label}'s best", "reached"]


def speed_cells(row: Mapping[Hashable, Any], is_baseline: bool) -> list[str]:
    """Area, its gain, steps to the baseline's best and the share that gets there, with intervals, as text."""
    low, high = (number(row[f"area_points_{end}"]) for end in ("low", "high"))
    area = f"{number(row['area_points'])} [{low}, {high}]"
    gain = words.interval(row["area_gain_points_low"], row["area_gain_points_high"])
    gain = f"{signed(row['area_gain_points'])} {gain}"
    low, high = (steps_or_never(row[f"steps_{end}"]) for end in ("low", "high"))
    share = ", ".join(in_percent(row[f"reached_{end}"]) for end in ("low", "high"))
    return [
        area,
        "" if is_baseline else gain,
        f"{steps_or_never(row['steps'])} [{low}, {high}]",
        "" if is_baseline else f"{in_percent(row['reached'])} % [{share}]",
    ]


CALIBRATION_HEADER = [
    "setting",
    "method",
    "calibration error, %",
    "accuracy, %",
    "accuracy at half, %",
    "tasks",
]
CALIBRATION_NOTE = (
    "Over the tasks whose labels were ranked, with 95 % intervals over tasks. Calibration error: the "
    "expected distance between the probability of the chosen label and how often it is right (15 bins); "
    "lower is better. Accuracy at half: on the half of the test rows with the highest probabilities."
)
FOOTING_HEADER = [
    "method", "may use", "trains", "trained parameters", "stored bytes", "FLOPs of a start", "FLOPs of a run",
]  # fmt: skip
FOOTING_NOTE = (
    "Means over the runs; stored bytes are what predictions need besides the backbone. FLOPs are those of "
    "learning a start, which serves all target tasks, and of learning one target task. Predictions are not "
    "counted: in-context learning reads its demonstrations again with each one."
)


def calibration(rows: pd.DataFrame, styles: MethodStyles, interval: str) -> tuple[Grid, str] | None:
    """Calibration of ranked labels and how to read it; None where nothing was ranked."""
    table = calibration_table(rows, interval=interval)
    body = []
    for name, of_group in by_group(table) if len(table) else ():
        for method in styles.in_order(of_group["method"]):
            row = of_group[of_group["method"] == method].to_dict("records")[0]
            cells = [_with_ends(row, column) for column in CALIBRATION]
            body.append([name, styles.label(method), *cells, str(row["n_tasks"])])
    return ((CALIBRATION_HEADER, body), CALIBRATION_NOTE) if body else None


def _with_ends(row: Mapping[Hashable, Any], name: str) -> str:
    """A share in percent with its interval, if there is one."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    known = not (math.isnan(low) or math.isnan(high))
    ends = f" [{in_percent(low, 1)}, {in_percent(high, 1)}]" if known else ""
    return f"{in_percent(row[name], 1)}{ends}"


def footing(table: pd.DataFrame | None, styles: MethodStyles) -> tuple[Grid, str] | None:
    """What each method may use and what it takes, and how to read it; None without a table."""
    if table is None or table.empty:
        return None
    variants = list(dict.fromkeys(table["variant"])) if "variant" in table else [""]
    several = len(variants) > 1
    rows = {(str(r.get("variant", "")), str(r["method"])): r for r in table.to_dict("records")}
    body = [
        [
            *([variant] if several else []),
            styles.label(method), str(row["uses"]), str(row["trains"]),
            *(_amount(row[name]) for name in ("trained", "stored")),
            *(_power(row[name]) for name in ("start_flops", "run_flops")),
        ]
        for variant in variants
        for method in styles.in_order(of for at, of in rows if at == variant)
        for row in [rows[variant, method]]
    ]  # fmt: skip
    return ([*(["variant"] if several else []), *FOOTING_HEADER], body), FOOTING_NOTE


def _amount(value: float) -> str:
    return words.UNKNOWN if math.isnan(value) else f"{value:,.0f}"


def _power(value: float) -> str:
    return words.UNKNOWN if math.isnan(value) else f"{value:.2g}".replace("e+", "e")


def published(gains: pd.DataFrame, styles: MethodStyles) -> tuple[Grid, str] | None:
    """Our gains next to the published ones and how to read them; None without a common setting."""
    if "setting" not in gains or (table := agreement(gains, styles.baseline)).empty:
        return None
    body = [
        [
            str(row["setting"]), styles.label(str(row["method"])), signed(row["arg"]),
            signed(row["arg_published"]), str(row["n_tasks"]), f"{in_percent(row['same_sign'])} %",
            signed(row["rank"], 2),
        ]
        for row in table.to_dict("records")
    ]  # fmt: skip
    return (AGREEMENT_HEADER, body), AGREEMENT_NOTE


def ablations(arg: pd.DataFrame, styles: MethodStyles) -> list[tuple[str, tuple[Markup, Markup], Grid]]:
    """Gain in points by variant for each setting and backbone with several: name, figure (see
    ``views.drawn``), values."""
    parts = []
    arg = arg[arg["method"] != styles.baseline]
    for (setting, backbone), table in arg.groupby(["setting", "backbone"], sort=False):
        if table["variant"].nunique() < 2:
            continue
        gains: dict[str, dict[str, float]] = {}
        limits, body = {}, []
        table = table.assign(place=[styles[str(method)].number for method in table["method"]])
        table = table.sort_values("place", kind="stable").sort_values(
            "variant", key=lambda v: v != "main", kind="stable"
        )
        for row in table.to_dict("records"):
            variant, method, gain = str(row["variant"]), styles.label(str(row["method"])), gain_of(row)
            gains.setdefault(variant, {})[method] = gain.mean_points
            limits[variant, method] = (gain.points_interval.low, gain.points_interval.high)
            body.append([variant, method, gain_words(gain).points_full])
        name = " · ".join(str(part) for part in (setting, backbone) if part)
        title = f"Gain over {styles.baseline_label} in points by variant, {name}"

        def drawn(narrow: bool, gains: Any = gains, limits: Any = limits, title: str = title) -> str:
            return figures.dots(
                gains, styles.numbers, title=title, axis=f"gain over {styles.baseline_label}", unit="points",
                limits=limits, narrow=narrow,
            )  # fmt: skip

        parts.append((name, views.drawn(drawn), (["variant", "method", "gain, points"], body)))
    return parts


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


def similarity(measured: Mapping[str, Any] | None, styles: MethodStyles) -> dict[str, Any] | None:
    """Heat map, scatter of similarity and gain, correlations and recommendation, from ``similarity.json``.

    Raises:
        SoftstartError: the file is not what ``softstart similarity`` writes.
    """
    if not measured:
        return None
    try:
        measure = measured["measures"]["gradient"]
        table = pd.DataFrame(measure["values"], measure["tasks"], measure["tasks"])
        correlations = [
            [r["setting"], styles.label(r["method"]), r["measure"], *_correlation(r), str(r["n_tasks"])]
            for r in measured["correlations"]
        ]
        dots = [row for row in measured.get("points", []) if row["measure"] == "gradient"]
        panels = _scatter(dots, styles)
        points = [
            [
                row["setting"],
                styles.label(row["method"]),
                row["task"],
                *(signed(_or_nan(row[name]), 2) for name in ("similarity", "gain")),
            ]
            for row in dots
        ]
        followed = recommendation(measured.get("followed", []), styles)
    except (KeyError, TypeError, ValueError) as problem:
        raise SoftstartError(
            f"similarity.json cannot be used ({problem!r})", fix="Run softstart similarity again."
        ) from problem
    order = cluster_order(table.to_numpy())
    table = table.iloc[order, order]
    title = "Cosine between the gradients of tasks at a shared start"
    names, values = list(table.index), table.to_numpy().tolist()
    return {
        "figure": views.drawn(lambda narrow: figures.heat_map(names, values, title=title, narrow=narrow)),
        "header": ["setting", "method", "similarity of", "rank correlation", "p", "targets"],
        "body": [row for row in correlations if row[2] == "gradient"],
        "others": [row for row in correlations if row[2] != "gradient"],
        "panels": panels,
        "numbers": (["setting", "method", "target", "similarity", "gain, points"], points),
        "methods": [
            method for method in styles if method in {r["method"] for r in measured.get("points", [])}
        ],
        "followed": followed,
    }


def _scatter(dots: Sequence[Mapping[str, Any]], styles: MethodStyles) -> list[tuple[str, Markup]]:
    """A panel a setting: the similarity of a target's gradient to the sources' against its gain in points."""
    panels: dict[str, dict[str, list[tuple[str, float, float]]]] = {}
    for row in dots:
        if row["method"] in styles:
            x, y = (_or_nan(row[name]) for name in ("similarity", "gain"))
            of_method = panels.setdefault(row["setting"], {}).setdefault(styles.label(row["method"]), [])
            of_method.append((row["task"], x, y))
    title = "Gain in points against similarity to the sources"
    x_label = "mean cosine to the sources"
    return [
        (name, Markup(figures.scatter(panel, styles.numbers, title=f"{title}, {name}", x_label=x_label)))
        for name, panel in panels.items()
    ]


def recommendation(followed: Sequence[Mapping[str, Any]], styles: MethodStyles) -> Grid | None:
    """What following the recommendation would have gained; None where there was no start to choose."""
    if not followed:
        return None
    table = follow_summary(pd.DataFrame(followed))
    means = ("gain", "random", "widest", "fixed", "best")
    body = [
        [
            str(row["settings"]),
            styles.label(str(row["method"])),
            *(signed(row[name]) for name in means),
            p_value(row["p"]),
            str(row["n_tasks"]),
        ]
        for row in table.to_dict("records")
    ]
    header = ["starts from", "method", "recommended", "random", "most sources", "best on others"]
    return [*header, "best in hindsight", "p", "targets"], body


def _correlation(row: Mapping[str, Any]) -> tuple[str, str]:
    return signed(_or_nan(row["rho"]), 2), p_value(_or_nan(row["p"]))


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


def runs_by_cell(rows: pd.DataFrame, styles: MethodStyles) -> tuple[list[str], Markup]:
    """The columns, and as JSON the runs of every cell under its anchor, for the page's script."""
    columns = [c for c in ("sample", "seed", "lr", "best_step", "dev", "test", "run") if c in rows]
    names = group_names(rows)
    cells: dict[str, list[list[str]]] = {}
    for row in rows.sort_values([*GROUP, "task", "method", "sample", "seed"]).to_dict("records"):
        name = names[tuple(row[column] for column in GROUP)]
        key = anchor_of(name, str(row["task"]), str(row["method"]))
        cells.setdefault(key, []).append([run_value(column, row[column], styles) for column in columns])
    # Names from data may hold "</script>".
    return columns, Markup(json.dumps({"cells": cells}, ensure_ascii=True).replace("<", "\\u003c"))
