"""What a reader has to know: a sentence on what was found, and every reason to doubt it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from softstart.report.tables import Comparison, Gain, in_order, interval, label, p_value, points, signed

_WEAK = 0.05
"""A baseline below this score (5 points) makes relative gains large and fragile."""

_LEVEL = 0.05
"""Of the paired tests."""


def question(rows: pd.DataFrame, baseline: str) -> str:
    """What was asked: which methods are compared with the baseline, on what and after how many steps."""
    others = [label(m) for m in in_order(rows["method"]) if m != baseline]
    if not others:
        return f"How well does {label(baseline)} learn {_count(rows['task'].nunique(), 'target task')}?"
    listed = " and ".join([", ".join(others[:-1]), others[-1]] if len(others) > 1 else others)
    budgets = sorted({int(b) for b in rows["budget"] if b > 0})
    steps = f", after {' or '.join(f'{b:,}' for b in budgets)} steps of adaptation" if budgets else ""
    return (
        f"Do{'' if len(others) > 1 else 'es'} {listed} score higher than {label(baseline)} on "
        f"{_count(rows['task'].nunique(), 'target task')}, with "
        f"{_count(rows['sample'].nunique(), 'few-shot sample')} of each{steps}?"
    )


def overall(groups: Sequence[Comparison], baseline: str) -> str:
    """What was found in several groups of cells: how many gains and losses are sure, and the highest."""
    cells = [(g.name, m, gain) for g in groups for m, gain in g.arg.items() if m != baseline]
    known = [cell for cell in cells if not math.isnan(cell[2].arg)]
    if not known:
        return f"There is nothing to compare with {label(baseline)} yet."
    name, method, best = max(known, key=lambda cell: cell[2].arg)
    above, below = sum(g.low > 0 for *_, g in known), sum(g.high < 0 for *_, g in known)
    held = sum(g.sure and g.p <= _LEVEL for *_, g in known)
    return (
        f"Of {_count(len(known), 'comparison')} with {label(baseline)}, {above} show a gain and {below} a "
        "loss whose interval excludes zero; the paired test, corrected for the methods compared in a "
        f"setting, confirms {held} of these {above + below} (p at most {_LEVEL:g}). The highest average "
        f"relative gain is that of {label(method)} in {name}: {signed(best.arg)}\u00a0% "
        f"{interval(best.low, best.high)}."
    )


def leading(group: Comparison, baseline: str) -> str | None:
    """The method with the highest ARG; None without any."""
    args = {m: g.arg for m, g in group.arg.items() if m != baseline and not math.isnan(g.arg)}
    return max(args, key=lambda m: args[m]) if args else None


def certainty(gain: Gain, without: tuple[float, str] | None, seeds: int) -> str:
    """How sure a gain is: its companions, its test, what hangs on one task, and what was not varied.

    Args:
        gain: a method's row of the ARG table.
        without: its ARG without its weightiest task, and that task.
        seeds: meta-training seeds.
    """
    wins, ties, losses = gain.record
    told = [
        f"Median gain {signed(gain.median)}\u00a0%, mean gain {signed(gain.abs_gain)} points; better on "
        f"{wins}, equal on {ties}, worse on {_count(losses, 'task')}"
    ]
    if without:
        told.append(f"without {without[1]}, its weightiest task, ARG is {signed(without[0])}\u00a0%")
    if not math.isnan(gain.p):
        told.append(f"paired test corrected for the methods compared: p {_equals(gain.p)}")
    seed = " One meta-training seed: another could come out differently." if seeds == 1 else ""
    return f"{'; '.join(told)}.{seed}"


def _equals(p: float) -> str:
    return ("" if p < 0.001 else "= ") + p_value(p)


def _count(n: int, name: str) -> str:
    return f"{n:,} {name}{'' if n == 1 else 's'}"


def headline(group: Comparison, baseline: str) -> str:
    """What was found in a group of cells: the method with the highest ARG, and whether that is sure."""
    method = leading(group, baseline)
    if method is None:
        return f"There is nothing to compare with {label(baseline)} yet."
    gain = group.arg[method]
    if math.isnan(gain.low):
        sure = "there are too few runs for an interval"
    elif gain.sure and gain.p > _LEVEL:
        sure = (
            "the interval does not include zero, but the paired test, corrected for the methods compared, "
            f"does not confirm it (p {_equals(gain.p)})"
        )
    elif gain.sure:
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
        + " They are not corrected for many comparisons: the highest of several is partly luck.",
        "p: paired sign-flip test of the mean gain in points over tasks; p (Holm): corrected for the methods "
        f"compared with {name} in the same table, not for looking at several tables. The smallest p that T "
        "tasks can give is 2 / 2^T, which is .125 for four and .008 for eight.",
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
