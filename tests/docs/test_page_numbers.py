"""Numbers and tables of the pages are those of the result files, and a difference would be noticed."""

from __future__ import annotations

import json
import re
import sys

import pytest
import yaml

from helpers.paths import ROOT

sys.path.insert(0, str(ROOT / "docs"))

import page_numbers
import result_files
import result_tables

DECLARED = yaml.safe_load((ROOT / "docs" / "page_numbers.yaml").read_text(encoding="utf-8"))
MARKDOWN = """# All

## Speed

### Packs

| who | rows | ms |
|---|---|---|
| **ours** | 1 | 1,200 [1,100–1,300] |
| | 4 | 0.5 |
| peer | 4 | 10, 12, 14 |

## Memory

| who | ms |
|---|---|
| ours | −.24 |
"""


def test_the_pages_have_the_numbers_of_the_result_files():
    assert page_numbers.update(write=False) == [], "python docs/page_numbers.py --write"


def test_every_value_is_quoted():
    quoted = set(re.findall(r"\{([\w-]+)\}", json.dumps(DECLARED["sentences"])))
    assert quoted == set(DECLARED["values"])


@pytest.fixture
def repository(tmp_path):
    """A page, its result files and where its numbers are from."""
    (tmp_path / "results.json").write_text(json.dumps({"a": {"s": 0.1246, "t": 0.5}, "n": 5}))
    (tmp_path / "results.md").write_text(MARKDOWN)
    (tmp_path / "page.md").write_text("It took .11 s,\nwhich is 30 % of 1,199 ms, and −.2 more.\n")
    values = {
        "s": {"file": "results.json", "at": ["a", "s"], "show": ".2f", "bare": True},
        "share": {"file": "results.json", "at": ["a", "s"], "by": ["a", "t"], "times": 100},
        "ms": {"file": "results.md", "at": ["Speed > Packs", "ours", "1", "ms"], "show": ",.0f"},
        "more": {"file": "results.md", "at": ["Memory", "ours", "ms"], "show": ".2f", "bare": True},
    }
    sentences = {"page.md": ["took {s} s, which is {share} % of {ms} ms, and {more} more"]}
    (tmp_path / "numbers.yaml").write_text(yaml.safe_dump({"values": values, "sentences": sentences}))
    return tmp_path


def update(repository, write):
    return page_numbers.update(write, repository, repository / "numbers.yaml")


def test_what_differs_is_listed_and_written(repository):
    before = (repository / "page.md").read_text()
    changes = [(change.place, change.now, change.should) for change in update(repository, write=False)]
    expected = {("s", ".11", ".12"), ("share", "30", "25"), ("ms", "1,199", "1,200"), ("more", "−.2", "−.24")}
    assert set(changes) == expected
    assert (repository / "page.md").read_text() == before
    update(repository, write=True)
    assert (repository / "page.md").read_text() == (
        "It took .12 s,\nwhich is 25 % of 1,200 ms, and −.24 more.\n"
    )
    assert update(repository, write=False) == []


def test_a_sentence_that_is_gone_or_there_twice_is_an_error(repository):
    page = repository / "page.md"
    text = page.read_text()
    page.write_text(text + text)
    with pytest.raises(result_files.NumbersError, match=r"page.md: 2 times instead of once: took \{s\}"):
        update(repository, write=True)
    page.write_text("Something else.\n")
    with pytest.raises(result_files.NumbersError, match="0 times"):
        update(repository, write=True)


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        ({"file": "results.md", "at": ["Packs", "ours", "1", "ms"], "part": 2}, "1300"),
        ({"file": "results.md", "at": ["Packs", "ours", "4", "ms"]}, "1"),  # halves are rounded up
        ({"file": "results.md", "at": ["Packs", "peer", "4", "ms"], "part": "all", "of": "mean"}, "12"),
        (
            {"file": "results.md", "at": ["Packs", "{}", "4", "ms"], "over": ["ours", "peer"], "of": "max"},
            "10",
        ),
        (
            {"file": "results.md", "at": ["Packs", "{}", "4", "ms"], "over": ["ours", "peer"], "of": "sum"},
            "11",
        ),
        ({"file": "results.md", "find": r"\[([\d,]+)–"}, "1100"),
        ({"file": "results.json", "at": ["a", "s"], "times": -1, "show": "+.1f", "bare": True}, "−.1"),
    ],
)
def test_a_value_is_read(repository, entry, shown):
    assert result_files.value(entry, repository) == shown


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"file": "results.md", "at": ["Packs", "theirs", "1", "ms"]}, "no cell"),
        ({"file": "results.md", "at": ["Speed > Memory", "ours", "ms"]}, "no cell"),
        ({"file": "results.md", "at": ["Packs", "peer", "4", "who"]}, "no number"),
        ({"file": "results.md", "at": ["Packs", "peer", "4", "ms"], "part": "all"}, "no 'of'"),
        ({"file": "results.md", "find": "nothing (like) this"}, "nothing like"),
        ({"file": "results.json", "at": ["a", "u"]}, "no 'u' among s, t"),
    ],
)
def test_a_value_that_is_not_there_is_an_error(repository, entry, message):
    with pytest.raises(result_files.NumbersError, match=message):
        result_files.value(entry, repository)


def test_a_table_is_made_anew_and_needs_its_place(monkeypatch):
    monkeypatch.setattr(result_tables, "demo", lambda: "| a |\n|---|\n| 1 |")
    page = "Before.\n\n<!-- table: demo -->\n| a |\n<!-- end of table -->\n\nAfter.\n"
    text, (change,) = page_numbers.with_tables("page.md", page, ["demo"])
    assert change.place == "table demo"
    assert text == page.replace("| a |", "\n| a |\n|---|\n| 1 |\n")
    assert page_numbers.with_tables("page.md", text, ["demo"]) == (text, [])
    with pytest.raises(result_files.NumbersError, match="tables"):
        page_numbers.with_tables("page.md", "No place.\n", ["demo"])
    with pytest.raises(result_files.NumbersError, match="has no end"):
        page_numbers.with_tables("page.md", page.replace("<!-- end of table -->", ""), ["demo"])


def test_every_benchmark_says_what_it_answers_and_when_it_was_run():
    folders = [path.name for path in (ROOT / "benchmarks").iterdir() if path.is_dir() and path.name[0] != "_"]
    for name in folders:
        head = result_tables.head_of((ROOT / "benchmarks" / name / "README.md").read_text(encoding="utf-8"))
        assert tuple(head) == result_tables.HEAD, name
        assert re.search(r"\d{1,2} \w+ 20\d\d", head["last run"]), name


def test_every_experiment_says_what_it_asked_and_found_and_is_in_the_log():
    log = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    folders = [
        path.name for path in (ROOT / "experiments").iterdir() if path.is_dir() and path.name[0] != "_"
    ]
    for name in folders:
        head = result_tables.head_of((ROOT / "experiments" / name / "README.md").read_text(encoding="utf-8"))
        assert tuple(head) == ("question", "command", "date", "answer"), name
        assert f"../experiments/{name}/README.md" in log, name


def test_the_page_of_the_gpu_is_made_from_its_results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.gpu.report import markdown

    results = json.loads((ROOT / "benchmarks/gpu/results.json").read_text(encoding="utf-8"))
    assert markdown(results) == (ROOT / "benchmarks/gpu/results.md").read_text(encoding="utf-8")
