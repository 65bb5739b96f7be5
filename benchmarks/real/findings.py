"""The declared analysis of a setting of the real study, as Markdown.

    python -m benchmarks.real.findings RUN... [--keep NAME]
    python -m benchmarks.real.findings RUN --keep NAME --part

RUN is the folder of a finished study (``results.csv`` and ``curves.csv``), or the first part of the names of
two files in ``benchmarks/real/rows`` (``real-cls2cls``). Several are parts of one setting, some of its
methods each. ``--part`` keeps such a part and shows no score. Plain starts that no part has are those of
real-cls2cls, which has the same targets, samples and starts. Nothing else is read.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import pandas as pd
from benchmarks.real.tasks import TARGETS

from softstart.analysis.arg import arg_table
from softstart.analysis.curves import speed_table
from softstart.analysis.permutation import holm, sign_flip_p
from softstart.analysis.student import t_test
from softstart.gym.catalog import crossfit_catalog

ROWS = Path(__file__).resolve().parent / "rows"
BASELINE, LEARNED = "pt", ("multitask", "fomaml", "maml", "reptile")
PLAIN = "real-cls2cls"
"""Has the plain starts of every setting."""
PRIMARY = (30, 100)
LEVEL = 0.05
COLUMNS = [
    "setting", "method", "backbone", "prompt_length", "variant", "task", "metric", "sample", "seed", "lr",
    "budget", "dev", "test", "ece", "steps", "status", "seconds", "run", "chance", "majority", "test_rows",
]  # fmt: skip
"""What of a ``results.csv`` is kept in ``rows``."""


def read(*runs: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The results and the learning curves of a study, or of the parts of one."""
    frames = []
    for name in ("results", "curves"):
        parts = [pd.read_csv(_file(run, name)) for run in runs]
        if not any((part["method"] == BASELINE).any() for part in parts):
            plain = pd.read_csv(_file(PLAIN, name))
            plain = plain[plain["method"] == BASELINE]
            parts.insert(0, plain.assign(setting=parts[0]["setting"].iloc[0]))
        frames.append(pd.concat(parts, ignore_index=True))
    results, curves = frames
    return results, curves


def _file(run: str, name: str) -> Path:
    folder = Path(run)
    return folder / f"{name}.csv" if folder.is_dir() else ROWS / f"{run}-{name}.csv"


def task_scores(results: pd.DataFrame, budget: int) -> pd.DataFrame:
    """Mean test scores in points over samples and seeds: a row a task, a column a method."""
    of = results[results["budget"] == budget]
    return 100 * of.pivot_table(index="task", columns="method", values="test", aggfunc="mean")


