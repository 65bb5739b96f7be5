"""Names that are HTML stay names: the page has the same elements whatever a study's parts are called."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from helpers.browser import CHROMIUM, DRIVER
from softstart.analysis import arg_table, largest_budget, relative_gains, with_defaults
from softstart.report import write_report

HARM = ("<script>window.harm=1</script>", '"><img src=x onerror=window.harm=2>', "</script><b>'`{{7*7}}")
PLAIN = tuple("n" * (len(name) - 1) + str(i) for i, name in enumerate(HARM))


class Elements(HTMLParser):
    """The elements of a page with the names of their attributes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, tuple(name for name, _ in attributes)))


def page(path, names):
    rng = np.random.default_rng(0)
    method, task, setting = names
    rows = pd.DataFrame(
        {"setting": setting, "method": m, "task": t, "sample": s, "seed": 1, "lr": 0.3, "budget": 10,
         "variant": "main", "dev": rng.random(), "test": rng.random(), "run": f"{m}-{t}-{s}"}
        for m in ("pt", method) for t in (task, "other") for s in (13, 21)
    )  # fmt: skip
    top = largest_budget(with_defaults(rows))
    curves = pd.concat([rows.assign(selected=True, step=s, dev=rows["test"] * s / 10) for s in (0, 10)])
    costs = pd.DataFrame({"method": ["pt", method], "adaptation_seconds": [3.0, 4.0]})
    write_report(
        path, {"name": task, "backbone": setting}, rows, curves, arg_table(top), relative_gains(top), costs,
        environment={"device": method}, protocol=[{"what": task, "published": setting, "here": method}],
    )  # fmt: skip
    return path


def test_hostile_names_add_no_element(tmp_path):
    hostile, plain = (
        page(tmp_path / f"{i}.html", names).read_text() for i, names in enumerate((HARM, PLAIN))
    )
    assert Elements(hostile).elements == Elements(plain).elements
    assert "<script>window.harm" not in hostile


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium with chromedriver here")
def test_hostile_names_do_nothing_in_a_browser(tmp_path, browser):
    browser.get(page(tmp_path / "page.html", HARM).as_uri())
    assert browser.execute_script("return window.harm") is None
    assert HARM[1] in browser.find_element("tag name", "body").text
