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
from benchmarks.real.findings import BASELINE, COLUMNS, PRIMARY, ROWS, read, task_scores

from softstart.analysis.student import t_test

FILE = ROWS / "real-baselines.csv"


def keep(study: Path) -> None:
    """Put the study's rows at its last budget beside those of the settings."""
    rows = pd.read_csv(study / "results.csv")
    rows[[column for column in COLUMNS if column in rows]].to_csv(FILE, index=False, float_format="%.6g")


def table() -> Iterator[str]:
    """Scores and differences from a plain start after 30 and 100 steps, over tasks."""
    plain = read("real-cls2cls")[0]
    rows = pd.read_csv(FILE)
    scores = 100 * rows[rows["budget"] == rows["budget"].max()].pivot_table(
        index="task", columns="method", values="test", aggfunc="mean"
    )
    ends = {steps: task_scores(plain, steps)[BASELINE] for steps in PRIMARY}
    yield "| method | score | " + " | ".join(f"minus PT after {steps} steps [95 %]" for steps in ends) + " |"
    yield "|---|---|" + "---|" * len(ends)
    for method in scores:
        cells = []
        for of in ends.values():
            mean, reach, _ = t_test((scores[method] - of).dropna().to_numpy())
            cells.append(f"{mean:+.1f} [{mean - reach:.1f}, {mean + reach:.1f}]")
        line = f"| `{method}` | {scores[method].mean():.1f} | {' | '.join(cells)} |"
        yield line.replace("| -", "| −").replace("[-", "[−").replace(", -", ", −")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real.baselines", description=__doc__)
    parser.add_argument("study", type=Path, nargs="?")
    if (asked := parser.parse_args()).study:
        keep(asked.study)
    print("\n".join(table()))
