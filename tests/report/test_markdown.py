"""A report as Markdown, and its figure."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from softstart.analysis import (
    arg_table,
    compare_methods,
    largest_budget,
    relative_gains,
    speed_table,
    with_defaults,
)
from softstart.errors import SoftstartError
from softstart.report.caveats import caveats
from softstart.report.console import comparison_table
from softstart.report.html import write_report
from softstart.report.markdown import _tasks, write_markdown
from softstart.report.style import Appearance, MethodStyles
from softstart.report.tables import comparisons
from softstart.report.words import interval, signed


def results(budgets=(10, 60), settings=("one", "two")):
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        [
            {"setting": s, "method": m, "task": t, "sample": i, "budget": b, "seed": seed,
             "test": rng.uniform(0.3, 0.9), "run": f"{s}-{m}-{t}-{i}-{seed}"}
            for s in settings for m in ("pt", "maml", "a|b<c")
            for t in ("emo", "trec", "rte", "boolq", "wnli")
            for i in (13, 21) for b in budgets for seed in (1, 2)
        ]
    )  # fmt: skip


def curves_of(rows):
    runs = rows.drop_duplicates("run")
    rng = np.random.default_rng(4)
    steps = [runs.assign(step=s, dev=rng.uniform(0, 1, len(runs))) for s in (0, 10, 60)]
    return pd.concat(steps)[["run", "step", "dev"]]


def written(path, rows, **more):
    top = largest_budget(rows.assign(**with_defaults(rows)))
    write_markdown(path, {"name": "S"}, rows, curves_of(rows), arg_table(top), relative_gains(top), **more)
    return path.read_text(encoding="utf-8")


def tables(text):
    """Every table as lists of cells, each row as long as its header."""
    blocks = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        body = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
        assert len({len(cells) for cells in body}) == 1, block
        blocks.append(body)
    return blocks


def test_every_number_is_that_of_the_tables(tmp_path):
    rows = results()
    text = written(tmp_path / "r.md", rows, commands=["softstart run s.yaml"], environment={"torch": "9"})
    assert "```bash\nsoftstart run s.yaml\n```" in text
    assert "| torch | 9 |" in text
    headline, *rest = tables(text)
    arg, tests = arg_table(rows), compare_methods(rows)
    for setting in ("one", "two"):
        top = arg[(arg.setting == setting) & (arg.method == "maml")].set_index("budget")
        start = [row[0] for row in headline].index(setting)
        cells = headline[start]
        assert cells[1] == "MAML"
        assert cells[2] == f"{signed(top.arg[60])} {interval(top.low[60], top.high[60])}"
        assert cells[4] == f"{signed(top.mean_abs_gain[60])} {interval(top.abs_low[60], top.abs_high[60])}"
        ends = interval(top.symmetric_low[60], top.symmetric_high[60])
        assert cells[5] == f"{signed(top.mean_symmetric_gain[60])} {ends}"
        assert cells[6] == f"{top.wins[60]}/{top.ties[60]}/{top.losses[60]}"
        p = tests[(tests.setting == setting) & (tests.method == "maml") & (tests.other == "pt")]
        assert float(cells[7]) == pytest.approx(p.set_index("budget").p[60], abs=5e-4)
        by_budget = next(t for t in rest if t[0][1] == "budget" and len(t) == 6)
        assert [row[:2] for row in by_budget[2:4]] == [["MAML", "10 steps"], ["MAML", "60 steps"]]
    speed = speed_table(rows[rows.budget == 60], curves_of(rows)).set_index(["setting", "method"])
    faster = next(t for t in rest if t[0][2] == "area, points")
    assert faster[2][:2] == ["one", "PT"]
    assert faster[3][3].startswith(signed(speed.area_gain_points["one", "maml"]))
    assert r"a\|b&lt;c" in text


def test_a_figure_of_gain_against_budget_is_written_next_to_it(tmp_path):
    text = written(tmp_path / "r.md", results())
    assert "](r-budget.svg)" in text
    figure = ET.parse(tmp_path / "r-budget.svg").getroot()
    tips = [e.text for e in figure.iter("{http://www.w3.org/2000/svg}title")]
    arg = arg_table(results())
    top = arg[(arg.method == "maml") & (arg.budget == 60)]
    assert len(tips) == 2 * 2 * 2  # settings x methods x budgets
    for row in top.itertuples():
        expected = f"MAML, 60 steps: {signed(row.mean_abs_gain)} points {interval(row.abs_low, row.abs_high)}"
        assert expected in tips


def test_one_budget_needs_no_figure_and_no_curves_no_speed(tmp_path):
    rows = results(budgets=(60,))
    write_markdown(tmp_path / "r.md", {}, rows, pd.DataFrame(), arg_table(rows), relative_gains(rows))
    text = (tmp_path / "r.md").read_text()
    assert list(tmp_path.iterdir()) == [tmp_path / "r.md"]
    assert "faster" not in text
    with pytest.raises(SoftstartError, match="no result to report yet"):
        write_markdown(tmp_path / "r.md", {}, rows.head(0), *[pd.DataFrame()] * 3)


def test_the_baseline_alone_has_no_gains_at_any_budget(tmp_path):
    rows = results()
    rows = rows[rows.method == "pt"]
    assert "by steps" not in written(tmp_path / "r.md", rows)
    assert list(tmp_path.iterdir()) == [tmp_path / "r.md"]
    top = largest_budget(rows.assign(**with_defaults(rows)))
    write_report(
        tmp_path / "r.html", {}, rows, pd.DataFrame(), arg_table(top, "pt"), relative_gains(top, "pt"), {}
    )
    assert (tmp_path / "r.html").exists()


def test_an_unfinished_study_says_so(tmp_path):
    rows = results()
    text = written(tmp_path / "r.md", rows[~((rows.method == "maml") & (rows.task == "emo"))])
    assert re.search(r"\| MAML \| [^|]*\d\* \[", text)
    assert "incomplete, do not compare" in text


def test_scores_stand_beside_chance_and_those_at_chance_are_named():
    facts = (("pt", "a", 0.9, 0.5), ("maml", "a", 0.4, 0.5), ("pt", "b", 0.2, None), ("maml", "b", 0.3, None))
    rows = pd.DataFrame(
        [
            {"method": method, "task": task, "sample": 13, "seed": 42, "test": test, "chance": chance,
             "majority": 0.3}
            for method, task, test, chance in facts
        ]
    )  # fmt: skip
    styles = MethodStyles(rows["method"])
    (group,) = comparisons(rows, arg_table(rows, "pt"), styles)
    assert group.blind == {"a": (0.5, 0.3)}
    assert group.at_chance() == [("maml", "a", 0.5)]
    text = " ".join(caveats(with_defaults(rows), [group], styles, "studentized"))
    assert "at chance, not above guessing or the most frequent answer: MAML on a (50.0)" in text
    (line,) = [line for line in _tasks([group], styles) if line.startswith("| a |")]
    assert line.startswith("| a | 50.0 | 30.0 |")


def test_how_to_have_zero_shot_is_said_where_it_is_missing_and_labels_are_there():
    rows = pd.DataFrame(
        [
            {
                "method": method,
                "task": "a",
                "sample": 13,
                "seed": 42,
                "test": 0.8,
                "chance": 0.5,
                "majority": 0.3,
            }
            for method in ("pt", "maml")
        ]
    )
    alone = rows.assign(chance=float("nan"), majority=float("nan"))
    there = pd.concat([rows, rows.head(1).assign(method="zero_shot")])
    renamed = pd.concat([rows, rows.head(1).assign(method="calibrated")])
    appearance = {"calibrated": Appearance("Zero-shot")}
    for table, looks, said in (
        (rows, None, True),
        (alone, None, False),
        (there, None, False),
        (renamed, appearance, False),
    ):
        styles = MethodStyles(table["method"], looks)
        groups = list(comparisons(table, arg_table(table, "pt"), styles))
        text = " ".join(caveats(with_defaults(table), groups, styles, "studentized"))
        assert ("zero_shot: {} under methods" in text) == said
        shown = str(comparison_table(table, arg_table(table, "pt"), appearance=looks).caption)
        assert "No intervals: they take 4 tasks and two runs of each." in shown
        assert ("zero_shot: {} under methods" in shown) == said
    baseline = rows[rows["method"] == "pt"]
    assert "intervals" not in str(comparison_table(baseline, arg_table(baseline, "pt")).caption)
