"""Gather the sources of the site: ``python docs/build.py && zensical build --strict``.

The pages of this folder, the generated ones under ``reference/`` next to them, and under ``files/`` every
file of the repository that a page links to: a link works where pages are read alone and on the site.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import reference

DOCS = Path(__file__).parent
ROOT = DOCS.parent
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")


def gather(folder: Path) -> None:
    """Write all sources of the site into ``folder``, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("*.py", "errors.yaml", "__pycache__"))
    reference.write(folder / "reference")
    for page in sorted(DOCS.rglob("*.md")):
        copy = folder / page.relative_to(DOCS)
        up = "../" * len(copy.relative_to(folder).parts[:-1])
        text = LINK.sub(
            lambda m, page=page, up=up: f"]({_inside(page, m[1], folder, up)}", page.read_text("utf-8")
        )
        copy.write_text(text, encoding="utf-8")


def _inside(page: Path, link: str, folder: Path, up: str) -> str:
    """The link, to a copy of its target where that lies outside of the pages."""
    target = (page.parent / link).resolve()
    if target.is_relative_to(DOCS) or not target.is_relative_to(ROOT) or not target.is_file():
        return link
    place = Path("files") / target.relative_to(ROOT)
    copy = folder / place
    copy.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".md":
        # Its own links are for readers of the repository.
        text = re.sub(r"\[([^\]]+)\]\((?![a-z]+:)[^)]+\)", r"\1", target.read_text("utf-8"))
        copy.with_name(f"{copy.stem.lower()}.md").write_text(text, encoding="utf-8")
        place = place.with_name(f"{copy.stem.lower()}.md")
    else:
        shutil.copy(target, copy)
    return f"{up}{place}"


if __name__ == "__main__":
    gather(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "docs")
