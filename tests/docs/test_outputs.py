"""Outputs that a page shows are what its commands print, up to the numbers."""

from __future__ import annotations

from helpers.doc_blocks import blocks
from helpers.doc_outputs import agrees, tidy, write


def test_a_difference_in_words_is_one_and_in_numbers_is_none():
    said = "mine: EM 81.0 on 40 rows (likeliest label)\nsaved: tuned\n"
    assert agrees(said, said.replace("81.0", "79.25"))
    assert agrees("…\nsaved: tuned\n", said)
    assert agrees("mine: EM 1.0 … label)\nsaved: tuned\n", said)
    assert not agrees(said, said.replace("likeliest", "written"))
    assert not agrees(said, said + "more\n")
    assert agrees("it took 3 s", "it took 2 min 10 s")
    assert (
        tidy("a  \n\ntuning: 5 %, 10.0 s so far, about 2 min left\ntuning: about 3 min in all\nb\n")
        == "a\nb\n"
    )


def test_outputs_are_written_where_they_are_shown(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\necho one\necho two\n```\n\n<!-- output -->\n```text\nold\n```\n\n"
        "```python\nx = 3\nprint(x)\n```\n\n<!-- output -->\n```text\n```\n\nend\n"
    )
    write(page)
    assert [block.text for block in blocks(page) if block.mark == "output"] == ["one\ntwo\n", "3\n"]
    assert page.read_text().endswith("```\n\nend\n")
