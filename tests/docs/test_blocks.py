"""Every block of the documentation runs, page by page, in a folder of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from helpers.doc_blocks import MARKS, ROOT, blocks, furnish, shell

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
PAGES = [page for page in PAGES if "reference" not in page.relative_to(ROOT).parts]
ASIDE = re.compile(r"not run: .{10,}")
"""A block that no test can run says why."""

TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))


def cases():
    for page in PAGES:
        marks = {block.mark for block in blocks(page) if block.language in ("bash", "python")}
        for mark in ("", *MARKS):
            # Blocks with a mark of their own stand on those before them.
            if mark in marks:
                name = str(page.relative_to(ROOT))
                marked = [getattr(pytest.mark, mark)] if mark else []
                yield pytest.param(page, mark, id=f"{name} {mark}".strip(), marks=marked)


@pytest.mark.parametrize(("page", "mark"), list(cases()))
def test_the_blocks_of_a_page_run(page, mark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    furnish(tmp_path)
    names = {"__name__": "__main__"}
    for block in blocks(page):
        if file := re.fullmatch(r"file: (\S+)", block.mark):
            Path(file[1]).parent.mkdir(parents=True, exist_ok=True)
            Path(file[1]).write_text(block.text, encoding="utf-8")
        elif block.mark not in ("", mark):
            continue
        elif block.language == "bash":
            shell(block.text)
        elif block.language == "python":
            exec(compile(block.text, f"{page}, line {block.line}", "exec"), names)
        elif block.language == "yaml":
            yaml.safe_load(block.text)


def test_every_comment_before_a_block_is_known():
    for page in PAGES:
        for block in blocks(page):
            known = block.mark in ("", *MARKS) or re.match(r"file: \S+$", block.mark)
            known = known or ASIDE.match(block.mark)
            assert known or f"<!-- {block.mark} -->" in TESTS, f"{page}, line {block.line}: {block.mark}"


def test_the_runner_would_notice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- gpu -->\n```bash\nexit 1\n```\n\n```python\nraise KeyError\n```\n\n"
        "```bash\nsoftstart gym show emoo\n```\n"
    )
    first, second, third = blocks(page)
    assert [first.mark, second.mark, first.language, second.text] == ["gpu", "", "bash", "raise KeyError\n"]
    with pytest.raises(AssertionError, match="exit 1"):
        shell(first.text)
    with pytest.raises(Exception, match="unknown task 'emoo'"):
        shell(third.text)
