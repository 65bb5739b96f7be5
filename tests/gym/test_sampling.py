import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softstart.errors import SoftstartError
from softstart.gym import Example, kshot, write_tsv
from softstart.gym.sampling import shuffled
from softstart.gym.tsv import to_line

seeds = st.integers(0, 2**32 - 1)
pools = st.lists(st.tuples(st.text(), st.sampled_from("abc")), min_size=1, max_size=120)


def test_control_values_of_the_frozen_generator():
    assert shuffled(range(10), 42) == [8, 1, 5, 0, 7, 2, 9, 4, 3, 6]
    assert shuffled(range(10), 100) == [7, 6, 1, 5, 4, 2, 0, 3, 9, 8]


@given(rows=pools, seed=seeds, k=st.integers(1, 20))
def test_text_to_text_is_the_head_of_numpys_own_shuffle(rows, seed, k):
    pool = list(rows)
    np.random.seed(seed)  # noqa: NPY002
    np.random.shuffle(pool)  # noqa: NPY002
    assert kshot(rows, k, seed, "text2text") == (pool[:k], pool[k : 2 * k])


@given(rows=pools, seed=seeds, k=st.integers(1, 20))
def test_classification_is_balanced_disjoint_and_grouped_by_label(rows, seed, k):
    numbered = [(f"{i} {text}", label) for i, (text, label) in enumerate(rows)]
    train, dev = kshot(numbered, k, seed, "classification")
    order = list(dict.fromkeys(label for _, label in shuffled(numbered, seed)))
    for label in order:
        n = sum(row[1] == label for row in numbered)
        assert sum(row[1] == label for row in train) == min(k, n)
        assert sum(row[1] == label for row in dev) == min(k, max(0, n - k))
    assert not set(train) & set(dev)
    assert set(train) | set(dev) <= set(numbered)
    for part in (train, dev):
        assert [row[1] for row in part] == sorted((row[1] for row in part), key=order.index)


@given(rows=pools, seed=seeds, k=st.integers(1, 10), kind=st.sampled_from(["classification", "text2text"]))
def test_a_draw_depends_on_its_arguments_alone(rows, seed, k, kind):
    np.random.seed(0)  # noqa: NPY002
    first = kshot(rows, k, seed, kind)
    np.random.random(3)  # noqa: NPY002
    assert kshot(tuple(rows), k, seed, kind) == first


@given(rows=pools, seed=seeds, k=st.integers(1, 10))
def test_a_larger_k_holds_the_smaller_one(rows, seed, k):
    small, large = (kshot(rows, n, seed, "classification") for n in (k, 2 * k))
    for label in "abc":
        mine = [[row for row in part if row[1] == label] for part in (*small, large.train)]
        assert mine[0] + mine[1] == mine[2]


def test_rows_in_any_form_give_the_same_lines(tmp_path):
    pairs = [(f"text {i}", ("x", "y") if i % 2 else ("z",)) for i in range(40)]
    forms = {
        "pairs": [(text, "\t".join(answers)) for text, answers in pairs],
        "lists": [[text, *answers] for text, answers in pairs],
        "nested": pairs,
        "examples": [Example(text, answers) for text, answers in pairs],
        "mappings": [{"input": text, "output": list(answers)} for text, answers in pairs],
    }
    written = set()
    for name, rows in forms.items():
        write_tsv(tmp_path / name, kshot(rows, 4, 13, "classification").train)
        written.add((tmp_path / name).read_bytes())
    (only,) = written
    assert only.count(b"\n") == 8


def test_nothing_is_escaped_and_numbers_are_plain():
    assert to_line(("a\tb\nc", 5)) == "a\tb\nc\t5\n"
    rows = [("x", 1), ("y", 2), ("z", 1)]
    assert sorted(to_line(row)[1:] for row in kshot(rows, 1, 0, "classification").train) == ["\t1\n", "\t2\n"]


def test_an_input_with_a_tab_keeps_its_class():
    rows = [("a\tb", "yes"), ("c\td", "yes"), ("e", "no")]
    assert len(kshot(rows, 1, 13, "classification").train) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([], 16, 13, "classification"), "no rows"),
        (([("a", "b")], 0, 13, "text2text"), "k must be"),
        (([("a", "b")], True, 13, "text2text"), "k must be"),
        (([("a", "b")], 16, -1, "text2text"), "a seed is"),
        (([("a", "b")], 16, 2**32, "text2text"), "a seed is"),
        (([("a", "b")], 16, 13, "regression"), "unknown kind 'regression'"),
        ((["ab"], 16, 13, "classification"), "expected a row of input and output"),
    ],
)
def test_bad_arguments_are_named(arguments, says):
    with pytest.raises(SoftstartError, match=says):
        kshot(*arguments)
