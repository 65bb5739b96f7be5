"""The experiments on quirks of the published protocol: their tables and their page."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from helpers.paths import ROOT


def test_a_quirk_study_becomes_tables(finished, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments.quirks.__main__ import STUDIES as QUIRKS
    from experiments.quirks.__main__ import section

    assert {f"quirk-{name}" for name in QUIRKS} == {f.stem for f in (ROOT / "studies").glob("quirk*.yaml")}
    for name in ("results", "runs", "curves"):
        main = pd.read_csv(finished[0] / f"{name}.csv")
        pd.concat([main, main.assign(variant="last")]).to_csv(tmp_path / f"{name}.csv", index=False)
    rows = pd.read_csv(tmp_path / "results.csv")
    last = (rows["variant"] == "last") & (rows["method"] == "maml")
    rows.loc[last, "test"] -= 0.25
    rows.to_csv(tmp_path / "results.csv", index=False)
    text = "\n".join(section("tested-prompt", tmp_path))
    # Two tasks have no interval.
    assert re.search(r"\| unit, maml \| last \| -25\.0[^|]*\| 0/0/2 \| 0\.5 \| 0\.5 \|", text)
    assert re.search(r"\| unit, pt \| last \| \+0\.0[^|]*\| 0/2/0 \| 1 \| 1 \|", text)
    assert "published: 58 %" in text
    assert "Not run yet." in "\n".join(section("f1", tmp_path / "none"))
    rows.replace({"variant": {"last": "paper"}}).to_csv(tmp_path / "results.csv", index=False)
    text = "\n".join(section("protocol", tmp_path))
    # maml lost 25 points under the one variant alone, everything else is the same under both.
    found = re.search(r"\| multitask - maml \| \W*([+-][\d.]+)[^|]*\| \W*([+-][\d.]+)", text)
    assert float(found[1]) - float(found[2]) == pytest.approx(25, abs=0.11)
    assert "Rank correlation of ARG under the two protocols" in text


def test_what_was_measured_of_other_quirk_studies_stays_on_the_page(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments.quirks.__main__ import sections

    page = (ROOT / "experiments/quirks/results.md").read_text()
    parts = sections(page)
    assert page.rstrip().endswith("\n".join(parts.values()).rstrip())
    assert "maml ~ fomaml" in parts["inner-rate"]
