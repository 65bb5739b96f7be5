"""Quirks on made-up rows, and random ones from split to split."""

import pytest

from softstart.gym.catalog import crossfit_catalog
from softstart.gym.lines import make_lines


def lines(entry, rows):
    return [keyed.line for keyed in make_lines(entry, rows, "rows")]


ACRONYM = {"tokens": ["the", "Word", "Net", "base", "(", "WN", ")"], "labels": [4, 0, 2, 2, 4, 1, 4]}


HOTPOT = {
    "question": "Q?",
    "answer": "yes",
    "supporting_facts": {"title": ["B", "A"]},
    "context": {"title": ["A", "C", "B"], "sentences": [["a1.", " a2."], ["c."], ["b."]]},
}


RIDE = {"prompt": "a_comma_ b", "context": "joy", "utterance": "so_comma_\nso"}


QUAREL = "Ice is smooth. Slides are faster on (A) ice or (B) sand"


MATH = "a ) 1 , b ) 2 , c ) 3 , d ) 4 , e ) 5"


TABLE = {"column_header": ["name", "born"], "content": ["Ada\n", "1815 "]}


CUSTOM = {
    "acronym_identification": (
        [ACRONYM, {**ACRONYM, "labels": [4] * 7}],
        [("the Word Net base ( WN ) [SEP] acronym: WN", "Word Net base")],
    ),
    "aqua_rat": (
        [{"question": "1+1\n?", "options": ["A)1", "B)2"], "correct": "B"}],
        [("1+1 ? (A) 1 (B) 2", "2")],
    ),
    "common_gen": (
        [
            {"concept_set_idx": 0, "concepts": ["dog", "run"], "target": "A dog runs."},
            {"concept_set_idx": 1, "concepts": ["cat"], "target": "A cat."},
            {"concept_set_idx": 0, "concepts": ["dog", "run"], "target": "Dogs run."},
        ],
        [("dog, run", "A dog runs.\tDogs run."), ("cat", "A cat.")],
    ),
    "duorc": (
        [
            {"question": "Who?", "plot": "He\nran.", "answers": ["x", "x", "y\n"], "no_answer": False},
            {"question": "Why?", "plot": "", "answers": [], "no_answer": True},
        ],
        [("question: Who? context: He ran.", "x\ty")],
    ),
    "empathetic_dialogues": (
        [RIDE, {**RIDE, "utterance": "hit:1_conv"}, {**RIDE, "utterance": "yes"}],
        [("a, b [SEP] joy", "so, so\tyes")],
    ),
    "freebase_qa": (
        [{"RawQuestion": "Who?", "Parses": {"Answers": [
            {"AnswersName": [["b", "a"], ["c"]]}, {"AnswersName": [["a"], []]},
        ]}}],
        [("Who?", "a\tb\tc")],
    ),
    "google_wellformed_query": (
        [{"content": f"q{r} ", "rating": r} for r in (0.2, 0.4, 0.5, 0.6, 1.0)],
        [("q0.2", "not well-formed"), ("q0.6", "well-formed"), ("q1.0", "well-formed")],
    ),
    "hatexplain": (
        [{"post_tokens": ["a", "b"], "annotators": {"label": x}} for x in ([0, 2, 2], [0, 1, 2], [1, 1, 1])],
        [("a b", "offensive"), ("a b", "normal")],
    ),
    "hotpot_qa": ([HOTPOT], [("question: Q? context: a1. a2. b.", "yes")]),
    "limit": (
        [
            {"sentence": " Cars and men move ", "motion": "yes",
             "motion_entities": [{"entity": "Cars", "start_index": 0}, {"entity": "men", "start_index": 9}]},
            {"sentence": "Rest", "motion": "no", "motion_entities": []},
        ],
        [("Cars and men move", "Cars [SEP] men")],
    ),
    "math_qa": (
        [{"Problem": "Half of 8?", "options": MATH, "correct": "d"}],
        [("Half of 8? (A) 1 (B) 2 (C) 3 (D) 4 (E) 5", "4")],
    ),
    "quarel": (
        [{"question": QUAREL, "answer_index": 0}, {"question": QUAREL, "answer_index": 1}],
        [(QUAREL, "ice"), (QUAREL, "sand")],
    ),
    "superglue-multirc": (
        [
            {"idx": {"question": 7}, "question": "Who\n?", "paragraph": "P", "answer": "a\tb", "label": 1},
            {"idx": {"question": 7}, "question": "Who\n?", "paragraph": "P", "answer": "c", "label": 0},
            {"idx": {"question": 8}, "question": "Why?", "paragraph": "P", "answer": "d", "label": 0},
        ],
        [
            ("question: Who ? (A) a b (B) c context: P", "a\tb"),
            ("question: Why? (A) d context: P", "NO ANSWER!"),
        ],
    ),
    "wiki_bio": (
        [{"input_text": {"context": " Ada\n", "table": TABLE}, "target_text": "x\ny"}],
        [("Ada [SEP] name: Ada [n] born: 1815 [n] ", "x y")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CUSTOM)
def test_what_templates_cannot_express(name):
    rows, wanted = CUSTOM[name]
    assert lines(crossfit_catalog()[name], rows) == wanted


def test_random_choices_are_the_same_in_every_split():
    rows = [
        {"question": f"q{i}", "support": "s" if i else "", "correct_answer": "right",
         "distractor1": "x", "distractor2": "y", "distractor3": "z"}
        for i in range(9)
    ]  # fmt: skip
    first, again = (lines(crossfit_catalog()["sciq"], rows) for _ in range(2))
    assert first == again
    assert len(first) == 8
    assert len({line.input[2:] for line in first}) > 1
    assert all(line.output == "right" for line in first)
