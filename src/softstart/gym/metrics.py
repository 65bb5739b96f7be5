"""Metrics: the seven of the NLP Few-shot Gym, equal to CrossFit's own scorers (Ye et al. 2021), and yours.

Scores are fractions, not percentages; higher is better. Nothing is stripped here: the caller strips the
white space around a prediction, as CrossFit's does.

Decisions where CrossFit's scorers fail or depend on the version of a library:

* An undefined Pearson correlation is NaN: constant gold or predictions, or one prediction that is not a
  finite number. Selection on dev must rank NaN below every number.
* No examples: NaN for every metric that is a mean, 0 for the Matthews coefficient.
* References that no prediction can be scored against are an error of the data, raised by
  ``check_references`` as a SoftstartError.

A metric of your own is one function and one ``Metric``, registered in ``METRICS`` or named by its import path
wherever a metric is named (``"metric": "mypackage.metrics.token_recall"``).
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np

from softstart.errors import SoftstartError
from softstart.registry import Registry

References = Sequence[Sequence[str]]
F1Labels = Literal["union", "gold"]
"""Over which labels Classification-F1 is a mean: all strings in gold or predictions, as CrossFit's (a wrong
string that is no label is one more class with F1 0), or the labels in gold alone."""

YES = "yes"
"""The answer whose F1 ``Micro-F1`` is: that a label fits (``softstart.gym.multi_label``)."""

GOLD_F1 = "Classification-F1 (gold labels)"
"""Classification-F1 over the labels in gold alone, as tables name it: it is another metric."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True)
class Metric:
    """A metric: a function of predictions and references, and what it asks of the data.

    Args:
        function: predictions and references, and with ``needs_labels`` the label words of the task, to a
            fraction (higher is better) or NaN.
        label: what it measures, in a few words.
        needs_labels: whether ``function`` takes the label words of the task as its third argument.
        form: brings a string into the form that the metric compares; decides whether a prediction counts as
            a label word.
        problem: why an example with these accepted answers cannot be scored; None if it can.
        fewest: examples that a score needs at least, if there are any.
        gold_labels: the registered metric that replaces it under ``f1_labels="gold"``, and is reported next
            to it as "gold-F1"; for metrics that are registered themselves.
    """

    function: Callable[..., float]
    label: str
    needs_labels: bool = False
    form: Callable[[str], str] = str
    problem: Callable[[Sequence[str]], str | None] | None = None
    fewest: int = 1
    gold_labels: str | None = None

    def __call__(self, predictions: Sequence[str], references: References, labels: Sequence[str]) -> float:
        """The score of predictions, one string per example; ``labels`` are the task's label words."""
        more: tuple[Any, ...] = (labels,) if self.needs_labels else ()
        return float(self.function(predictions, references, *more))


METRICS: Registry[Metric] = Registry("metric", accepts=lambda found: isinstance(found, Metric))
"""Metrics by name, as tasks name them."""


def score(
    metric: str,
    predictions: Sequence[str],
    references: References,
    *,
    f1_labels: F1Labels = "union",
    labels: Sequence[str] = (),
) -> float:
    """Score predictions against every example's accepted answers.

    Args:
        metric: one of ``METRICS``, or the import path of a ``Metric``.
        predictions: one string per example, white space at both ends already stripped.
        references: the accepted answers of each example; the first is the gold label where a metric
            knows only one (Classification-F1, Matthew-Correlation, Pearson-Correlation).
        f1_labels: over which labels Classification-F1 is a mean; other metrics ignore it.
        labels: the label words of the task, for metrics that need them.

    Raises:
        SoftstartError: for an unknown metric or references it cannot use (see ``check_references``).
        ValueError: if predictions and references differ in number.

    >>> score("EM", ["The answer!", "no"], [["answer"], ["yes", "sure"]])
    0.5
    >>> score("Classification-F1", ["joy", "junk"], [["joy"], ["fear"]])  # junk is one more class
    0.3333333333333333
    >>> score("Classification-F1", ["joy", "junk"], [["joy"], ["fear"]], f1_labels="gold")
    0.5
    """
    chosen = _checked(metric_name(metric, f1_labels), predictions, references)
    return chosen(predictions, references, labels)


