import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from softstart.errors import SoftstartError
from softstart.gym.metrics import companions, score

LABELS = ("yes", "no")
pairs = st.lists(
    st.tuples(st.sampled_from(LABELS), st.sampled_from(["yes", "no", "Yes", "junk", ""])), min_size=1
)


@given(rows=pairs)
def test_gold_f1_is_scikit_learns_over_the_gold_labels(rows):
    gold, predictions = map(list, zip(*rows, strict=True))
    reported = companions(LABELS, "Classification-F1", predictions, [[g] for g in gold])
    wanted = f1_score(gold, predictions, labels=sorted(set(gold)), average="macro", zero_division=0)
    assert reported["gold-F1"] == pytest.approx(wanted, abs=1e-12)
    assert reported["outside"] == pytest.approx(sum(p not in LABELS for p in predictions) / len(rows))
    assert reported["gold-F1"] >= score("Classification-F1", predictions, [[g] for g in gold]) - 1e-12


def test_one_junk_string_is_one_more_class_for_the_metric_alone():
    gold = [["yes"], ["no"]] * 50
    predictions = [g[0] for g in gold[:-1]] + ["jail"]
    assert score("Classification-F1", predictions, gold) == pytest.approx(0.6633, abs=1e-4)
    assert companions(LABELS, "Classification-F1", predictions, gold) == {
        "gold-F1": pytest.approx(0.9950, abs=1e-4),
        "outside": 0.01,
    }


def test_a_prediction_the_metric_accepts_is_inside():
    assert companions(LABELS, "ACC", ["YES", "nope"], [["yes"], ["no"]]) == {"outside": 0.5}
    assert companions(LABELS, "EM", ["the yes!", "no."], [["yes"], ["no"]]) == {"outside": 0.0}


def test_tasks_without_classes_have_none():
    assert companions((), "Rouge-L", ["a"], [["a b"]]) == {}
    assert set(companions((), "Classification-F1", ["a"], [["a"]])) == {"gold-F1"}
    assert math.isnan(companions(LABELS, "ACC", [], [])["outside"])


def test_bad_calls_are_refused():
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        companions(LABELS, "ACC", ["a"], [["a"], ["b"]])
    with pytest.raises(SoftstartError, match="unknown metric 'acc'"):
        companions(LABELS, "acc", ["a"], [["a"]])
