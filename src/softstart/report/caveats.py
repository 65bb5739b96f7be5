"""What a reader has to know: what was asked, and every reason to doubt the answer."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from softstart.analysis.resampling import FEWEST_TASKS
from softstart.analysis.units import points
from softstart.report.style import MethodStyles
from softstart.report.tables import NEAR_ZERO, Comparison
from softstart.report.verdict import at_chance, without_zero_shot
from softstart.report.words import count, in_points, listed, plural

ONE_SEED = "58 to 70 %"
"""Coverage with one meta seed and a seed effect of 5 points (docs/concepts/intervals.md)."""

_MEASURED = {
    "studentized": (
        " In simulated studies (python -m softstart.analysis.coverage) with 4 to 16 tasks they held the "
        "truth .95 to .99 of the time for light gains and gains in points and .90 to .95 for heavy ratios; "
        f"with fewer than {FEWEST_TASKS} tasks, or one run of each, there is none."
    ),
    "percentile": (
        " They are too narrow: in simulated studies with 4 to 16 tasks they held the truth only .84 to .93 "
        "of the time for light gains and .68 to .86 for heavy ratios."
    ),
}
"""What is measured of a kind of interval: docs/concepts/intervals.md has the table."""


def question(rows: pd.DataFrame, styles: MethodStyles) -> str:
    """What the study asks: which methods are compared with the baseline, on what, after how many steps."""
    others = [styles.label(m) for m in styles.in_order(rows["method"]) if m != styles.baseline]
    tasks = count(rows["task"].nunique(), "target task")
    if not others:
        return f"How well does {styles.baseline_label} learn {tasks}?"
    budgets = sorted({int(b) for b in rows["budget"] if b > 0})
    steps = f", after {' or '.join(f'{b:,}' for b in budgets)} steps of adaptation" if budgets else ""
    return (
        f"Do{'' if len(others) > 1 else 'es'} {listed(others)} score higher than {styles.baseline_label} on "
        f"{tasks}, with {count(rows['sample'].nunique(), 'few-shot sample')} of each{steps}?"
    )


def caveats(
    rows: pd.DataFrame, groups: Sequence[Comparison], styles: MethodStyles, interval: str
) -> list[str]:
    """How to read the page and how far to trust it, from what the tables hold.

    Args:
        rows: the result rows.
        groups: their comparisons.
        styles: the methods.
        interval: how intervals were made, a name in ``softstart.analysis.INTERVALS``.
    """
    name = styles.baseline_label
    seeds = rows["seed"].nunique()
    sentences = [
        f"A relative gain is 100 × (method − {name}) / {name} on one task, of mean test scores; the average "
        "relative gain (ARG) is its plain mean over target tasks. It mixes metrics, and a single task with a "
        f"weak {name} can dominate it: read it together with median, gain in points, wins and losses. The "
        f"symmetric gain is 200 × (method − {name}) / (method + {name}): it lies between −200 and 200 %, and "
        "no task can dominate it.",
        f"Intervals are 95 % intervals ({interval}) over target tasks, samples within them"
        + (f", and {seeds} meta-training seeds." if seeds > 1 else ".")
        + " They are not corrected for many comparisons: the highest of several is partly luck."
        + _MEASURED.get(interval, ""),
        "p: paired sign-flip test of the mean gain in points over tasks; p (Holm): corrected for the methods "
        f"compared with {name} in the same table, not for looking at several tables. The smallest p that T "
        "tasks can give is 2 / 2^T, which is .125 for four and .008 for eight. It is exact for symmetric "
        "differences; in simulated studies without a difference it was below .05 in .10 to .16 of them where "
        "differences are skewed, in .09 to .45 where a meta seed moves a method on all tasks. For several "
        "seeds, softstart arg has a t test over tasks and seeds (p_t).",
    ]
    if seeds == 1:
        sentences.append(
            "Everything was meta-trained with one seed: the intervals say nothing about the result of "
            "another meta-training. Where starts of other seeds differ by 5 points, an interval of one seed "
            f"held the truth in {ONE_SEED} of simulated studies."
        )
    sentences.append(
        "Learning rates, and the step whose prompt is tested, are selected on dev. Dev sets are as small as "
        "training sets, so dev scores in the learning curves are optimistic; only test scores are compared."
    )
    if flat := _never_moved(rows):
        sentences.append(
            f"{flat} No dev score of theirs was above zero, so dev selected nothing: of equal steps the "
            "earliest is taken, which is the start itself."
        )
    for group in groups:
        sentences += _of_group(group, styles)
        if at := at_chance(group, styles):
            sentences.append(at)
    if missing := without_zero_shot(groups, styles):
        sentences.append(missing)
    return sentences


def _never_moved(rows: pd.DataFrame) -> str:
    """Which results have an untrained start, because every dev score of their run was zero."""
    if not {"dev", "best_step"} <= set(rows):
        return ""
    never = rows[(rows["dev"] == 0) & (rows["best_step"] == 0)]
    if never.empty:
        return ""
    tasks = listed(sorted(never["task"].astype(str).unique()))
    return f"{count(len(never), 'result')} of {len(rows):,} ({tasks}) stayed at step 0."


def _of_group(group: Comparison, styles: MethodStyles) -> list[str]:
    name, sentences = styles.baseline_label, []
    gaps = [f"{styles.label(m)} ({_missing(g.n_missing)})" for m, g in group.arg.items() if not g.complete]
    if gaps:
        sentences.append(
            f"* {group.name}: incomplete, do not compare with complete cells: {', '.join(gaps)}."
        )
    weak = [f"{task} ({in_points(s)})" for task, s in sorted(group.baseline.items()) if 0 < s < NEAR_ZERO]
    if weak:
        sentences.append(
            f"{group.name}: {name} scores below {points(NEAR_ZERO):g} points on {', '.join(weak)}. "
            "Relative gains there are large whatever happens; look at points and the symmetric gain."
        )
    if undefined := sorted(task for task, score in group.baseline.items() if score <= 0):
        sentences.append(
            f"† {group.name}: {name} is not above zero on {', '.join(undefined)}. The relative gain there is "
            "undefined and not part of ARG and median; it counts in the gain in points, wins and losses."
        )
    if n := sum(score.n_nan for score in group.scores.values()):
        sentences.append(
            f"{group.name}: {count(n, 'run')} {'has' if n == 1 else 'have'} no test score and "
            f"{'is' if n == 1 else 'are'} left out."
        )
    return sentences


def _missing(tasks: int) -> str:
    return f"{tasks} {plural(tasks, 'task')} missing" if tasks else "runs missing"
