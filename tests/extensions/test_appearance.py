"""A method from outside of the package says how reports show it: its label and its color."""

from __future__ import annotations

import sys

import pytest

from helpers.toy_study import toy
from softstart.errors import SoftstartError
from softstart.report.colors import difference
from softstart.report.style import MethodStyles
from softstart.study import run_study
from softstart.study.results.outcome import appearance_of
from softstart.study.results.report_files import write_report_files

MODULE = """
from softstart.algorithms import Reptile


class Crawl(Reptile):
    label = "Crawl & Co"
    color = "#8a6d3b"


class Blue(Reptile):
    color = "blue"
"""
CRAWL = "outside_method.Crawl"


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A module that is not in the package, as a user's own on PYTHONPATH."""
    (tmp_path / "outside_method.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("outside_method", None)


def test_page_figures_and_latex_show_its_label_and_color(outside, world, tmp_path):
    methods = {
        "pt": {},
        "crawl": {"algorithm": CRAWL, "inner_lr": 0.1},
        "slow": {"algorithm": CRAWL, "inner_lr": 0.05},
        "reptile": {"inner_lr": 0.1},
    }
    study = toy(world, methods=methods, learning_rates=[0.5])
    outcome = run_study(study, tmp_path / "out", device="cpu")
    assert (outcome.failures, outcome.missing) == ([], 0)
    write_report_files(outcome, ["softstart run study.yaml"])
    alone = MethodStyles(["pt", "crawl"], {"crawl": outcome.appearance["crawl"]})["crawl"]
    assert (alone.label, alone.color.light) == ("Crawl & Co", "#8a6d3b")
    # Two methods of one class differ by their names, and the second gets a color of its own.
    styles = MethodStyles(methods, outcome.appearance)
    crawl, slow = styles["crawl"], styles["slow"]
    assert (crawl.label, slow.label) == ("Crawl & Co (crawl)", "Crawl & Co (slow)")
    assert crawl.color == alone.color
    assert all(difference(slow.color, styles[name].color) > 0.1 for name in ("pt", "crawl", "reptile"))
    page = (outcome.folder / "report.html").read_text()
    figure = (outcome.folder / "report" / "gains-1.svg").read_text()
    for text in (page, figure):
        assert f".s{crawl.number} {{ --c: #8a6d3b;" in text
        assert "Crawl &amp; Co (slow)" in text
    assert r"Crawl \& Co" in (outcome.folder / "report" / "scores.tex").read_text()
    assert "{HTML}{8A6D3B}" in (outcome.folder / "report" / "colors.tex").read_text()
    assert "Crawl & Co (slow)" in (outcome.folder / "report" / "report.md").read_text()


def test_what_is_not_a_color_is_refused(outside, world):
    study = toy(world, methods={"pt": {}, "blue": {"algorithm": "outside_method.Blue"}})
    with pytest.raises(SoftstartError, match=r"'blue' is not a color.*#rrggbb"):
        appearance_of([study])
