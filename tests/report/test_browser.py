"""The page in a real browser: Debian's chromium, driven by selenium; skipped where one is missing."""

import json

import numpy as np
import pandas as pd
import pytest

from helpers.browser import CHROMIUM, DRIVER
from softstart.analysis import arg_table, largest_budget, relative_gains, with_defaults
from softstart.report import write_report

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium with chromedriver here")


def results():
    rng = np.random.default_rng(0)
    tasks = ("ag_news", "amazon_polarity", "a_task_whose_name_never_seems_to_come_to_any_end", "circa")
    rows = [
        {"setting": "random", "method": method, "task": task, "sample": sample, "seed": seed, "lr": 0.3,
         "budget": budget, "dev": rng.uniform(0.3, 0.9), "test": rng.uniform(0.3, 0.9),
         "run": f"{method}-{task}-{sample}-{seed}"}
        for method in ("pt", "multitask", "maml", "fomaml", "reptile", "</script><b>own")
        for task in tasks
        for sample in (13, 21) for seed in (1, 2) for budget in (10, 60)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path, rows = tmp_path_factory.mktemp("browser") / "report.html", results()
    short = rows.assign(variant="a_shorter_prompt_than_in_the_study_itself", run=rows["run"] + "-s")
    rows = pd.concat([rows.assign(variant="main"), short], ignore_index=True)
    top, runs = largest_budget(with_defaults(rows)), rows.drop_duplicates("run")
    curves = pd.concat([runs.assign(selected=True, step=s, dev=runs["test"] * s / 60) for s in (0, 30, 60)])
    names = sorted(rows["task"].unique())
    similarity = {
        "measures": {"gradient": {"tasks": names, "values": np.eye(4).tolist()}},
        "correlations": [
            {"setting": "random", "method": m, "measure": "gradient", "rho": 0.5, "p": p, "n_tasks": 4}
            for m, p in (("maml", None), ("fomaml", 0.2), ("reptile", 0.0004))
        ],
        "points": [
            {
                "setting": "random",
                "method": "maml",
                "measure": "gradient",
                "task": t,
                "similarity": 0.1 * i,
                "gain": 3.0 * i,
            }
            for i, t in enumerate(names)
        ],
    }
    costs = pd.DataFrame({"method": ["pt", "maml"], "adaptation_seconds": [75.0, 4.0]})
    write_report(
        path,
        {"name": "A study"},
        rows,
        curves,
        arg_table(top),
        relative_gains(top),
        costs,
        similarity=similarity,
        protocol=[{"what": "a_value_with_a_long_name" * 2, "published": "x" * 60, "here": "1"}],
    )
    return path


@pytest.fixture
def opened(browser, page):
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get(page.as_uri())
    return browser


def test_it_loads_from_disk_without_a_word_in_the_console(opened):
    assert opened.title == "A study · Softstart report"
    assert [entry for entry in opened.get_log("browser") if entry["level"] != "INFO"] == []
    loaded = opened.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert loaded == []
    headings = [e.text for e in opened.find_elements("tag name", "h2")]
    for title in (
        "Does a learned start also start faster?",
        "Compared with the published study",
        "Learning curves",
    ):
        assert title in headings


def test_tables_sort_by_any_column_both_ways(opened):
    table = opened.find_element("css selector", "table.scores")
    head = table.find_elements("css selector", "thead th")[3]
    for direction, sign in (("ascending", 1), ("descending", -1)):
        head.find_element("tag name", "button").send_keys("\n")  # by keyboard
        assert head.get_attribute("aria-sort") == direction
        cells = [
            row.find_elements("tag name", "td")[2] for row in table.find_elements("css selector", "tbody tr")
        ]
        means = [sign * float(cell.get_attribute("data-mean")) for cell in cells]
        assert means == sorted(means)
    assert [th.text for th in table.find_elements("css selector", "tfoot th")][:2] == ["Mean", "ARG, %"]


@pytest.mark.parametrize(
    ("table", "column", "order"),
    [
        ("Correlation of similarity and gain", 4, ["<.001", ".200", "–"]),
        ("Cost", 1, ["4.0 s", "1 min 15 s"]),
    ],
)
def test_numbers_sort_by_what_they_are_not_how_they_are_written(opened, table, column, order):
    element = opened.find_element("css selector", f"table[aria-label='{table}']")
    element.find_elements("css selector", "thead button")[column].send_keys("\n")
    assert [
        tr.find_elements("tag name", "td")[column].text
        for tr in element.find_elements("css selector", "tbody tr")
    ] == order


def test_a_number_opens_the_runs_behind_it(opened):
    rows = results()
    link = opened.find_element("css selector", "td[data-method=maml][data-task=circa] a")
    link.send_keys("\n")
    dialog = opened.find_element("id", "runs-of-cell")
    assert dialog.is_displayed()
    assert dialog.find_element("tag name", "h2").text.startswith("MAML on circa")
    shown = [[td.text for td in tr.find_elements("tag name", "td")]
             for tr in dialog.find_elements("css selector", "tbody tr")]  # fmt: skip
    runs = rows[(rows.method == "maml") & (rows.task == "circa") & (rows.budget == 60)]
    assert [row[-1] for row in shown] == list(runs.sort_values(["sample", "seed"])["run"])
    assert [row[-2] for row in shown] == [f"{100 * test:.2f}" for test in runs["test"]]
    dialog.find_element("tag name", "button").click()
    assert not dialog.is_displayed()


def test_figures_are_redrawn_for_a_phone(opened):
    """At 390 points every figure lies within its card, and its letters can be read."""
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    opened.refresh()
    opened.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    drawn = opened.execute_script(
        """const all = [...document.querySelectorAll("svg[role=img]")];
        return all.filter(s => s.getClientRects().length).map(s => {
          const box = s.getBoundingClientRect(), card = s.closest(".card").getBoundingClientRect();
          const texts = [...s.querySelectorAll("text")], of = t => t.getBoundingClientRect();
          const outside = t => of(t).left < box.left - 1 || of(t).right > box.right + 1;
          const size = t => parseFloat(getComputedStyle(t).fontSize) * box.width / s.viewBox.baseVal.width;
          return {
            name: s.ariaLabel, within: box.left >= card.left && box.right <= card.right + 0.5,
            cut: texts.filter(outside).map(t => t.textContent), size: Math.min(...texts.map(size)),
          };
        })"""
    )
    assert len(drawn) > 8
    for figure in drawn:
        assert figure["within"], figure
        assert figure["cut"] == [], figure
        assert figure["size"] >= 9.5, figure
    assert opened.execute_script("return document.documentElement.scrollWidth") == 390


def test_nothing_overflows_on_a_phone(opened):
    phone = {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    opened.refresh()
    wide = opened.execute_script(
        """const out = [];
        for (const e of document.querySelectorAll("body *")) {
          if (e.closest(".card, dialog, svg, details")) continue;
          if (e.getBoundingClientRect().right > innerWidth + 0.5) out.push(e.outerHTML.slice(0, 80));
        }
        for (const e of document.querySelectorAll(".card")) {
          if (e.getBoundingClientRect().right > innerWidth + 0.5) out.push(e.className);
        }
        return [out, innerWidth, document.documentElement.scrollWidth];"""
    )
    assert wide == [[], 375, 375]


def test_every_figure_and_control_has_a_name(opened):
    unnamed = opened.execute_script(
        """return [...document.querySelectorAll("svg[role=img]:not([aria-label]), button, a")]
          .filter(e => e.tagName === "svg" || (!e.textContent.trim() && !e.ariaLabel)).length"""
    )
    assert unnamed == 0
    tree = json.dumps(opened.execute_cdp_cmd("Accessibility.getFullAXTree", {}))
    assert "Average relative gain over PT" in tree


def test_print_is_dark_on_white_whatever_the_screen_and_fits_the_paper(opened):
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    ground = "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    paper = {"width": 700, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    try:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": dark})
        assert opened.execute_script(ground) == ["rgb(20, 22, 26)", "rgb(232, 230, 225)"]
        opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", paper)
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": dark})
        assert opened.execute_script(ground) == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]
        assert opened.execute_script("return document.documentElement.scrollWidth") <= 700
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_the_keyboard_reaches_the_results_first_and_every_setting_from_the_overview(opened):
    from selenium.webdriver.common.keys import Keys

    opened.find_element("tag name", "body").send_keys(Keys.TAB)
    assert opened.switch_to.active_element.text == "Skip to the results"
    opened.switch_to.active_element.send_keys("\n")
    assert opened.execute_script("return location.hash") == "#main"
    link = opened.find_elements("css selector", "table.arg tbody a")[1]
    link.send_keys("\n")
    there = opened.execute_script("return document.querySelector(':target').getAttribute('aria-label')")
    assert there == link.text


