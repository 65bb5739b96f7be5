"""What plain prompt tuning reaches with the prompt before the text and after it, task by task.

``python -m experiments.placement FOLDER``: FOLDER of ``softstart run studies/placement-real.yaml`` or
``placement-mini.yaml``. Both placements train for the same number of steps on the same rows in one order.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from softstart.analysis import arg_table, with_tests
from softstart.report.words import interval, p_value, signed

PREFIX, SUFFIX = "main", "suffix"


def table(folder: Path) -> Iterator[str]:
    """Rows of Markdown: mean test points of each task, and the mean difference with its 95 % interval."""
    chosen = pd.read_csv(folder / "results.csv").dropna(subset=["test"])
    rows = chosen.assign(method=chosen["variant"], variant=PREFIX, setting="all")
    # A task that several settings have is adapted to once.
    rows = rows.drop_duplicates(["method", "task", "sample", "seed"])
    means = 100 * rows.groupby(["task", "method"])["test"].mean().unstack().dropna()
    yield "| task | before the text | after it | difference |"
    yield "|---|---|---|---|"
    for task, of in means.iterrows():
        yield f"| {task} | {of[PREFIX]:.1f} | {of[SUFFIX]:.1f} | {signed(of[SUFFIX] - of[PREFIX], 1)} |"
    rows = rows[rows["task"].isin(means.index)]
    gain = with_tests(rows, arg_table(rows, PREFIX), PREFIX).set_index("method").loc[SUFFIX]
    before, after = means[PREFIX].mean(), means[SUFFIX].mean()
    band = interval(gain["abs_low"], gain["abs_high"], 1)
    yield f"| mean of {len(means)} tasks | {before:.1f} | {after:.1f} | {signed(after - before, 1)} {band} |"
    yield ""
    record = f"{gain['wins']}/{gain['ties']}/{gain['losses']}"
    chance = p_value(gain["p"])
    yield f"Wins, ties and losses of the prompt after the text: {record}; p of sign flips {chance}."


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m experiments.placement", description=__doc__)
    parser.add_argument("folder", type=Path)
    print("\n".join(table(parser.parse_args().folder)))
