"""Plain prompt tuning in bfloat16 against float32, cell by cell on real tasks.

    python -m experiments.precision [runs/precision-smollm2]

With the folder of the study its rows are kept first, in ``rows.csv``. The cells in bfloat16 are those of the
real study (``benchmarks/real/rows/real-cls2cls-results.csv``).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from softstart.analysis.student import t_test

HERE = Path(__file__).resolve().parent
HALF = HERE.parents[1] / "benchmarks" / "real" / "rows" / "real-cls2cls-results.csv"
CELL = ["task", "sample", "seed", "budget"]


def cells(file: Path) -> pd.DataFrame:
    """Test scores of plain prompt tuning in points, by task, sample, seed and steps."""
    rows = pd.read_csv(file)
    return 100 * rows[rows["method"] == "pt"].set_index(CELL)[["test"]]


def compared() -> pd.DataFrame:
    """Every cell in both: columns ``half`` and ``full``, and their difference."""
    full, half = cells(HERE / "rows.csv"), cells(HALF)
    both = full.merge(half, on=CELL, suffixes=("_full", "_half"))
    return both.assign(apart=both["test_half"] - both["test_full"])


def table(both: pd.DataFrame) -> list[str]:
    """Means over tasks and the difference with a t interval over tasks; differences of single runs."""
    lines = [
        "| steps | float32 | bfloat16 | difference [95 %] | single runs: mean of sizes, largest |",
        "|---|---|---|---|---|",
    ]
    for budget, of in both.groupby("budget"):
        tasks = of.groupby("task").mean()
        mean, reach, _ = t_test(tasks["apart"].to_numpy())
        sizes = of["apart"].abs()
        lines.append(
            f"| {budget} | {tasks['test_full'].mean():.1f} | {tasks['test_half'].mean():.1f} | "
            f"{mean:+.1f} [{mean - reach:.1f}, {mean + reach:.1f}] | {sizes.mean():.1f}, {sizes.max():.1f} |"
        )
    return [line.replace("| -", "| −").replace("[-", "[−") for line in lines]


def keep(study: Path) -> None:
    """Put what is compared into ``rows.csv``."""
    rows = pd.read_csv(study / "results.csv")
    rows[["method", *CELL, "test", "ece", "status"]].to_csv(
        HERE / "rows.csv", index=False, float_format="%.6g"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m experiments.precision", description=__doc__)
    parser.add_argument("study", type=Path, nargs="?")
    if (asked := parser.parse_args()).study:
        keep(asked.study)
    print("\n".join(table(compared())))
