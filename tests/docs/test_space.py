"""The page in examples/space: what it answers, and the page itself where gradio is installed."""

from __future__ import annotations

import runpy

import pytest

from helpers.paths import ROOT
from softstart.errors import SoftstartError


@pytest.fixture(scope="module")
def app():
    return runpy.run_path(str(ROOT / "examples" / "space" / "app.py"), run_name="app")


def test_it_labels_new_texts_and_says_which_start_was_used(app):
    rows, columns, said = app["label"](app["EXAMPLE"], app["NEW"], steps=2)
    assert columns == ["text", "prediction", "p(bad)", "p(good)"]
    assert [row[0] for row in rows] == app["NEW"].splitlines()
    for row in rows:
        assert row[2] + row[3] == pytest.approx(1.0, abs=1e-5)
    assert "The prompt used is that of **" in said
    assert "The start labels " in said


def test_what_cannot_be_done_is_said(app):
    with pytest.raises(SoftstartError, match="0 new texts"):
        app["label"](app["EXAMPLE"], "\n")
    with pytest.raises(SoftstartError, match="no column 'label'"):
        app["label"]("input,lable\na,b\n", "x")


def test_the_page_answers(app, monkeypatch):
    pytest.importorskip("gradio", reason="the page needs softstart[space]")
    blocks = app["page"]()
    (function,) = [of for of in blocks.fns.values() if of.api_name == "label"]
    table, said = function.fn(app["EXAMPLE"], app["NEW"])
    assert table["headers"][0] == "text"
    assert len(table["data"]) == 2
    assert "The prompt used" in said
