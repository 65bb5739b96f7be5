"""The real study's figure and tables are those its rows give."""

from __future__ import annotations

import pytest
from benchmarks.real import across
from benchmarks.real.figure import FILE, figure
from benchmarks.real.findings import read, report, signed
from scipy.stats import ttest_rel


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


def test_the_smallest_p_of_all_settings_is_corrected_for_all_tests():
    found = across.scores()
    for family, pairs in across.PAIRS.items():
        tests = [ttest_rel(of[one], of[other]).pvalue for of in found.values() for one, other in pairs]
        line = next(line for line in across.smallest(found) if family in line)
        assert line.startswith(f"| {len(tests)} ")
        assert float(line.split("|")[5]) == pytest.approx(min(1, min(tests) * len(tests)), rel=0.06)


def test_gains_of_all_settings_are_means_of_the_settings_gains():
    found = across.scores()
    gains = [of["fomaml"] - of["pt"] for (_, steps), of in found.items() if steps == 100]
    mean = sum(gain.mean() for gain in gains) / len(gains)
    (line,) = (line for line in across.means(found) if line.startswith("| 100 | `fomaml`"))
    assert float(line.split("|")[3].split()[0]) == pytest.approx(mean, abs=0.051)


def test_only_a_zero_loses_its_sign():
    assert (
        signed("| cls2cls - 3 | -0.0 [-0.02, -0.00] | -1.5 |") == "| cls2cls - 3 | 0.0 [−0.02, 0.00] | −1.5 |"
    )
