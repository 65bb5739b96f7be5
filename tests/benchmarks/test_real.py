"""The real study's figure and tables are those its rows give."""

from __future__ import annotations

from benchmarks.real.figure import FILE, figure
from benchmarks.real.findings import read, report, signed


def test_the_figure_shows_the_rows_that_are_kept():
    assert FILE.read_text(encoding="utf-8") == figure()


def test_a_setting_run_in_parts_is_analyzed_as_a_whole(tmp_path):
    results, curves = read("real-cls2cls")
    parts = []
    for name, methods in (("one", {"multitask", "maml"}), ("other", {"fomaml", "reptile"})):
        (tmp_path / name).mkdir()
        for file, frame in (("results", results), ("curves", curves)):
            frame[frame["method"].isin(methods)].to_csv(tmp_path / name / f"{file}.csv", index=False)
        parts.append(str(tmp_path / name))
    # Plain starts are taken from real-cls2cls.
    assert list(report(*read(*parts))) == list(report(results, curves))


def test_only_a_zero_loses_its_sign():
    assert (
        signed("| cls2cls - 3 | -0.0 [-0.02, -0.00] | -1.5 |") == "| cls2cls - 3 | 0.0 [−0.02, 0.00] | −1.5 |"
    )
