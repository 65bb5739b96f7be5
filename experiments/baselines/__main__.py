"""Where every baseline and learned start stands at each budget, with its gain over plain prompt tuning.

``python -m experiments.baselines RESULTS``: the ``results.csv`` of ``softstart run
studies/mini-baselines.yaml``, or ``experiments/baselines/rows/mini-baselines.csv``, which has its columns
that count here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from softstart.analysis.permutation import holm
from softstart.analysis.student import t_test

BASELINE = "pt"
COLUMNS = ["method", "task", "sample", "seed", "budget", "dev", "test", "run"]


def gains(rows: pd.DataFrame, budget: int) -> pd.DataFrame:
    """By method: mean score, mean gain in points over tasks, half the width of its 95 % t interval, and p by
    a t test with Holm's correction over methods. A method without this budget is there with its largest.
    """
    table: dict[str, tuple[float, float, float, float]] = {}
    plain = _by_task(rows, BASELINE, budget)
    for method in rows["method"].unique():
        scores = _by_task(rows, method, budget)
        gain = 100 * (scores - plain)
        table[method] = (100 * float(scores.mean()), *t_test(gain.to_numpy()))
    found = pd.DataFrame(table, index=["score", "gain", "half", "p"]).T
    others = found.index != BASELINE
    found.loc[others, "holm"] = holm(found.loc[others, "p"].tolist())
    return found


def _by_task(rows: pd.DataFrame, method: str, budget: int) -> pd.Series:
    """Mean test scores of a method at a budget, by task."""
    of = rows[rows["method"] == method]
    budgets = set(of["budget"])
    return of[of["budget"] == (budget if budget in budgets else max(budgets))].groupby("task")["test"].mean()


def table(rows: pd.DataFrame) -> Iterator[str]:
    """Lines of Markdown."""
    budgets = sorted(set(rows["budget"]) - {0})
    found = {budget: gains(rows, budget) for budget in budgets}
    yield f"| method | {' | '.join(f'{budget} steps' for budget in budgets)} |"
    yield "|---|" + "---|" * len(budgets)
    for method in rows["method"].unique():
        cells = []
        for budget in budgets:
            of = found[budget].loc[method]
            clear = "**" if of["holm"] <= 0.05 else ""
            gain = f" ({clear}{of['gain']:+.1f} ± {of['half']:.1f}{clear})".replace("-", "−")
            cells.append(f"{of['score']:.1f}{'' if method == BASELINE else gain}")
        yield f"| `{method}` | {' | '.join(cells)} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m experiments.baselines", description=__doc__)
    parser.add_argument("results", type=Path)
    print("\n".join(table(pd.read_csv(parser.parse_args().results))))
