import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import f1_score, matthews_corrcoef

from helpers.shared import SHARED
from softstart.errors import SoftstartError
from softstart.gym.catalog import crossfit_catalog
from softstart.gym.metrics import GOLD_F1, METRICS, companions, score

CASES_FILE = SHARED / "gym" / "metric_cases.json" if SHARED else None
CASES = json.loads(CASES_FILE.read_text())["cases"] if CASES_FILE and CASES_FILE.is_file() else []

# The original stops at Python's recursion limit, and current scikit-learn refuses an empty list.
OURS = {"Rouge-L-17": 0.999999995, "Matthew-Correlation-13": 0.0}


@pytest.mark.skipif(not CASES, reason="shared/gym/metric_cases.json is not here")
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_equals_crossfits_own_scorer(case):
    expected = OURS.get(case["id"], case.get("expected_modern", case["expected"]))
    if isinstance(expected, dict):
        with pytest.raises(SoftstartError):
            score(case["metric"], case["predictions"], case["references"])
    else:
        actual = score(case["metric"], case["predictions"], case["references"])
        assert actual == pytest.approx(float(expected), abs=1e-9, nan_ok=True)


def test_the_catalog_uses_every_metric_and_no_other():
    assert {facts.metric for facts in crossfit_catalog().values()} == set(METRICS) - {
        GOLD_F1,
        "Equal",
        "Micro-F1",
    }


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=1, max_size=30))
def test_matthews_correlation_of_any_labels_is_that_of_scikit_learn(pairs):
    gold, given_ = [g for g, _ in pairs], [p for _, p in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = matthews_corrcoef(gold, given_)
    found = score("Matthew-Correlation", given_, [[g] for g in gold], labels=["a", "b", "c"])
    assert found == pytest.approx(expected, abs=1e-12)


labels = st.sampled_from(["a", "b", "c", "junk", "A", ""])
verdicts = st.sampled_from(["acceptable", "unacceptable"])
label_pairs = st.lists(st.tuples(labels, labels), min_size=1, max_size=40)
words = st.lists(
    st.sampled_from(["the", "cat", "Sat", "on", "a", "mat", "u.s.", ".", "mat!", "x"]), max_size=12
)
text = words.map(" ".join)
text_pairs = st.lists(
    st.tuples(text, st.lists(text.map(lambda t: t + " end"), min_size=1, max_size=3)), min_size=1
)


@given(label_pairs)
def test_classification_f1_is_scikit_learns_macro_f1(pairs):
    gold, predictions = [g for g, _ in pairs], [p for _, p in pairs]
    expected = f1_score(gold, predictions, average="macro", zero_division=0)
    assert score("Classification-F1", predictions, [[g] for g in gold]) == pytest.approx(expected, abs=1e-12)


@given(
    st.lists(
        st.tuples(st.sampled_from(["acceptable", "unacceptable"]), labels | st.just("acceptable")), min_size=1
    )
)
@pytest.mark.filterwarnings("ignore:A single label:UserWarning")
def test_matthews_is_scikit_learns(pairs):
    gold, predictions = [g for g, _ in pairs], [p for _, p in pairs]
    expected = matthews_corrcoef([g == "acceptable" for g in gold], [p == "acceptable" for p in predictions])
    actual = score("Matthew-Correlation", predictions, [[g] for g in gold])
    assert actual == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 5)), min_size=2, max_size=40))
def test_pearson_is_scipys(pairs):
    x, y = np.array(pairs, dtype=float).T
    actual = score("Pearson-Correlation", [f"{v:g}" for v in x], [[f"{v:g}"] for v in y])
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert math.isnan(actual)
    else:
        assert actual == pytest.approx(pearsonr(x, y).statistic, abs=1e-12)


def test_one_unreadable_number_makes_pearson_undefined_and_never_raises():
    assert math.isnan(score("Pearson-Correlation", ["1", "five stars", "3"], [["1"], ["2"], ["3"]]))


@pytest.mark.parametrize("metric", ["EM", "ACC", "QA-F1", "Rouge-L"])
@given(pairs=text_pairs)
def test_best_of_several_answers(metric, pairs):
    predictions, references = [p for p, _ in pairs], [r for _, r in pairs]
    together = score(metric, predictions, references)
    assert 0 <= together <= 1
    best = [max(score(metric, [p], [[answer]]) for answer in answers) for p, answers in pairs]
    assert together == pytest.approx(sum(best) / len(best), abs=1e-12)
    reordered = score(metric, predictions[::-1], [answers[::-1] for answers in references[::-1]])
    assert together == pytest.approx(reordered, abs=1e-12)


@pytest.mark.parametrize("metric", ["EM", "ACC", "QA-F1", "Rouge-L"])
def test_an_example_without_answers_scores_zero(metric):
    assert score(metric, ["word", "word"], [["word"], []]) == pytest.approx(0.5)


@given(words, words)
def test_rouge_l_of_single_pieces_is_the_f1_of_a_longest_common_subsequence(prediction, answer):
    # Distinct words without full stops: the set counting of the scorer is then plain LCS counting.
    p, a = ([w for w in dict.fromkeys(side) if "." not in w] for side in (prediction, answer))
    if not p or not a:
        return
    expected = 2 * _lcs(p, a) / (len(p) + len(a))
    assert score("Rouge-L", [" ".join(p)], [[" ".join(a)]]) == pytest.approx(expected, abs=1e-7)


