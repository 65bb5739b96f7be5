import pytest

from softstart.errors import SoftstartError
from softstart.gym.catalog import crossfit_catalog, published_checksums
from softstart.gym.catalog.reading import parse_catalog, read_catalog
from softstart.gym.lines import make_lines
from softstart.gym.metrics import GOLD_F1, METRICS
from softstart.gym.quirks import QUIRKS
from softstart.gym.settings import shipped_settings

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
    assert {entry.metric for entry in catalog.values()} == set(METRICS) - {GOLD_F1, "Equal", "Micro-F1"}
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
