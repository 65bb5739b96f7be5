"""The site: generated pages are complete, every page has its place, links lead somewhere, and it builds."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers.paths import ROOT

DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

import build  # noqa: E402
import reference  # noqa: E402
import troubleshooting  # noqa: E402

SOURCE = ROOT / "src" / "softstart"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A copy of the sources of the site with the generated pages."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    build.gather(folder / "build" / "docs")
    return folder


def pages(site):
    return sorted((site / "build" / "docs").rglob("*.md"))


def test_every_page_has_its_place(site):
    def entries(nav):
        for item in nav:
            for below in item.values():
                yield from entries(below) if isinstance(below, list) else [below]

    shown = list(entries(yaml.safe_load((site / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    there = {str(page.relative_to(site / "build" / "docs")) for page in pages(site)}
    there = {page for page in there if not page.startswith("files/")}
    assert len(shown) == len(set(shown))
    assert set(shown) == there


def test_every_link_leads_somewhere(site):
    lost = []
    repository = list(DOCS.rglob("*.md"))
    for page in [
        *pages(site),
        *repository,
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
    ]:
        text = re.sub(r"^```.*?^```$|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
        for target in re.findall(r"\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"|srcset=\"([^\"]+)\"", text):
            link = "".join(target)
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            linked = page.parent / path if path else page
            if not linked.exists():
                lost.append(f"{page.name}: {link}")
            elif anchor and anchor not in anchors(linked.read_text(encoding="utf-8")):
                lost.append(f"{page.name}: {link} (no such heading)")
    assert not lost


def anchors(text):
    heads = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M), re.M)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", head.lower()).strip()) for head in heads}


def test_the_reference_names_everything_public(site):
    for module in reference.PACKAGES:
        text = (site / "build" / "docs" / "reference" / f"{module}.md").read_text(encoding="utf-8")
        for name in reference.public_names(module):
            assert f"\n## {name}\n" in text, f"{module}.{name}"
    command_line = (site / "build" / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert all(f"\n## {name}\n" in command_line for name in reference.commands())
    study = (site / "build" / "docs" / "reference" / "study.md").read_text(encoding="utf-8")
    for name, module in reference.STUDY.items():
        assert all(f"| `{field}` |" in study for field, *_ in reference.definition(module, name).fields)


def test_the_reference_in_the_repository_is_that_of_the_code(site):
    made = {page.name: page.read_text() for page in (site / "build" / "docs" / "reference").iterdir()}
    kept = {page.name: page.read_text() for page in (DOCS / "reference").iterdir()}
    stale = sorted(name for name in {*made, *kept} if made.get(name) != kept.get(name))
    assert not stale, "python docs/reference.py"


def test_no_table_has_a_backslash_before_a_bar(site):
    shown = [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    stray = [page.name for page in shown if re.search(r"^\|.*\\\|", page.read_text("utf-8"), re.M)]
    assert not stray


def test_every_error_has_a_fix(site):
    notes = yaml.safe_load((DOCS / "errors.yaml").read_text(encoding="utf-8"))
    errors = troubleshooting.errors(SOURCE)
    assert len(errors) > 150
    entries = list(troubleshooting.entries(SOURCE, notes))
    opaque = [error.keys[0] for error, shown, _ in entries if len(re.findall(r"[A-Za-z]{2,}", shown)) < 2]
    assert not opaque, f"these need 'shown' in docs/errors.yaml: {opaque}"
    mute = [error.keys[0] for error, _, do in entries if not do]
    assert not mute, f"these need a fix, or 'do' in docs/errors.yaml: {mute}"
    stale = set(notes) - {key for error in errors for key in error.keys}
    assert not stale, f"docs/errors.yaml has errors that no code raises: {stale}"
    unread = [
        key
        for key, note in notes.items()
        if "do" in note and all(error.fix for error in errors if key in error.keys)
    ]
    assert not unread, f"these errors say themselves what to do: {unread}"
    page = (site / "build" / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    assert "| unknown optimizer '…'" in page


def test_an_error_without_a_fix_would_be_noticed(tmp_path):
    source = tmp_path / "gym" / "new.py"
    source.parent.mkdir()
    source.write_text("raise SoftstartError(f'no {thing} here')\n")
    ((error, shown, do),) = troubleshooting.entries(tmp_path, {})
    assert (error.what, shown, do) == ("no … here", "no … here", "")
    assert error.area == troubleshooting.AREAS["gym"]
    for key in ("no … here", "new.py: no … here", "gym/new.py: no … here"):
        ((_, _, do),) = troubleshooting.entries(tmp_path, {key: {"do": "Look elsewhere."}})
        assert do == "Look elsewhere.", key
    source.write_text("raise SoftstartError(f'no {thing} here', fix='Bring one.')\n")
    assert "| no … here | Bring one. |" in troubleshooting.page(tmp_path, {})
    source.write_text("raise SoftstartError('no x', fix=did_you_mean(name, known) or f'Use {known}.')\n")
    assert "| no x | Use …. |" in troubleshooting.page(tmp_path, {})
    source.write_text("def f():\n    fix = 'Look.'\n    raise SoftstartError('no y', fix=fix)\n")
    assert "| no y | Look. |" in troubleshooting.page(tmp_path, {})


def test_the_site_builds_and_loads_nothing_from_elsewhere(site):
    pytest.importorskip("zensical")
    command = [str(Path(sys.executable).parent / "zensical"), "build", "--strict"]
    done = subprocess.run(command, cwd=site, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    built = {page.parent.relative_to(site / "site") for page in (site / "site").rglob("index.html")}
    assert len(built) >= len(pages(site))
    home = (site / "site" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=\"?https?:", home)


def test_the_files_around_the_code_agree():
    import softstart

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["version"], cited["license"]) == (softstart.__version__, "Apache-2.0")
    assert [author["family-names"] for author in cited["references"][0]["authors"]] == [
        "Qin",
        "Li",
        "Zhao",
        "Joty",
    ]
    assert f"## {softstart.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for form in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        fields = yaml.safe_load(form.read_text(encoding="utf-8"))
        assert form.stem == "config" or {"name", "description", "body"} <= set(fields), form