def _lcs(a, b):
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return 1 + _lcs(a[:-1], b[:-1])
    return max(_lcs(a[:-1], b), _lcs(a, b[:-1]))


def test_rouge_l_has_no_limit_on_length():
    # Each side alone is beyond Python's recursion limit; the prediction is every second word.
    answer = [f"w{i}" for i in range(3000)]
    actual = score("Rouge-L", [" ".join(answer[::2])], [[" ".join(answer)]])
    assert actual == pytest.approx(2 / 3, abs=1e-7)


def test_wrong_strings_add_classes():
    assert score("Classification-F1", ["a", "b", "b"], [["a"], ["b"], ["b"]]) == 1
    assert score("Classification-F1", ["a", "b", "x"], [["a"], ["b"], ["b"]]) == pytest.approx(5 / 9)


def test_an_unknown_metric_is_an_error_that_names_the_known_ones():
    with pytest.raises(SoftstartError, match=r"unknown metric 'F1'.*Did you mean .*Classification-F1"):
        score("F1", ["a"], [["a"]])
    with pytest.raises(SoftstartError, match=r"unknown metric 'bleu'. Use one of EM, .*Rouge-L"):
        score("bleu", ["a"], [["a"]])


@pytest.mark.parametrize(
    ("metric", "references", "says"),
    [
        ("Classification-F1", [["a"], []], "example 2: no answer"),
        ("Pearson-Correlation", [["1"], ["good"]], "example 2: the answer 'good' is not a finite number"),
        ("Rouge-L", [["fine"], ["..."]], "example 2: the answer '...' holds nothing"),
    ],
)
def test_references_that_cannot_be_scored_are_named(metric, references, says):
    with pytest.raises(SoftstartError) as error:
        score(metric, ["1", "2"], references)
    assert says in str(error.value)


def test_predictions_and_references_must_pair_up():
    with pytest.raises(ValueError, match="1 predictions for 2"):
        score("EM", ["a"], [["a"], ["b"]])


@given(pairs=label_pairs)
def test_f1_over_gold_labels_is_scikit_learns_with_these_labels(pairs):
    gold, predicted = zip(*pairs, strict=True)
    expected = f1_score(gold, predicted, labels=sorted(set(gold)), average="macro", zero_division=0)
    references = [(g,) for g in gold]
    actual = score("Classification-F1", predicted, references, f1_labels="gold")
    assert actual == pytest.approx(expected, abs=1e-12)
    assert score("ACC", predicted, references, f1_labels="gold") == score("ACC", predicted, references)
    assert actual >= score("Classification-F1", predicted, references) - 1e-12


YES_NO = ("yes", "no")


answered = st.lists(
    st.tuples(st.sampled_from(YES_NO), st.sampled_from(["yes", "no", "Yes", "junk", ""])), min_size=1
)


@given(rows=answered)
def test_the_companion_gold_f1_is_scikit_learns_over_the_gold_labels(rows):
    gold, predictions = map(list, zip(*rows, strict=True))
    reported = companions(YES_NO, "Classification-F1", predictions, [[g] for g in gold])
    wanted = f1_score(gold, predictions, labels=sorted(set(gold)), average="macro", zero_division=0)
    assert reported["gold-F1"] == pytest.approx(wanted, abs=1e-12)
    assert reported["outside"] == pytest.approx(sum(p not in YES_NO for p in predictions) / len(rows))
    assert reported["gold-F1"] >= score("Classification-F1", predictions, [[g] for g in gold]) - 1e-12


def test_one_junk_string_is_one_more_class_for_the_metric_alone():
    gold = [["yes"], ["no"]] * 50
    predictions = [g[0] for g in gold[:-1]] + ["jail"]
    assert score("Classification-F1", predictions, gold) == pytest.approx(0.6633, abs=1e-4)
    assert companions(YES_NO, "Classification-F1", predictions, gold) == {
        "gold-F1": pytest.approx(0.9950, abs=1e-4),
        "outside": 0.01,
    }


def test_a_prediction_the_metric_accepts_is_inside():
    assert companions(YES_NO, "ACC", ["YES", "nope"], [["yes"], ["no"]]) == {"outside": 0.5}
    assert companions(YES_NO, "EM", ["the yes!", "no."], [["yes"], ["no"]]) == {"outside": 0.0}


def test_tasks_without_classes_have_no_companions():
    assert companions((), "Rouge-L", ["a"], [["a b"]]) == {}
    assert set(companions((), "Classification-F1", ["a"], [["a"]])) == {"gold-F1"}
    assert math.isnan(companions(YES_NO, "ACC", [], [])["outside"])


def test_bad_calls_of_companions_are_refused():
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        companions(YES_NO, "ACC", ["a"], [["a"], ["b"]])
    with pytest.raises(SoftstartError, match="unknown metric 'acc'"):
        companions(YES_NO, "acc", ["a"], [["a"]])