def metric_name(metric: str, f1_labels: F1Labels) -> str:
    """The metric that ``f1_labels`` makes of one, as tables name it. Nothing is imported for it."""
    known = METRICS.get(metric)
    return (known.gold_labels if known and f1_labels == "gold" else None) or metric


def companions(
    labels: Sequence[str], metric: str, predictions: Sequence[str], references: References
) -> dict[str, float]:
    """What to report next to a score, never in its place; empty for tasks without classes.

    With free generation one junk string is one more class of F1 0 for Classification-F1. So:

    * "gold-F1" (where the metric is Classification-F1): macro-F1 over the labels that occur in gold alone;
    * "outside" (where the task has label words): the share of predictions that are none of them, compared
      as the metric compares.

    Args:
        labels: the label words of the task (``Task.labels``); empty for text-to-text.
        metric: the task's metric.
        predictions: one string per example, white space at both ends already stripped.
        references: the accepted answers of each example.

    Raises:
        SoftstartError: for an unknown metric or references it cannot use (see ``check_references``).
        ValueError: if predictions and references differ in number.
    """
    chosen = _checked(metric, predictions, references)
    values: dict[str, float] = {}
    if chosen.gold_labels:
        values["gold-F1"] = METRICS[chosen.gold_labels](predictions, references, labels)
    if labels:
        words = {chosen.form(label) for label in labels}
        values["outside"] = _mean([float(chosen.form(text) not in words) for text in predictions])
    return values


def taken_for_one(metric: str, texts: Iterable[str]) -> tuple[str, str] | None:
    """Two of these answers, or one and the empty answer, that a metric cannot tell apart; None: it can.

    Raises:
        SoftstartError: for an unknown metric.

    >>> taken_for_one("EM", ["C#", "C++"])
    ('C#', 'C++')
    >>> taken_for_one("EM", ["A", "B"])  # an article
    ('', 'A')
    """
    form = METRICS.find(metric).form
    seen = {form(""): ""}
    for text in texts:
        other = seen.setdefault(form(text), text)
        if other != text:
            return other, text
    return None


def check_references(metric: str, references: References) -> None:
    """Raise SoftstartError if the metric is unknown or cannot score anything against these answers.

    EM, ACC, QA-F1 and Rouge-L score an example without answers 0, as CrossFit does. The other metrics
    need one answer per example (Pearson: a finite number, and at least two examples), and Rouge-L has
    no value for an answer that is empty or made of full stops only.
    """
    chosen = METRICS.find(metric)
    if chosen.problem is not None:
        for i, answers in enumerate(references, 1):
            if what := chosen.problem(answers):
                raise SoftstartError(what, where=f"{metric}, example {i}", fix="Fix or remove the example.")
    if 0 < len(references) < chosen.fewest:
        raise SoftstartError(f"it needs at least {chosen.fewest} examples", where=metric)


def _checked(metric: str, predictions: Sequence[str], references: References) -> Metric:
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
    check_references(metric, references)
    return METRICS.find(metric)


def exact_match(predictions: Sequence[str], references: References) -> float:
    """EM: equal after lower-casing and deleting ASCII punctuation, articles and extra white space."""
    return _mean_of_best(lambda p, r: float(_normalize(p) == _normalize(r)), predictions, references)


def accuracy(predictions: Sequence[str], references: References) -> float:
    """ACC: equal after lower-casing; spaces, punctuation and articles matter."""
    return _mean_of_best(lambda p, r: float(p.lower() == r.lower()), predictions, references)


def equal(predictions: Sequence[str], references: References) -> float:
    """Equal: the same string, every letter and sign; for answers that EM or ACC would take for one."""
    return _mean_of_best(lambda p, r: float(p == r), predictions, references)


