"""What a reader has to know: a sentence on what was found, and every reason to doubt it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from softstart.report.tables import Comparison, interval, label, points, signed

_WEAK = 0.05
"""A baseline below this score (5 points) makes relative gains large and fragile."""


def headline(group: Comparison, baseline: str) -> str:
    """What was found in a group of cells: the method with the highest ARG, and whether that is sure."""
    args = {m: g.arg for m, g in group.arg.items() if m != baseline and not math.isnan(g.arg)}
    if not args:
        return f"There is nothing to compare with {label(baseline)} yet."
    method = max(args, key=lambda m: args[m])
    gain = group.arg[method]
    if math.isnan(gain.low):
        sure = "there are too few runs for an interval"
    elif gain.low > 0 or gain.high < 0:
        sure = "the interval does not include zero"
    else:
        sure = "the interval includes zero, so no difference is shown"
    what = f"{label(method)} has the highest average relative gain over {label(baseline)}"
    if gain.arg <= 0:
        what = f"No method gains over {label(baseline)} on average; {label(method)} comes closest"
    tasks = f"{gain.n_tasks} target task{'' if gain.n_tasks == 1 else 's'}"
    return (
        f"{what}: {signed(gain.arg)}\u00a0% {interval(gain.low, gain.high)} on {tasks}; {sure}."
        f"{'' if gain.complete else ' This cell is incomplete.'}"
    )


def caveats(rows: pd.DataFrame, groups: Sequence[Comparison], baseline: str) -> list[str]:
    """How to read the page and how far to trust it, from what the tables hold."""
    name = label(baseline)
    seeds = rows["seed"].nunique()
    found = [
        f"A relative gain is 100 × (method − {name}) / {name} on one task, of mean test scores; the average "
        "relative gain (ARG) is its plain mean over target tasks. It mixes metrics, and a single task with a "
        f"weak {name} can carry it: read it beside the median, the gain in points, wins and losses.",
        "Intervals are 95 % bootstrap intervals over target tasks, samples within them"
        + (f", and {seeds} meta-training seeds." if seeds > 1 else ".")
        + " A method whose interval excludes zero is the best of several looked at; "
        "no correction for many comparisons is made.",
    ]
    if seeds == 1:
        found.append(
            "Everything was meta-trained with one seed: the intervals say nothing about how another "
            "meta-training would have come out."
        )
    found.append(
        "Learning rates, and the step whose prompt is tested, are selected on dev. Dev sets are as small as "
        "training sets, so dev scores in the learning curves are optimistic; only test scores are compared."
    )
    for group in groups:
        found += _of_group(group, baseline)
    return found


def _of_group(group: Comparison, baseline: str) -> list[str]:
    name, found = label(baseline), []
    gaps = [f"{label(m)} ({_missing(g.n_missing)})" for m, g in group.arg.items() if not g.complete]
    if gaps:
        found.append(f"* {group.name}: incomplete, do not compare with complete cells: {', '.join(gaps)}.")
    weak = [f"{task} ({points(100 * s)})" for task, s in sorted(group.baseline.items()) if 0 < s < _WEAK]
    if weak:
        found.append(
            f"{group.name}: {name} scores below {_WEAK * 100:g} points on {', '.join(weak)}. Relative gains "
            "there are large whatever happens; look at the gain in points."
        )
    if undefined := sorted(task for task, s in group.baseline.items() if s <= 0):
        found.append(
            f"† {group.name}: {name} is not above zero on {', '.join(undefined)}. The relative gain there is "
            "undefined and no part of ARG and median; it counts in the gain in points, wins and losses."
        )
    if n := sum(score.n_nan for score in group.scores.values()):
        found.append(f"{group.name}: {n} run{'s have' if n > 1 else ' has'} no test score and are left out.")
    return found


def _missing(tasks: int) -> str:
    if tasks == 0:
        return "runs missing"
    return f"{tasks} task{'s' if tasks > 1 else ''} missing"
