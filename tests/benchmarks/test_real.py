"""The real study's figure is the one its rows give."""

from __future__ import annotations

from benchmarks.real.figure import FILE, figure


def test_the_figure_shows_the_rows_that_are_kept():
    assert FILE.read_text(encoding="utf-8") == figure()