def qa_f1(predictions: Sequence[str], references: References) -> float:
    """QA-F1: F1 of the bags of words, both sides normalized as for EM; 0 without a common word."""
    return _mean_of_best(_word_f1, predictions, references)


def rouge_l(predictions: Sequence[str], references: References) -> float:
    """Rouge-L: summary-level, on sets of words, as the package ``rouge`` 1.0 computes it."""
    return _mean_of_best(_rouge_l, predictions, references)


def macro_f1(predictions: Sequence[str], references: References) -> float:
    """Classification-F1: unweighted mean of the F1 of every distinct string in gold or predictions.

    A wrong string that is no label of the task therefore adds a class with F1 0. Strings are compared
    as they are, case included.
    """
    return _mean(list(_f1_by_label([answers[0] for answers in references], predictions).values()))


def gold_macro_f1(predictions: Sequence[str], references: References) -> float:
    """Macro-F1 over the labels that occur in gold: a wrong string costs its example and no more."""
    gold = [answers[0] for answers in references]
    f1 = _f1_by_label(gold, predictions)
    return _mean([f1[label] for label in dict.fromkeys(gold)])


def micro_f1(predictions: Sequence[str], references: References) -> float:
    """Micro-F1: F1 of the answer "yes" over all pairs of a row and a label; 0 if there is none."""
    return _f1_by_label([answers[0] for answers in references], predictions).get(YES, 0.0)


def matthews(predictions: Sequence[str], references: References, labels: Sequence[str] = ()) -> float:
    """Matthew-Correlation; 0 if undefined.

    Of a task without the label word "acceptable" it is the correlation of all classes (Gorodkin, 2004), which
    is Matthews' for two of them; otherwise that of "acceptable" against any other string, as CrossFit's.
    """
    if labels and "acceptable" not in labels:
        return _correlation_of_classes(predictions, [answers[0] for answers in references])
    p = np.array([prediction.strip() == "acceptable" for prediction in predictions], dtype=bool)
    g = np.array([answers[0] == "acceptable" for answers in references], dtype=bool)
    tp, tn, fp, fn = (int(n.sum()) for n in (p & g, ~p & ~g, p & ~g, ~p & g))
    denominator = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return (tp * tn - fp * fn) / denominator if denominator else 0.0


def _correlation_of_classes(predictions: Sequence[str], gold: Sequence[str]) -> float:
    """R_K of Gorodkin (2004): the covariance of two classifications, scaled by their variances."""
    n, hits = len(gold), sum(p == g for p, g in zip(predictions, gold, strict=True))
    given, true = Counter(predictions), Counter(gold)
    together = sum(count * true[label] for label, count in given.items())
    spreads = [n * n - sum(count * count for count in side.values()) for side in (given, true)]
    if 0 in spreads:
        return 0.0
    return (n * hits - together) / math.sqrt(spreads[0] * spreads[1])


def pearson(predictions: Sequence[str], references: References) -> float:
    """Pearson-Correlation of the numbers written; NaN if one is unreadable or either side is constant."""
    x = np.array([_number(prediction) for prediction in predictions])
    y = np.array([_number(answers[0]) for answers in references])
    if len(x) == 0 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.nan
    if (x == x[0]).all() or (y == y[0]).all():
        return math.nan
    # Scaling first keeps the squares of very large or small numbers in range.
    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    r = float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))
    return max(-1.0, min(1.0, r))