def contrasts(scores: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Mean differences of pairs of methods over tasks, with the declared interval and tests.

    Returns:
        A row a pair: ``gain`` and ``half`` (of the 95 % t interval) in points, ``p`` of the paired t test and
        ``flip`` of sign flips, both with Holm's correction over the pairs, ``single``, the t test's p before
        it, tasks ``up`` and ``down``, above and below zero.
    """
    rows = []
    for one, other in pairs:
        gain = (scores[one] - scores[other]).dropna()
        up, down = int((gain > 0).sum()), int((gain < 0).sum())
        rows.append((one, other, *t_test(gain.to_numpy()), sign_flip_p(gain.to_numpy()), up, down))
    found = pd.DataFrame(rows, columns=["one", "other", "gain", "half", "p", "flip", "up", "down"])
    found["single"] = found["p"]
    for name in ("p", "flip"):
        found[name] = holm(found[name].tolist())
    return found


def verdict(row: pd.Series) -> str:
    """What the declared rule lets one say of a contrast."""
    low, high = _ends(row)
    clear = low > 0 or high < 0
    if row["p"] <= LEVEL and clear:
        return "above zero" if low > 0 else "below zero"
    if clear:
        return "not told from zero: the corrected test does not agree with the interval"
    return f"not told from zero; the interval excludes {high:.1f} and more, and {low:.1f} and less"


def gains_table(results: pd.DataFrame) -> Iterator[str]:
    """The primary outcome: every learned method against a plain start."""
    present = [method for method in LEARNED if method in set(results["method"])]
    yield "| steps | method | score | gain over PT [95 %] | p (t, Holm) | p (flips) | tasks up, down | |"
    yield "|---|---|---|---|---|---|---|---|"
    for budget in sorted(set(results["budget"])):
        scores = task_scores(results, budget)
        yield f"| {budget} | PT | {scores[BASELINE].mean():.1f} | | | | | |"
        for _, row in contrasts(scores, [(method, BASELINE) for method in present]).iterrows():
            said = verdict(row) if budget in PRIMARY else "secondary"
            yield signed(
                f"| {budget} | `{row['one']}` | {scores[row['one']].mean():.1f} | {interval(row)} | "
                f"{row['p']:.2g} | {row['flip']:.2g} | {row['up']}, {row['down']} | {said} |"
            )


def pairs_table(results: pd.DataFrame) -> Iterator[str]:
    """Learned methods against each other."""
    present = [method for method in LEARNED if method in set(results["method"])]
    yield "| steps | pair | difference [95 %] | p (t, Holm) | p (flips) | |"
    yield "|---|---|---|---|---|---|"
    for budget in PRIMARY:
        for _, row in contrasts(task_scores(results, budget), list(combinations(present, 2))).iterrows():
            yield signed(
                f"| {budget} | `{row['one']}` − `{row['other']}` | {interval(row)} | {row['p']:.2g} | "
                f"{row['flip']:.2g} | {verdict(row)} |"
            )


def tasks_table(results: pd.DataFrame, budget: int) -> Iterator[str]:
    """Every target task: its kind, a plain start's score, every method's gain over it."""
    scores = task_scores(results, budget)
    methods = [method for method in LEARNED if method in scores]
    majority = 100 * results.groupby("task")["majority"].mean()
    catalog = crossfit_catalog()
    kinds = {task: catalog[task].category.partition("/")[2] for task in scores.index}
    yield f"| target, {budget} steps | kind | most frequent label | PT | {' | '.join(methods)} |"
    yield "|---|---|---|---|" + "---|" * len(methods)
    for task in sorted(scores.index, key=lambda name: (list(TARGETS).index(kinds[name]), name)):
        gains = " | ".join(f"{scores.loc[task, m] - scores.loc[task, BASELINE]:+.1f}" for m in methods)
        plain = f"{majority[task]:.1f} | {scores.loc[task, BASELINE]:.1f}"
        yield signed(f"| {task} | {kinds[task]} | {plain} | {gains} |")


def secondary(results: pd.DataFrame, curves: pd.DataFrame) -> Iterator[str]:
    """Area under the dev curve, steps to PT's best dev score, ARG as published, calibration."""
    last = results[results["budget"] == max(PRIMARY)]
    speed = speed_table(last, curves).set_index("method")
    arg = arg_table(last).set_index("method")
    ece = 100 * last.groupby("method")["ece"].mean()
    yield "| method | area, dev points gained [95 %] | reaches PT's best | median steps | ARG [95 %] | ECE |"
    yield "|---|---|---|---|---|---|"
    for method in (BASELINE, *(m for m in LEARNED if m in speed.index)):
        if method == BASELINE:
            yield f"| PT | | | | | {ece[method]:.1f} |"
            continue
        s, a = speed.loc[method], arg.loc[method]
        low, high = s["area_gain_points_low"], s["area_gain_points_high"]
        area = f"{s['area_gain_points']:+.1f} [{low:.1f}, {high:.1f}]"
        yield signed(
            f"| `{method}` | {area} | {100 * s['reached']:.0f} % | {s['steps']:.0f} | "
            f"{a['arg']:+.1f} [{a['low']:.1f}, {a['high']:.1f}] | {ece[method]:.1f} |"
        )


def _ends(row: pd.Series) -> tuple[float, float]:
    return float(row["gain"] - row["half"]), float(row["gain"] + row["half"])


def interval(row: pd.Series) -> str:
    """The gain of a row of ``contrasts`` with both ends."""
    low, high = _ends(row)
    return f"{row['gain']:+.1f} [{low:.1f}, {high:.1f}]"


def signed(line: str) -> str:
    """Minus signs instead of hyphens in front of numbers."""
    return re.sub(r"(?<=[ \[])-(?=\d)", "−", re.sub(r"-(0\.0+)(?!\d)", r"\1", line))


def report(results: pd.DataFrame, curves: pd.DataFrame) -> Iterator[str]:
    """All tables of a setting."""
    (setting,) = set(results["setting"])
    failed = results[results["status"] == "diverged"]["run"].nunique()
    runs, tasks = results["run"].nunique(), results["task"].nunique()
    yield f"{setting}: {tasks} targets, {runs} runs, {failed} of them diverged.\n"
    yield from gains_table(results)
    yield ""
    yield from pairs_table(results)
    for budget in PRIMARY:
        yield ""
        yield from tasks_table(results, budget)
    yield ""
    yield from secondary(results, curves)


def summary(results: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    """Gains over a plain start by steps and method: mean and both ends of the interval, in points."""
    present = [method for method in LEARNED if method in set(results["method"])]
    found: dict[str, dict[str, list[float]]] = {}
    for budget in sorted(set(results["budget"])):
        table = contrasts(task_scores(results, budget), [(method, BASELINE) for method in present])
        found[str(budget)] = {
            row["one"]: [round(x, 2) for x in (float(row["gain"]), *_ends(row))]
            for _, row in table.iterrows()
        }
    return found


def keep_results(results: pd.DataFrame, file: Path) -> None:
    """Put what is kept of a ``results.csv`` into a file."""
    kept = results[[column for column in COLUMNS if column in results]]
    kept.to_csv(file, index=False, float_format="%.6g")


def keep_rows(results: pd.DataFrame, curves: pd.DataFrame, name: str) -> None:
    """Put what the analysis reads into ``rows``."""
    keep_results(results, ROWS / f"{name}-results.csv")
    curves.to_csv(ROWS / f"{name}-curves.csv", index=False, float_format="%.6g")


def keep(results: pd.DataFrame, curves: pd.DataFrame, name: str) -> None:
    """As ``keep_rows``, with the summary beside it."""
    keep_rows(results, curves, name)
    text = json.dumps(summary(results), indent=1)
    (ROWS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real.findings", description=__doc__)
    parser.add_argument("run", nargs="+")
    parser.add_argument("--keep", metavar="NAME", help="also write the rows to benchmarks/real/rows")
    parser.add_argument("--part", action="store_true", help="keep a part of a setting, unseen")
    asked = parser.parse_args()
    if asked.part:
        if not asked.keep or len(asked.run) > 1:
            parser.error("--part keeps one RUN under a name: --keep NAME")
        part, of = (pd.read_csv(_file(asked.run[0], name)) for name in ("results", "curves"))
        keep_rows(part, of, asked.keep)
        counts = part.groupby("method")["run"].nunique().to_dict()
        print(f"runs: {counts}; diverged: {(part['status'] == 'diverged').sum()}")
        raise SystemExit
    found = read(*asked.run)
    print("\n".join(report(*found)))
    if asked.keep:
        keep(*found, asked.keep)
