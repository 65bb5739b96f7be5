"""What stopping early, rarer evaluations and a bfloat16 backbone save and cost, variant by variant.

``python -m experiments.early_stopping FOLDER``: FOLDER of ``softstart run studies/mini-savings.yaml``.
Every variant is compared with "main", which trains the whole learning-rate grid to the end, on the same task,
sample and seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from softstart.analysis import arg_table, with_tests
from softstart.report.style import MethodStyles
from softstart.report.words import interval, p_value, signed

MAIN = "main"
_HEADER = "| method | variant | run-steps | seconds | test, points | against main | W/T/L | p (Holm) |"


def table(folder: Path) -> Iterator[str]:
    """Rows of Markdown: cost relative to "main", and the difference of test scores with its 95 % interval."""
    chosen, runs = pd.read_csv(folder / "results.csv"), pd.read_csv(folder / "runs.csv")
    names = MethodStyles(chosen["method"])
    yield _HEADER
    yield "|---" * _HEADER.count(" | ") + "|---|"
    for method, of_method in chosen.groupby("method", sort=False):
        rows = of_method.assign(method=of_method["variant"], variant=MAIN, prompt_length=0)
        arg = with_tests(rows, arg_table(rows, MAIN), MAIN).set_index("method")
        costs = runs[runs["method"] == method].drop_duplicates(["variant", "run"]).groupby("variant")
        steps, seconds = costs["steps"].sum(), costs["seconds"].sum()
        for variant in rows["method"].unique():
            of_variant, gain = rows[rows["method"] == variant], arg.loc[variant]
            shares = [f"{100 * of[variant] / of[MAIN]:.0f} %" for of in (steps, seconds)]
            contrast = ["", "", ""]
            if variant != MAIN:
                band = interval(gain["abs_low"], gain["abs_high"], 2)
                record = f"{gain['wins']}/{gain['ties']}/{gain['losses']}"
                contrast = [f"{signed(gain['mean_abs_gain'], 2)} {band}", record, p_value(gain["p_holm"])]
            cells = [
                names.label(str(method)),
                str(variant),
                *shares,
                f"{100 * of_variant['test'].mean():.2f}",
                *contrast,
            ]
            yield f"| {' | '.join(cells)} |"


def one_rung(folder: Path, rates: tuple[float, float] = (0.5, 0.3)) -> Iterator[str]:
    """Dev points that are lost where only the better of two rates goes on after a rung: "main", replayed."""
    curves, runs = (
        pd.read_csv(folder / f"{name}.csv").query("variant == @MAIN") for name in ("curves", "runs")
    )
    dev = {run: rows.set_index("step")["dev"] for run, rows in curves.groupby("run")}
    runs = runs[runs["lr"].isin(rates)].drop_duplicates("run").sort_values("lr", ascending=False)
    steps = int(curves["step"].max())
    yield (
        "| rung, % of the steps | "
        + " | ".join(MethodStyles(runs["method"]).label(m) for m in runs["method"].unique())
        + " |"
    )
    yield "|---" * (1 + runs["method"].nunique()) + "|"
    for rung in range(steps // 10, steps, steps // 10):
        lost: dict[str, list[float]] = {}
        for (method, *_), rivals in runs.groupby(["method", "task", "sample", "seed"], sort=False):
            names = list(rivals["run"])
            kept = max(names, key=lambda run: dev[run][dev[run].index <= rung].max())
            lost.setdefault(method, []).append(max(dev[run].max() for run in names) - dev[kept].max())
        cells = [f"{100 * sum(lost[m]) / len(lost[m]):.2f}" for m in runs["method"].unique()]
        yield f"| {100 * rung / steps:.0f} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m experiments.early_stopping", description=__doc__)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    print("\n".join([*table(asked.folder), "", *one_rung(asked.folder)]))
