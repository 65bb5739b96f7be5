"""Outputs that a page shows are what its commands print; scores may differ a little."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.doc_blocks import blocks
from helpers.doc_outputs import agrees, outputs, shown, tidy, write
from helpers.paths import ROOT

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if shown(page)]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "softstart" / "backbones"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_what_its_commands_print(page, tmp_path):
    """Every command of the page in order, in one folder."""
    wanted = {before.line: after.text for before, after in shown(page)}
    if any("smollm2" in before.text for before, _ in shown(page)) and not list(CACHE.glob("*smollm2*")):
        pytest.skip("SmolLM2 is not on this machine: softstart backbone fetch smollm2")
    for block, printed in outputs(page, tmp_path):
        assert agrees(wanted[block.line], printed), f"{page}, line {block.line}:\n{printed}"


def test_every_tutorial_shows_what_its_commands_print():
    assert set(TUTORIALS) <= set(PAGES)


def test_a_difference_in_words_is_one_and_in_numbers_is_none():
    said = "mine: EM 81.0 on 40 rows (likeliest label)\nsaved: tuned\n"
    assert agrees(said, said.replace("81.0", "79.25"))
    assert agrees(said, said.replace("81.0", "71.0"))
    assert not agrees(said, said.replace("81.0", "70.9"))
    assert not agrees("40 rows", "41 rows")
    assert agrees("x,0.00033,9e-06,1,200.5", "x,0.00035,8.1e-06,1,201.5")
    gains = "points 0.0 +37.7 −2.5\n"
    assert agrees(gains, gains.replace("37.7", "20.0"))
    assert not agrees(gains, gains.replace("37.7", "18.0"))
    assert agrees("…\nsaved: tuned\n", said)
    assert agrees("mine: EM 80.0 … label)\nsaved: tuned\n", said)
    assert not agrees(said, said.replace("likeliest", "written"))
    assert not agrees(said, said + "more\n")
    assert agrees("it took 3 s", "it took 2 min 10 s")
    passing = "tuning: 5 %, 10.0 s so far\ntuning: about 3 min in all\n  0%  1 s elapsed, ETA …  meta"
    assert tidy(f"a  \n\n{passing}\nb\n") == "a\nb\n"


def test_outputs_are_written_where_they_are_shown(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\necho one\necho two\n```\n\n<!-- output -->\n```text\nold\n```\n\n"
        "```python\nx = 3\nprint(x)\n```\n\n<!-- output -->\n```text\n```\n\nend\n"
    )
    write(page)
    assert [block.text for block in blocks(page) if block.mark == "output"] == ["one\ntwo\n", "3\n"]
    assert page.read_text().endswith("```\n\nend\n")