def _f1_by_label(gold: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """F1 of every distinct string in gold or predictions."""
    # 2TP / (2TP + FP + FN): the denominator is how often the label is gold plus how often it is predicted.
    occurrences = Counter(gold) + Counter(predictions)
    hits = Counter(g for g, p in zip(gold, predictions, strict=True) if g == p)
    return {label: 2 * hits[label] / n for label, n in occurrences.items()}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _mean_of_best(
    similarity: Callable[[str, str], float], predictions: Sequence[str], references: References
) -> float:
    pairs = zip(predictions, references, strict=True)
    return _mean([max((similarity(p, answer) for answer in answers), default=0.0) for p, answers in pairs])


def _normalize(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _word_f1(prediction: str, answer: str) -> float:
    p, a = Counter(_normalize(prediction).split()), Counter(_normalize(answer).split())
    common = (p & a).total()
    return 2 * common / (p.total() + a.total()) if common else 0.0


def _number(text: str) -> float:
    try:
        return float(text.strip())
    except ValueError:
        return math.nan


def _rouge_l(prediction: str, answer: str) -> float:
    if not prediction.translate(_PUNCTUATION):
        return 0.0
    pieces_p, pieces_a = _pieces(prediction), _pieces(answer)
    words_p, words_a = ({word for piece in pieces for word in piece} for pieces in (pieces_p, pieces_a))
    if not words_p & words_a:
        return 0.0
    union = {w for a, p in product(pieces_a, pieces_p) for w in _common_subsequence(a, p)}
    precision, recall = len(union) / len(words_p), len(union) / len(words_a)
    return 2 * precision * recall / (precision + recall + 1e-8)


def _pieces(text: str) -> list[list[str]]:
    """The text cut at every full stop, each piece a list of words; a blank piece is one empty word."""
    return [" ".join(piece.split()).split(" ") for piece in text.split(".") if piece]


def _common_subsequence(answer: list[str], prediction: list[str]) -> set[str]:
    """The words of one longest common subsequence, the one that CrossFit's scorer walks back to."""
    ids = {word: i for i, word in enumerate({*answer, *prediction})}
    a, p = ([ids[word] for word in piece] for piece in (answer, prediction))
    row_of_p = np.array(p)
    table = np.zeros((len(a) + 1, len(p) + 1), dtype=np.int64)
    for i, word in enumerate(a):
        # One row at once: the best of the row above and a match on the diagonal, carried rightwards.
        diagonal = table[i, :-1] + (row_of_p == word)
        np.maximum.accumulate(np.maximum(table[i, 1:], diagonal), out=table[i + 1, 1:])
    words: set[str] = set()
    i, j = len(a), len(p)
    while i and j:
        if a[i - 1] == p[j - 1]:
            words.add(answer[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1, j] > table[i, j - 1]:
            i -= 1
        else:
            j -= 1
    return words


def _no_answer(answers: Sequence[str]) -> str | None:
    return None if answers else "no answer to score against"


def _no_number(answers: Sequence[str]) -> str | None:
    if answers and math.isfinite(_number(answers[0])):
        return None
    return f"the answer {answers[0]!r} is not a finite number" if answers else _no_answer(answers)


def _only_full_stops(answers: Sequence[str]) -> str | None:
    empty = [a for a in answers if not a.strip(".")]
    return f"the answer {empty[0]!r} holds nothing but full stops" if empty else None


METRICS.add("EM", Metric(exact_match, "equal after normalization", form=_normalize))
METRICS.add("ACC", Metric(accuracy, "equal but for case", form=str.lower))
METRICS.add("Equal", Metric(equal, "equal as written"))
METRICS.add("QA-F1", Metric(qa_f1, "F1 of the words in common"))
METRICS.add(
    "Classification-F1",
    Metric(
        macro_f1, "macro-F1 of all strings in gold or predictions", problem=_no_answer, gold_labels=GOLD_F1
    ),
)
METRICS.add(
    "Matthew-Correlation",
    Metric(matthews, "Matthews correlation", needs_labels=True, problem=_no_answer),
)
METRICS.add("Pearson-Correlation", Metric(pearson, "Pearson correlation", problem=_no_number, fewest=2))
METRICS.add("Micro-F1", Metric(micro_f1, "micro-F1 of several labels a row", problem=_no_answer))
METRICS.add("Rouge-L", Metric(rouge_l, "F1 of the longest common subsequence", problem=_only_full_stops))
METRICS.add(GOLD_F1, Metric(gold_macro_f1, "macro-F1 of the labels in gold", problem=_no_answer))