def test_folded_parts_are_printed_and_folded_again(opened):
    opened.execute_script(
        "window.folded = () => document.querySelectorAll('details[open]').length;"
        "addEventListener('beforeprint', () => { window.open_in_print = folded(); });"
    )
    parts = opened.find_elements("css selector", "details:not(.long)")
    assert len(parts) > 1
    assert opened.execute_script("return folded()") == 0
    opened.execute_cdp_cmd("Page.printToPDF", {})
    assert opened.execute_script("return window.open_in_print") == len(parts)
    assert opened.execute_script("return folded()") == 0


def test_a_method_can_be_left_out_of_figures_and_tables(opened):
    def shown(selector):
        return sum(e.is_displayed() for e in opened.find_elements("css selector", selector))

    cells = "section:first-of-type ~ section table.scores td[data-method=maml]"
    box = next(e for e in opened.find_elements("css selector", ".show label") if e.text == "MAML")
    number = box.find_element("tag name", "input").get_attribute("id").removeprefix("show-")
    before = shown(cells), shown(f"main > section svg .s{number}"), shown("td[data-method=fomaml]")
    assert min(before) > 0
    box.find_element("tag name", "input").send_keys(" ")  # by keyboard
    assert (shown(cells), shown(f"main > section svg .s{number}")) == (0, 0)
    assert shown("td[data-method=fomaml]") == before[2]
    box.find_element("tag name", "input").send_keys(" ")
    assert shown(cells) == before[0]
