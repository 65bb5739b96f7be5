"""What a study shows in a sentence: which methods can be told apart, never which of them is largest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from softstart.report.style import MethodStyles
from softstart.report.tables import Comparison
from softstart.report.words import count, gain_words, in_points, listed, p_equals, p_value, signed

SIGNIFICANT = 0.05
"""Largest corrected p-value of a paired test that tells two methods apart."""
_PAIRS_NAMED = 3
"""More pairs than these are only counted in a sentence."""

WHAT: Mapping[str, str] = {
    "pt": "plain prompt tuning, from a start that nothing was learned for",
    "ft": "full fine-tuning of the backbone on the target's rows",
    "lora": "low-rank changes of the backbone's weights, trained on the target's rows",
    "features": "a classifier on the backbone's frozen features",
    "in_context": "demonstrations before the text, nothing trained",
    "zero_shot": "the backbone without a prompt",
}
"""What a method is, by its name."""
ZERO_SHOT = "Zero-shot"
"""How the labels of those methods begin that are the backbone without a prompt."""
LEARN = ("multitask", "multi", "maml", "fomaml", "reptile", "anil", "imaml", "metasgd", "spot")
"""Methods that are prompt tuning from a start learned on source tasks."""


@dataclass(frozen=True)
class Verdict:
    """The methods of a comparison by what the tests say of them against the baseline.

    ``better`` and ``worse`` are told apart from it, ``open`` are not; ``fewest`` is the number of tasks that
    the test needs to tell anything apart, if there are fewer.
    """

    better: tuple[str, ...]
    worse: tuple[str, ...]
    open: tuple[str, ...]
    n_tasks: int
    fewest: int | None

    @property
    def known(self) -> tuple[str, ...]:
        """All methods that were compared."""
        return (*self.better, *self.worse, *self.open)


def told_apart(group: Comparison, method: str, baseline: str) -> bool:
    """Whether a method is told apart from the baseline: by the paired test of its gain in points, corrected
    for the methods compared, and by the interval where there is one."""
    ends, pair = group.arg[method].points_interval, group.pairs.get((method, baseline))
    return pair is not None and pair.p_holm <= SIGNIFICANT and (not ends.known or ends.excludes_zero)


def verdict(group: Comparison, baseline: str) -> Verdict:
    """What the tests of a comparison say."""
    gains = {
        method: gain
        for method in group.methods
        if method != baseline and (gain := group.arg.get(method)) and not math.isnan(gain.mean_points)
    }
    apart = [method for method in gains if told_apart(group, method, baseline)]
    better = tuple(method for method in apart if gains[method].mean_points > 0)
    worse = tuple(method for method in apart if gains[method].mean_points < 0)
    left = tuple(method for method in gains if method not in (*better, *worse))
    n_tasks = max((gain.n_tasks + gain.n_undefined for gain in gains.values()), default=0)
    return Verdict(better, worse, left, n_tasks, _too_few(n_tasks, len(gains)))


def _too_few(tasks: int, methods: int) -> int | None:
    """How many tasks a corrected sign-flip test needs, if there are fewer: T tasks give p = 2 / 2^T."""
    fewest = math.ceil(math.log2(2 * methods / SIGNIFICANT)) if methods else 0
    return fewest if tasks < fewest else None


def headline(group: Comparison, styles: MethodStyles) -> str:
    """The result of a group of cells: who beats the baseline, and who can be told apart."""
    found, base = verdict(group, styles.baseline), styles.baseline_label
    if not found.known:
        return nothing_to_compare(styles)
    sentences, tasks = [], count(found.n_tasks, "target task")
    if found.better:
        p = max(group.pairs[method, styles.baseline].p_holm for method in found.better)
        size = f"{_gains(found.better, group)} on {tasks}, {_at_most(p, found.better)}"
        verb = plural_verb(found.better, "beat")
        sentences.append(f"{_named(found.better, found, styles)} {verb} {base} ({size}).")
        sentences += _between(group, found, styles)
    if found.worse:
        verb = plural_verb(found.worse, "score")
        gains = _gains(found.worse, group)
        sentences.append(f"{_listed(found.worse, styles)} {verb} lower than {base} ({gains}).")
    if found.open:
        sentences.append(_open(group, found, styles))
    if not all(group.arg[method].complete for method in found.known):
        sentences.append("This cell is incomplete.")
    return " ".join(sentences)


def _open(group: Comparison, found: Verdict, styles: MethodStyles) -> str:
    """What is said of the methods that are not told apart from the baseline."""
    base, names, gains = styles.baseline_label, _listed(found.open, styles), _gains(found.open, group)
    tasks = count(found.n_tasks, "target task")
    if found.better:
        return f"{names} cannot be told apart from {base} ({gains})."
    if found.fewest:
        compared = count(len(found.known), "comparison")
        return (
            f"Too few target tasks to tell: {found.n_tasks} with {compared}, where the test needs "
            f"{found.fewest}. Over {base}: {gains}."
        )
    who = "No method beats" if not found.worse else "No other method differs from"
    if len(found.known) == 1:
        who = f"{names} cannot be told apart from"
    return f"{who} {base} as far as {tasks} show: {gains}, which the paired test does not tell from zero."


def _between(group: Comparison, found: Verdict, styles: MethodStyles) -> list[str]:
    """How those that beat the baseline stand to each other."""
    if len(found.better) < 2:
        return []
    pairs = {(a, b): group.pairs[a, b] for a in found.better for b in found.better if (a, b) in group.pairs}
    apart = {
        names: pair
        for names, pair in pairs.items()
        if pair.p_holm <= SIGNIFICANT and pair.difference_points > 0
    }
    if not apart:
        return ["They cannot be told apart."]
    if len(apart) > _PAIRS_NAMED:
        return [f"{len(apart)} of their {len(pairs) // 2} pairs can be told apart."]
    told = [
        f"{styles.label(a)} from {styles.label(b)} "
        f"({signed(pair.difference_points)} points, {p_equals(pair.p_holm)})"
        for (a, b), pair in apart.items()
    ]
    return [f"Pairs of them told apart: {listed(told)}."]


def _named(methods: Sequence[str], found: Verdict, styles: MethodStyles) -> str:
    """Methods in a sentence; "all" where none is missing."""
    every = len(methods) == len(found.known) > 2
    return f"All {len(methods)} methods, {_listed(methods, styles)}," if every else _listed(methods, styles)


def _listed(methods: Sequence[str], styles: MethodStyles) -> str:
    return listed([styles.label(method) for method in methods])


def plural_verb(subjects: Sequence[object], verb: str) -> str:
    """A verb for one subject or several: "beats", "beat"."""
    return verb if len(subjects) > 1 else f"{verb}s"


def _gains(methods: Sequence[str], group: Comparison) -> str:
    """The mean gain of one method with its interval, or the range of several."""
    gains = [group.arg[method] for method in methods]
    if len(gains) == 1:
        words = gain_words(gains[0])
        return f"mean gain {words.points} points {words.points_interval}".rstrip()
    means = sorted(gain.mean_points for gain in gains)
    return f"mean gains {signed(means[0])} to {signed(means[-1])} points"


def _at_most(p: float, of: Sequence[str]) -> str:
    return p_equals(p) if len(of) == 1 or p < 0.001 else f"p ≤ {p_value(p)}"


def overall(groups: Sequence[Comparison], styles: MethodStyles) -> str:
    """The result over several groups of cells: how many comparisons are decided, and who always wins."""
    found = [verdict(group, styles.baseline) for group in groups]
    total = sum(len(each.known) for each in found)
    if not total:
        return nothing_to_compare(styles)
    above, below = (sum(len(getattr(each, name)) for each in found) for name in ("better", "worse"))
    base = styles.baseline_label
    always = [
        method
        for method in styles.others
        if len([1 for each in found if method in each.known]) > 1
        and all(method in each.better for each in found if method in each.known)
    ]
    counted = (
        f"{above} {'is a gain' if above == 1 else 'are gains'} and "
        f"{below} {'is a loss' if below == 1 else 'are losses'}"
    )
    sentences = [
        f"Of {count(total, 'comparison')} with {base}, {counted} that interval and paired test confirm "
        f"(p at most {SIGNIFICANT:g}, corrected for the methods compared in a setting); "
        f"{total - above - below} cannot be told apart from {base}."
    ]
    if always:
        sentences.append(f"{_listed(always, styles)} {plural_verb(always, 'beat')} {base} in every setting.")
    if few := [group.name for group, each in zip(groups, found, strict=True) if each.fewest]:
        sentences.append(f"Too few target tasks for the test: {listed(few)}.")
    return " ".join(sentences)


def nothing_to_compare(styles: MethodStyles) -> str:
    """What is said of a study without a gain yet."""
    return f"There is nothing to compare with {styles.baseline_label} yet."


def certainty(group: Comparison, styles: MethodStyles, seeds: int) -> str:
    """How the result of a group was tested, and what was not varied; empty without a comparison.

    Args:
        group: the group.
        styles: the methods.
        seeds: meta-training seeds.
    """
    found = verdict(group, styles.baseline)
    if not found.known:
        return ""
    n = len(found.known)
    seed = " One meta-training seed: another could give another result." if seeds == 1 else ""
    tasks = count(found.n_tasks, "target task")
    return (
        f"Tested are mean gains in points, by paired sign flips over {tasks}, corrected for "
        f"{count(n, 'comparison')} (Holm). A difference counts if p is at most {SIGNIFICANT:g} and its 95 % "
        f"interval leaves out zero.{seed}"
    )


def warnings(group: Comparison, styles: MethodStyles) -> list[str]:
    """What a reader has to know before the numbers of a group: too few tasks, a baseline near zero, results
    at chance."""
    found, sentences = verdict(group, styles.baseline), []
    if found.fewest and found.known:
        compared = count(len(found.known), "method")
        sentences.append(
            f"{group.name}: {count(found.n_tasks, 'target task')} cannot tell {compared} from "
            f"{styles.baseline_label} at p ≤ {SIGNIFICANT:g}, whatever the scores; {found.fewest} could."
        )
    if group.near_zero:
        where = listed(group.near_zero)
        sentences.append(
            f"{group.name}: {styles.baseline_label} is near zero on {where}, so relative gains and ARG say "
            "little there; read the points."
        )
    if at := at_chance(group, styles):
        sentences.append(at)
    return sentences


def at_chance(group: Comparison, styles: MethodStyles) -> str:
    """Which mean scores are not above what is scored without reading; empty if none."""
    by_task: dict[str, list[str]] = {}
    levels = {}
    for method, task, level in group.at_chance():
        by_task.setdefault(task, []).append(styles.label(method))
        levels[task] = level
    if not by_task:
        return ""
    found = [f"{listed(names)} on {task} ({in_points(levels[task])})" for task, names in by_task.items()]
    return (
        f"{group.name}: at chance, not above guessing or the most frequent answer: {listed(found)}. Gains of "
        "such scores mean little."
    )


def without_zero_shot(groups: Sequence[Comparison], styles: MethodStyles) -> str:
    """How to have the backbone without a prompt next to chance and majority; empty where it is a method, or
    where no target has classes.
    """
    there = any(method == "zero_shot" or styles.label(method).startswith(ZERO_SHOT) for method in styles)
    if there or not any(group.blind for group in groups):
        return ""
    return "No zero-shot scores: zero_shot: {} under methods adds them."


def glossary(rows: pd.DataFrame, styles: MethodStyles) -> list[tuple[str, str]]:
    """The words of the page: what is scored, k, the methods and ARG."""
    base = styles.baseline_label
    lines = [("points", f"100 × the metric of the task, on its test set{_metrics(rows)}")]
    if shots := _shots(rows):
        lines.append(("k", shots))
    here = [method for method in styles if method in {styles.baseline, *rows["method"].astype(str)}]
    lines += [(styles.label(method), WHAT[method]) for method in here if method in WHAT]
    if learned := [styles.label(method) for method in here if method in LEARN]:
        lines.append((", ".join(learned), "prompt tuning from a start learned on source tasks"))
    if styles.others:
        ratio = f"100 × (score − {base}) / {base}"
        lines.append(("ARG", f"average relative gain: the mean over target tasks of {ratio}"))
    return lines


def _metrics(rows: pd.DataFrame) -> str:
    """Which metrics, and on how many tasks."""
    if "metric" not in rows:
        return ""
    counts = rows.drop_duplicates("task")["metric"].dropna().value_counts()
    if len(counts) == 1:
        return f": {counts.index[0]} on all of them"
    return f": {listed([f'{name} on {n}' for name, n in counts.items()])}" if len(counts) else ""


def _shots(rows: pd.DataFrame) -> str:
    """The shots of the tasks."""
    if "shots" not in rows:
        return ""
    counts = rows.drop_duplicates("task")["shots"].dropna().astype(int).value_counts()
    if counts.empty or not counts.index[0]:
        return ""
    named = listed([f"{k} on {count(n, 'task')}" for k, n in counts.items()])
    shots = str(counts.index[0]) if len(counts) == 1 else named
    return f"shots: {shots}; labeled rows of a class, or in all without classes, to train on; as many for dev"
