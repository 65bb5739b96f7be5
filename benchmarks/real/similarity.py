"""Does a start help a target more if its sources are more similar? Secondary by declaration: no claim.

    python -m benchmarks.real.similarity --gym path/to/gym    # measures the tasks first: rows/similarity.csv
    python -m benchmarks.real.similarity                      # the tables, of all settings that are done

Similarities are those of ``softstart similarity``, without the cosines of tuned prompts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

import pandas as pd
from benchmarks.real.figure import SETTINGS, done
from benchmarks.real.findings import BASELINE, LEARNED, ROWS, read, signed

from softstart.analysis.arg import relative_gains
from softstart.analysis.similarity import follow_summary, small_p_values
from softstart.diagnostics.gains_by_similarity import correlations, followed, similarity_and_gain
from softstart.diagnostics.studied_tasks import StudiedTasks
from softstart.diagnostics.task_measures import measure_tasks
from softstart.progress import silent
from softstart.study.declare.spec import MAIN, Study
from softstart.study.declare.study_file import load_study, variants_of
from softstart.study.plan.inputs import Part
from softstart.study.run.resources import Resources

FILE = ROWS / "similarity.csv"
STUDIES = Path(__file__).resolve().parents[2] / "studies"
STEPS = 100


@cache
def study(setting: str) -> Study:
    """The declaration of a setting."""
    return load_study(STUDIES / f"real-{setting}.yaml")


def part(setting: str) -> Part:
    """The tasks of a setting."""
    of = study(setting).setting
    return Part(MAIN, setting, tuple(of.source), tuple(of.target), {})


def measure(gym: str) -> pd.DataFrame:
    """The similarity of every target to every source: a row a measure and target, a column a source."""
    declared = study(SETTINGS[0]).model_copy(update={"gym": gym})
    parts = [part(setting) for setting in SETTINGS]
    studied = StudiedTasks(Path(), Resources(variants_of(declared)), parts, pd.DataFrame())
    sources = sorted({name for one in parts for name in one.source})
    targets = sorted({name for one in parts for name in one.target})
    tables = measure_tasks(studied, sources + targets, 0, silent)
    return pd.concat(
        {name: table.loc[targets, sources] for name, table in tables.items()}, names=["measure", "task"]
    )


def read_similarity() -> pd.DataFrame:
    """What ``measure`` has returned, as kept."""
    return pd.read_csv(FILE, index_col=[0, 1])


def tables(similarity: pd.DataFrame) -> Iterator[str]:
    """Rank correlations of similarity and gain after 100 steps, and what following it would have gained."""
    settings = done()
    parts = [part(setting) for setting in settings]
    measures = {str(name): table.droplevel(0) for name, table in similarity.groupby(level=0, sort=False)}
    results = pd.concat([read(f"real-{setting}")[0] for setting in settings], ignore_index=True)
    gains = relative_gains(results[results["budget"] == STEPS], BASELINE)
    gains = gains[gains["method"] != BASELINE]
    found = correlations(similarity_and_gain(measures, parts, gains))
    yield "| setting | method | " + " | ".join(measures) + " |"
    yield "|---|---|" + "---|" * len(measures)
    for setting, method in product(settings, LEARNED):
        by = found[(found["setting"] == setting) & (found["method"] == method)].set_index("measure")
        cells = " | ".join(_cell(by.at[name, "rho"], by.at[name, "p"]) for name in measures)
        yield signed(f"| {setting} | `{method}` | {cells} |")
    small, _, expected = small_p_values(found)
    yield f"\nRank correlations (p): {small} of {len(found)} have p < .05; by chance {expected:.1f} would."
    if len(settings) > 1:
        yield "\n| method | followed | at random | best of the others | best in hindsight | p |"
        yield "|---|---|---|---|---|---|"
        for row in follow_summary(followed(measures, parts, gains)).itertuples():
            ends = " | ".join(f"{x:+.1f}" for x in (row.gain, row.random, row.fixed, row.best))
            yield signed(f"| `{row.method}` | {ends} | {row.p:.2f} |")


def _cell(rho: float, p: float) -> str:
    return f"{rho:+.2f} ({p:.2f})" if p == p else "all equal"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real.similarity", description=__doc__)
    parser.add_argument("--gym", help="the folder of real tasks; without, the similarities kept are read")
    if gym := parser.parse_args().gym:
        measure(gym).to_csv(FILE, float_format="%.3f")
    print("\n".join(tables(read_similarity())))
