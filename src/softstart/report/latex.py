"""Tables for a paper, in LaTeX with booktabs; that of scores is complete, with caption and label."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from softstart.report.style import MethodStyles
from softstart.report.tables import Comparison
from softstart.report.verdict import SIGNIFICANT
from softstart.report.words import count, gain_words, in_points, p_value, signed

Best = Mapping[str, tuple[str, float]]
"""By task, the method with the highest mean and the p of its runs against every other method's."""


def tabular(header: Sequence[str], body: Sequence[Sequence[str]], last: Sequence[Sequence[str]] = ()) -> str:
    """A table without a caption; all texts are escaped, but those marked by ``bold``."""
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", _cells(header), r"\midrule"]
    lines += map(_cells, body)
    lines += [r"\midrule", *map(_cells, last)] if last else []
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


_BOLD = "\0"
"""Begins and ends what is bold; no name holds it."""


def bold(text: str) -> str:
    """A text that is set bold."""
    return f"{_BOLD}{text}{_BOLD}"


def escaped(text: str) -> str:
    """A text as it is read, in LaTeX."""
    inside = "".join(_LATEX.get(c, c) for c in text)
    return re.sub(f"{_BOLD}(.*?){_BOLD}", r"\\textbf{\1}", inside)


def _cells(texts: Sequence[str]) -> str:
    return " & ".join(map(escaped, texts)) + r" \\"


_LATEX = {
    **{c: rf"\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "\u2212": "$-$", "†": r"$\dagger$", "·": r"$\cdot$", "–": "--", "\n": " ", "±": r"$\pm$",
    "×": r"$\times$", "≤": r"$\le$",
}  # fmt: skip


def arg_table(groups: Sequence[Comparison], styles: MethodStyles) -> str:
    """ARG by group and method."""
    methods = styles.in_order([m for group in groups for m in group.methods if m != styles.baseline])
    body = [
        [group.name, *(gain_words(group.arg.get(method)).arg_full for method in methods)] for group in groups
    ]
    return tabular(["", *map(styles.label, methods)], body)


def scores_table(group: Comparison, styles: MethodStyles, best: Best, seeds: int, study: str = "") -> str:
    """Test scores by task and method of one group: mean ± deviation, averages, gains, tests, caption, label.

    Args:
        group: the cells.
        styles: the methods.
        best: what is bold, see ``Best``.
        seeds: meta-training seeds.
        study: its name, the first part of the label.
    """
    metric = len({facts.metric for facts in group.facts.values()}) > 1
    body = [
        [
            f"{task} ({group.facts[task].metric})" if metric and group.facts[task].metric else task,
            *(_score(group, task, method, best) for method in group.methods),
        ]
        for task in group.tasks
    ]
    gains = [gain_words(group.arg.get(method)) for method in group.methods]
    judged = [
        None if method == styles.baseline else group.pairs.get((method, styles.baseline))
        for method in group.methods
    ]
    means = {method: group.mean(method) for method in group.methods}
    last = [
        ["mean", *(_mean(group, method, means) for method in group.methods)],
        ["gain, points", *(gain.points if pair else "" for gain, pair in zip(gains, judged, strict=True))],
        [
            "95 % interval",
            *(gain.points_interval if pair else "" for gain, pair in zip(gains, judged, strict=True)),
        ],
        ["p (Holm)", *(p_value(pair.p_holm) if pair else "" for pair in judged)],
        ["ARG, %", *(gain.arg if pair else "" for gain, pair in zip(gains, judged, strict=True))],
    ]
    label = "-".join(re.findall(r"[a-z0-9]+", f"{study} {group.name}".lower()))
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(_caption(group, styles, seeds))}}}",
            rf"\label{{tab:{label}}}",
            tabular(["", *map(styles.label, group.methods)], body, last) + r"\end{table}",
            "",
        ]
    )


def _score(group: Comparison, task: str, method: str, best: Best) -> str:
    score = group.scores.get((task, method))
    if score is None:
        return ""
    text = in_points(score.mean) + (f" ± {in_points(score.std)}" if score.n > 1 else "")
    winner, p = best.get(task, ("", 1.0))
    return bold(text) if method == winner and p <= SIGNIFICANT else text


def _mean(group: Comparison, method: str, means: Mapping[str, float]) -> str:
    """The mean over tasks, bold where it is told apart from that of every other method."""
    others = [group.pairs.get((method, other)) for other in means if other != method]
    ahead = [pair for pair in others if pair and pair.p_holm <= SIGNIFICANT and pair.difference_points > 0]
    text = in_points(means[method])
    return bold(text) if others and len(ahead) == len(others) else text


def _caption(group: Comparison, styles: MethodStyles, seeds: int) -> str:
    """What the table shows: the metric, k, what ± is, what is bold, and the test."""
    base, judged = styles.baseline_label, len(group.methods) - 1
    metrics = list(dict.fromkeys(facts.metric for facts in group.facts.values() if facts.metric))
    scored = (
        metrics[0] if len(metrics) == 1 else "the metric in parentheses" if metrics else "the task's metric"
    )
    shots = sorted({facts.shots for facts in group.facts.values() if facts.shots})
    k = f"k = {' or '.join(map(str, shots))}; " if shots else ""
    runs = max((score.n for score in group.scores.values()), default=1)
    spread = f", mean ± standard deviation over up to {count(runs, 'run')}" if runs > 1 else ""
    tasks, compared = count(len(group.tasks), "task"), count(judged, "comparison")
    return (
        f"{group.name}: test scores in points (100 × {scored}){spread}; {k}"
        f"{count(seeds, 'meta-training seed')}. ARG: average relative gain over {base}. p: paired sign flips "
        f"over {tasks} of the gain in points, corrected by Holm for {compared}. Bold: told apart from every "
        f"other method (p ≤ {SIGNIFICANT:g}, Holm; for a task by sign flips over its runs)."
    )


def pairs_table(groups: Sequence[Comparison], styles: MethodStyles) -> str:
    """Method against method: the mean difference of row and column in points, bold where told apart."""
    parts = []
    for group in groups:
        body = []
        for method in group.methods:
            cells = [styles.label(method)]
            for other in group.methods:
                pair = group.pairs.get((method, other))
                text = f"{signed(pair.difference_points)} ({p_value(pair.p_holm)})" if pair else ""
                cells.append(bold(text) if pair and pair.p_holm <= SIGNIFICANT else text)
            body.append(cells)
        head = f"% {' '.join(group.name.split())}: row minus column in points (p, Holm)\n"
        parts.append(head + tabular(["", *map(styles.label, group.methods)], body))
    return "\n".join(parts)
