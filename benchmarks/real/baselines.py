"""What trains no prompt beside a plain start of the real study: points over the same targets and samples.

    python -m benchmarks.real.baselines [runs/real-baselines]

With the folder of the study its rows are kept first, in ``rows/real-baselines.csv``. Plain starts are those
of real-cls2cls. Secondary by declaration: intervals, no tests.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from benchmarks.real.findings import (
    BASELINE,
    PLAIN,
    PRIMARY,
    ROWS,
    contrasts,
    interval,
    keep_results,
    read,
    signed,
    task_scores,
)

FILE = ROWS / "real-baselines.csv"


def table() -> Iterator[str]:
    """Scores and differences from a plain start after 30 and 100 steps, over tasks."""
    plain = read(PLAIN)[0]
    rows = pd.read_csv(FILE)
    scores = 100 * rows[rows["budget"] == rows["budget"].max()].pivot_table(
        index="task", columns="method", values="test", aggfunc="mean"
    )
    ends = {steps: task_scores(plain, steps)[BASELINE] for steps in PRIMARY}
    yield "| method | score | " + " | ".join(f"minus PT after {steps} steps [95 %]" for steps in ends) + " |"
    yield "|---|---|" + "---|" * len(ends)
    against = [(method, BASELINE) for method in scores]
    found = [contrasts(scores.join(of), against) for of in ends.values()]
    for n, (method, _) in enumerate(against):
        cells = " | ".join(interval(of.iloc[n]) for of in found)
        yield signed(f"| `{method}` | {scores[method].mean():.1f} | {cells} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real.baselines", description=__doc__)
    parser.add_argument("study", type=Path, nargs="?")
    if (asked := parser.parse_args()).study:
        keep_results(pd.read_csv(asked.study / "results.csv"), FILE)
    print("\n".join(table()))
