import pytest

from softstart.errors import SoftstartError
from softstart.gym.catalog import crossfit_catalog, published_checksums
from softstart.gym.catalog.reading import parse_catalog, read_catalog
from softstart.gym.lines import make_lines
from softstart.gym.metrics import GOLD_F1, METRICS
from softstart.gym.quirks import QUIRKS
from softstart.gym.settings import shipped_settings
from softstart.gym.template import Template, apply

GOOD = """
shared: {kind: classification, metric: ACC, category: own/mood}
tasks:
  mood:
    dataset: {files: {train: mood.csv}}
    input: '{text}'
    output: '{LABEL}'
    labels: {field: mood, words: [sad, happy]}
"""


def lines(entry, rows):
    return [keyed.line for keyed in make_lines(entry, rows, "rows")]


def test_the_160_tasks_are_there_and_whole():
    catalog = crossfit_catalog()
    assert len(catalog) == 160
    assert list(catalog) == sorted(catalog)
    assert {entry.metric for entry in catalog.values()} == set(METRICS) - {GOLD_F1}
    assert {entry.quirk for entry in catalog.values()} - {None} <= set(QUIRKS)
    for name, entry in catalog.items():
        assert entry.name == name
        assert entry.citation or name == "jeopardy", name
        assert entry.dataset.availability in ("hub", "converted", "withdrawn"), name
        assert len(published_checksums()[name]) == 15, name
        assert len(published_checksums("v1")[name]) == 15, name
        assert entry.version("v1").v1 == {}, name
    assert sum(bool(entry.v1) for entry in catalog.values()) == 34


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_example_of_every_task_makes_one_whole_line(version):
    for name, entry in crossfit_catalog().items():
        (line,) = lines(entry.version(version), entry.example)
        assert all(text.strip() for text in line), name
        assert not set("{}\n\r") & set("".join(line)), name
        if entry.words:
            assert line.output in entry.version(version).words, name


def test_every_setting_names_tasks_of_the_catalog():
    for collection, number in (("study", 13), ("crossfit", 8)):
        settings = shipped_settings(collection)
        assert len(settings) == number
        for setting in settings.values():
            assert {*setting.tasks, *setting.dev} <= set(crossfit_catalog()), setting.name


def test_shared_fields_lie_under_own_ones():
    text = GOOD + "  joy: {dataset: {files: {train: joy.csv}}, metric: EM, input: '{a}', output: '{b}'}\n"
    mood, joy = parse_catalog(text, "x.yaml").values()
    assert (mood.metric, joy.metric, mood.kind, joy.kind) == ("ACC", "EM", "classification", "classification")
    assert mood.words == ("sad", "happy")
    assert joy.shots == 16


BAD = {
    "metric": ("metric: ACC", "metric: acc", "metric: unknown metric 'acc'"),
    "kind": ("kind: classification", "kind: regression", "kind: Input should be"),
    "field": ("category: own/mood", "category: own/mood, shot: 3", "shot: no such field. Known: dataset,"),
    "missing": ("    input: '{text}'\n", "", "input: Field required"),
    "operation": ("{text}", "{text|shout}", "input: unknown operation 'shout'"),
    "argument": ("{text}", "{text|join}", "operation 'join' lacks its argument"),
    "brace": ("{text}", "{text", "has an unmatched brace"),
    "labels": ("    labels: {field: mood, words: [sad, happy]}\n", "", "but the entry has no 'labels'"),
    "nested": ("{field: mood,", "{fild: mood,", "labels.field: Field required"),
    "quirk": ("    input:", "    quirk: magic\n    input:", "unknown quirk 'magic'. Use one of blimp,"),
    "dataset": ("{files: {train: mood.csv}}", "{config: x}", "needs an 'id' on the hub or 'files'"),
    "splits": ("    input:", "    splits: {pool: train}\n    input:", "splits: give 'pool' and 'test'"),
    "v1": ("    input:", "    v1: {metric: Acc}\n    input:", "metric: unknown metric 'Acc'"),
    "entry": ("tasks:\n", "tasks:\n  odd: 3\n", "task 'odd': an entry is a mapping"),
    "yaml": ("shared: {", "shared: {{", "broken YAML"),
    "form": ("tasks:\n", "task:\n", "a catalog file is a mapping 'tasks'"),
}


@pytest.mark.parametrize(("old", "new", "says"), BAD.values(), ids=BAD)
def test_a_bad_entry_is_named_by_file_task_and_field(old, new, says):
    assert parse_catalog(GOOD, "mine.yaml")
    assert old in GOOD
    with pytest.raises(SoftstartError) as error:
        parse_catalog(GOOD.replace(old, new), "mine.yaml")
    assert says in str(error.value)
    assert str(error.value).startswith("mine.yaml: ")
    assert "task '" in str(error.value) or says.startswith(("broken", "a catalog"))


def test_files_of_a_catalog_are_relative_to_it(tmp_path):
    (tmp_path / "mine.yaml").write_text(GOOD)
    assert read_catalog(tmp_path / "mine.yaml")["mood"].dataset.files["train"] == str(tmp_path / "mood.csv")
    (tmp_path / "mine.yaml").write_bytes(GOOD.encode() + b"\xff")
    with pytest.raises(SoftstartError, match=r"mine.yaml: cannot read the catalog"):
        read_catalog(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("template", "row", "text"),
    [
        ("{a.b.1}", {"a": {"b": ["x", "y"]}}, "y"),
        ("{a.b|join:, }", {"a": [{"b": "x"}, {"b": "y"}]}, "x, y"),
        ("{{{n}}} {f}", {"n": 5.0, "f": 0.5}, "{5} 0.5"),
        ("{a b-c}", {"a b-c": "odd names"}, "odd names"),
        ("{a.b}", {"a.b": "flat"}, "flat"),
        ("{a|replace:x=}", {"a": "xyx"}, "y"),
        ("{a|clean}", {"a": "  b\\nc\r\n\td "}, "b c d"),
    ],
)
def test_templates(template, row, text):
    assert Template(template)(row) == text


@pytest.mark.parametrize(
    ("template", "row", "says"),
    [
        ("{b}", {"a": "x"}, "no field 'b'. The row has a."),
        ("{a}", {"a": None}, "field 'a' is empty"),
        ("{a}", {"a": ["x"]}, "holds a list where the template needs one text"),
        ("{a.b}", {"a": "x"}, "no field 'a.b'"),
        ("{a.3}", {"a": ["x"]}, "has only 1 items"),
        ("{a|int}", {"a": "x"}, "is not a number"),
        ("{a|join:x}", {"a": "x"}, "is not a list: nothing to join"),
    ],
)
def test_a_row_that_does_not_fit_a_template_says_why(template, row, says):
    with pytest.raises(SoftstartError) as error:
        Template(template)(row)
    assert says in str(error.value)


def test_operations_on_a_finished_text():
    assert apply(["line", "strip"], "\ta\nb ") == "a b"


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
def test_what_templates_cannot_say(name):
    rows, wanted = CUSTOM[name]
    assert lines(crossfit_catalog()[name], rows) == wanted


def test_random_choices_start_anew_in_every_split():
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


@pytest.mark.parametrize(
    ("value", "says"), [(4, "the label 4"), (-1, "the label -1"), (None, "the label None"), ([1], "[1]")]
)
def test_a_label_outside_the_verbalizer_names_its_row(value, says):
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": value}]
    with pytest.raises(SoftstartError) as error:
        lines(crossfit_catalog()["ag_news"], rows)
    assert str(error.value).startswith("rows, row 2: ")
    assert says in str(error.value)
    assert "outside the verbalizer" in str(error.value)
