"""Label and color of a method come from its algorithm, also of one from outside of the package."""

from __future__ import annotations

import re
import sys

import pytest
import yaml

from helpers.study_folder import folder_of
from softstart.algorithms import ALGORITHMS
from softstart.errors import SoftstartError
from softstart.study import parse_study, report_study, run_study

MODULE = """
from dataclasses import dataclass
from typing import ClassVar

from softstart.algorithms import FoMAML


@dataclass(frozen=True)
class SignMAML(FoMAML):
    label: ClassVar[str] = "Sign-MAML"
    color: ClassVar[str] = "#00a3e9"


@dataclass(frozen=True)
class Nameless(FoMAML):
    color: ClassVar[str] = "violet"
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A module that is not in the package, as a user's own on PYTHONPATH."""
    (tmp_path / "outside_colors.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(ALGORITHMS, "_entries", dict(ALGORITHMS))
    import outside_colors

    yield outside_colors
    sys.modules.pop("outside_colors", None)


def colors(page):
    """The color on a light ground of every method, by its number in the report."""
    return dict(re.findall(r"\.s(\d+) ?{[^}]*--c: ?(#[0-9a-f]{6})", page))


def test_a_report_shows_what_an_algorithm_declares(outside, tmp_path):
    ALGORITHMS.add("sign", outside.SignMAML)
    methods = {"pt": {}, "maml": {}, "sign": {}}
    outcome = report_study(folder_of(tmp_path / "s", lambda run: False, methods=methods))
    assert outcome.appearance["sign"].label == "Sign-MAML"
    page = (outcome.folder / "report.html").read_text()
    assert "Sign-MAML" in page
    assert "#00a3e9" in page


def test_every_method_of_a_large_study_has_its_own_color(tmp_path):
    methods = {"pt": {}, **{f"maml-{i}": {"algorithm": "maml", "inner_lr": 0.1 * (i + 1)} for i in range(17)}}
    outcome = report_study(folder_of(tmp_path / "s", lambda run: False, methods=methods))
    assert len(outcome.appearance) == 18
    page = (outcome.folder / "report.html").read_text()
    assert len(set(colors(page).values())) == 18


def test_a_color_that_is_none_is_refused_before_the_work(outside, tmp_path):
    ALGORITHMS.add("nameless", outside.Nameless)
    declared = {"name": "x", "setting": "mini-cls2cls", "methods": {"pt": {}, "nameless": {}}}
    with pytest.raises(SoftstartError, match="violet"):
        run_study(parse_study(yaml.safe_dump(declared), "study.yaml"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
