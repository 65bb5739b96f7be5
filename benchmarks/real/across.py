"""All settings of the real study together, as Markdown: a view that was not declared.

python -m benchmarks.real.across        # from rows/real-*-results.csv
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pandas as pd
from benchmarks.real.figure import done
from benchmarks.real.findings import (
    BASELINE,
    LEARNED,
    PRIMARY,
    contrasts,
    interval,
    read,
    signed,
    task_scores,
)

from softstart.analysis.permutation import holm

PAIRS = {
    "against a plain start": [(method, BASELINE) for method in LEARNED],
    "between methods": list(combinations(LEARNED, 2)),
}


def scores() -> dict[tuple[str, int], pd.DataFrame]:
    """Task scores of every setting that is done, by setting and steps."""
    results = {setting: read(f"real-{setting}")[0] for setting in done()}
    return {(setting, steps): task_scores(of, steps) for setting, of in results.items() for steps in PRIMARY}


def smallest(found: dict[tuple[str, int], pd.DataFrame]) -> Iterator[str]:
    """The two smallest p of every family of tests, corrected as declared and over all settings."""
    yield "| tests | smallest | difference [95 %] | p, declared | p, corrected over all of them |"
    yield "|---|---|---|---|---|"
    for family, pairs in PAIRS.items():
        tests = []
        for (setting, steps), of in found.items():
            tests.append(contrasts(of, pairs).assign(at=f"{setting}, {steps} steps"))
        table = pd.concat(tests, ignore_index=True)
        table["overall"] = holm(table["single"].tolist())
        for _, row in table.sort_values("single").head(2).iterrows():
            pair = f"`{row['one']}`" + ("" if row["other"] == BASELINE else f" − `{row['other']}`")
            yield f"| {len(table)} {family} " + signed(
                f"| {row['at']}: {pair} | {interval(row)} | {row['p']:.2g} | {row['overall']:.2g} |"
            )


def means(found: dict[tuple[str, int], pd.DataFrame]) -> Iterator[str]:
    """Gains of every method averaged over the settings, which share their targets and plain starts."""
    yield "| steps | method | mean gain over PT [95 %] | p (t, Holm) | p (flips) | tasks up, down |"
    yield "|---|---|---|---|---|---|"
    for steps in PRIMARY:
        of = [table for (_, at), table in found.items() if at == steps]
        mean = sum(of[1:], start=of[0]) / len(of)
        for _, row in contrasts(mean, PAIRS["against a plain start"]).iterrows():
            yield signed(
                f"| {steps} | `{row['one']}` | {interval(row)} | {row['p']:.2g} | {row['flip']:.2g} "
                f"| {row['up']}, {row['down']} |"
            )


def tables() -> Iterator[str]:
    """Both tables."""
    found = scores()
    yield from smallest(found)
    yield ""
    yield from means(found)


if __name__ == "__main__":
    print("\n".join(tables()))
