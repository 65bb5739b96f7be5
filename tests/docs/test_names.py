"""Files, modules and tests that a page names exist: what is renamed in the code is renamed in the pages."""

from __future__ import annotations

import importlib
import re

import pytest

from helpers.paths import ROOT

PAGES = sorted(
    page
    for folder in ("docs", "benchmarks", "experiments", ".github", "tests")
    for page in (ROOT / folder).rglob("*.md")
) + [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES.remove(ROOT / "docs" / "peers.md")  # names files of other repositories
PAGES = [page for page in PAGES if page.parent.name != "reference"]  # made from the code itself

ELSEWHERE = {"src/softstart/algorithms/sign_maml.py", "study/cls2cls"}
"""A file that a reader writes, and the name of a setting."""

TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))


def code(page):
    """What stands in backticks or in a block of commands."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", text, re.S | re.M)
    return [*re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S)), *blocks]


def exists(name, page):
    """Whether a path leads somewhere from the repository, the package, its studies, the page or the tests."""
    places = (ROOT, ROOT / "src", ROOT / "src/softstart", ROOT / "src/softstart/study", page.parent)
    return any(next(place.glob(name), None) for place in places)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page):
    lost = []
    for text in code(page):
        for name in re.findall(r"(?<![\w./<:-])[\w.*-]+(?:/[\w.*-]+)+(?![\w/<{])", text):
            first = name.split("/")[0]
            ours = first in ("src", "tests", "docs", "benchmarks", "experiments", "studies", ".ci", ".github")
            ours = ours or (ROOT / "src" / "softstart" / first).is_dir()
            if (ours or name.endswith(".py")) and name not in ELSEWHERE and not exists(name, page):
                lost.append(name)
        dotted = re.findall(r"\b(?:softstart|benchmarks|experiments|tests)(?:\.\w+)+(?![\w/(-])", text)
        lost += [name for name in dotted if not resolves(name)]
        lost += [name for name in re.findall(r"\btest_\w+\b(?!\.py)", text) if f"def {name}(" not in TESTS]
    assert not lost


def resolves(name):
    """Whether a dotted name is a module of ours or something in one."""
    parts = name.split(".")
    folder = ROOT / "src" if parts[0] == "softstart" else ROOT
    for end in range(len(parts), 0, -1):
        place = folder.joinpath(*parts[:end])
        if place.with_suffix(".py").is_file() or place.is_dir():
            if end == len(parts) or parts[0] != "softstart":
                return end == len(parts)
            thing = importlib.import_module(".".join(parts[:end]))
            for part in parts[end:]:
                thing = getattr(thing, part, None)
            return thing is not None
    return False


def test_a_name_that_is_gone_would_be_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("`tests/gone.py`, `softstart.gone`, `benchmarks.gone`, `test_gone`, `study/gone.py`\n")
    with pytest.raises(AssertionError) as problem:
        test_what_a_page_names_exists(page)
    for name in ("tests/gone.py", "softstart.gone", "benchmarks.gone", "test_gone", "study/gone.py"):
        assert name in str(problem.value)
    page.write_text("`softstart.gym.load_setting`, `study/plan/*.py`, `benchmarks.engine`, `docs/build.py`\n")
    test_what_a_page_names_exists(page)


def test_the_table_of_extensions_names_every_test_of_one():
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tests = {path.name for path in (ROOT / "tests" / "extensions").glob("test_*.py")}
    assert sorted(name for name in tests if f"`tests/extensions/{name}`" not in table) == []


def test_the_table_of_extensions_names_registries():
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("| to add |")[1]
    named = re.findall(r"\| `([A-Z]+)` \|", table)
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    assert len(named) > 10
    assert [name for name in named if f"{name}: Registry[" not in source] == []
