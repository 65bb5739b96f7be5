import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from softstart.analysis import arg_table, relative_gains
from softstart.errors import SoftstartError
from softstart.progress import duration
from softstart.report import comparison_table, figures, write_report
from softstart.report.console import findings
from softstart.report.style import DEFAULTS
from softstart.report.words import signed

METHODS = ("pt", "ft", "multitask", "maml", "fomaml", "reptile")
EVIL = "<script>alert('task')</script>"
VOID = {"meta", "link", "br", "hr", "img", "input"}


def results(tasks=("emo", "anli", "trec"), methods=METHODS, samples=(13, 21), seeds=(1,), **columns):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {
                "setting": "mini",
                "method": method,
                "backbone": "tiny",
                "prompt_length": 10,
                "variant": "main",
                "task": task,
                "sample": sample,
                "seed": seed,
                "lr": 0.3,
                "dev": rng.uniform(0.4, 0.9),
                "test": rng.uniform(0.4, 0.9),
                "run": f"{method}-{i}-{sample}-{seed}",
                **columns,
            }
            for method in methods
            for i, task in enumerate(tasks)
            for sample in samples
            for seed in seeds
        ]
    )


def curves_of(rows):
    return pd.concat([rows.assign(selected=True, step=s, dev=rows["test"] * s / 100) for s in (0, 50, 100)])


class Page(HTMLParser):
    """Every element with its attributes and text; fails on tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append({"tag": tag, **dict(attrs), "text": ""})
        if tag not in VOID:
            self.open.append((tag, self.elements[-1]))

    def handle_startendtag(self, tag, attrs):
        self.elements.append({"tag": tag, **dict(attrs), "text": ""})

    def handle_endtag(self, tag):
        opened, _ = self.open.pop()
        assert opened == tag, f"<{opened}> closed by </{tag}>"

    def handle_data(self, data):
        for _, element in self.open:
            element["text"] += data

    def all(self, tag):
        return [element for element in self.elements if element["tag"] == tag]


def report(tmp_path, rows, curves=None, costs=None, **more):
    path = tmp_path / "report.html"
    curves = curves_of(rows) if curves is None else curves
    study = {"name": "A study", "learning_rates": [0.5, 0.3]}
    write_report(path, study, rows, curves, arg_table(rows), relative_gains(rows), costs or {}, **more)
    return Page(path.read_text(encoding="utf-8"))


def test_numbers_of_the_table_are_those_of_the_data_and_lead_to_their_runs(tmp_path):
    rows = results()
    page = report(tmp_path, rows)
    cells = [element for element in page.all("td") if "data-mean" in element]
    expected = rows.groupby(["task", "method"])["test"]
    assert len(cells) == len(expected)
    ids = {element["id"]: element for element in page.elements if "id" in element}
    links = {a["href"] for a in page.all("a")}
    for cell in cells:
        scores = expected.get_group((cell["data-task"], cell["data-method"])) * 100
        assert float(cell["data-mean"]) == pytest.approx(scores.mean())
        assert cell["text"] == f"{scores.mean():.1f} ± {scores.std():.1f}"
        keys = rows.loc[scores.index, "run"]
        assert cell["data-runs"].split() == list(keys)
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    targets = [ids[link[1:]]["text"] for link in links if link.startswith("#runs-")]
    assert len(targets) == len(cells)
    arg = arg_table(rows).set_index("method")
    text = " ".join(element["text"] for element in page.all("tfoot"))
    for method in METHODS:
        assert signed(arg.loc[method, "arg"]) in text


def test_the_page_loads_nothing_and_runs_nothing(tmp_path):
    page = report(tmp_path, results(), costs={"maml": {"meta_seconds": 93.2, "tokens": 12_000}})
    assert not [script for script in page.all("script") if "src" in script]
    assert not page.all("link")
    loaded = [e.get("src") or e.get("href") for e in page.elements if e.get("src") or e.get("href")]
    assert all(target.startswith("#") or target == "results.csv" for target in loaded)
    assert "url(" not in page.all("style")[0]["text"]
    assert not [e for e in page.elements if any(key.startswith("on") for key in e)]
    body = page.all("body")[0]["text"]
    assert "1 min 33 s" in body
    assert "12,000" in body
    assert "learning_rates:" in body


def test_names_are_text_wherever_they_appear(tmp_path):
    rows = results(tasks=("emo", EVIL), methods=("pt", "maml", '"><b>mine'), backbone="<i>tiny</i>")
    page = report(tmp_path, rows, notes=["<u>note</u>"], environment={"<k>": "<v>"})
    assert not {"i", "u", "k", "v"} & {e["tag"] for e in page.elements}
    assert len(page.all("script")) == 2  # the page's own
    assert not any("mine" in e["text"] for e in page.all("b"))
    assert EVIL in page.all("table")[0]["text"]
    assert EVIL in [e.get("data-task") for e in page.all("td")]
    assert any('"><b>mine' in e["text"] for e in page.all("th"))


def test_best_of_a_task_is_marked(tmp_path):
    rows = results()
    page = report(tmp_path, rows)
    best = {
        (e["data-task"], e["data-method"]) for e in page.all("td") if "best" in e.get("class", "").split()
    }
    means = rows.groupby(["task", "method"])["test"].mean()
    assert best == {(task, means[task].idxmax()) for task in rows["task"].unique()}


def test_half_finished_studies_say_so(tmp_path):
    rows = results()
    rows.loc[(rows["method"] == "maml") & (rows["task"] == "emo"), "test"] = math.nan
    rows = rows[~((rows["method"] == "reptile") & (rows["task"] == "anli"))]
    rows.loc[(rows["method"] == "pt") & (rows["task"] == "trec"), "test"] = 0.0
    report(tmp_path, rows, curves=curves_of(rows).assign(dev=math.nan))
    page = report(tmp_path, rows, curves=pd.DataFrame())
    caveats = next(e["text"] for e in page.all("ul") if e.get("class") == "caveats")
    assert re.search(r"incomplete.*MAML \(1 task missing\), Reptile \(1 task missing\)", caveats)
    assert "PT is not above zero on trec" in caveats
    assert "2 runs have no test score" in caveats
    assert "meta-trained with one seed" in caveats
    assert "undefined: PT scores 0.0" in page.all("body")[0]["text"]
    assert "Learning curves" not in page.all("body")[0]["text"]
    assert "nan" not in page.all("tbody")[0]["text"]


def test_only_the_baseline_yet(tmp_path):
    page = report(tmp_path, results(methods=("pt",), samples=(13,)))
    assert "nothing to compare with PT yet" in page.all("header")[0]["text"]
    with pytest.raises(SoftstartError, match="no result to report yet"):
        write_report(tmp_path / "r.html", {}, results().head(0), *[pd.DataFrame()] * 3, {})


def test_several_settings_and_meta_seeds_each_get_their_part(tmp_path):
    rows = pd.concat([results(seeds=(1, 2)), results(seeds=(1, 2), setting="other")])
    meta = pd.DataFrame([("maml", s, 3 - s / 100) for s in range(200)], columns=["method", "step", "loss"])
    page = report(tmp_path, rows, meta_curves=meta)
    assert [e["text"] for e in page.all("h2")][:3] == [
        "All settings",
        "mini · tiny",
        "other · tiny",
    ]
    caveats = next(e["text"] for e in page.all("ul") if e.get("class") == "caveats")
    assert "2 meta-training seeds" in caveats
    assert "one seed" not in caveats
    assert any(e.get("aria-label") == "Loss of meta-training" for e in page.all("svg"))
    labels = [e.get("aria-label", "") for e in page.all("svg")]
    assert sum(text.startswith("Dev score") for text in labels) == 6


def test_the_old_report_stays_if_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(SoftstartError, match=r"report\.html: cannot write \(No space left"):
        report(tmp_path, results())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def rendered(rows, width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(comparison_table(rows, arg_table(rows)))
    return console.file.getvalue()


def test_console_table_with_few_targets():
    rows = results()
    text = rendered(rows)
    maml = next(line for line in text.splitlines() if line.startswith(" MAML") or line.startswith("MAML"))
    for _, scores in rows[rows["method"] == "maml"].groupby("task"):
        assert f"{scores['test'].mean() * 100:.1f} ±{scores['test'].std() * 100:.1f}" in maml
    gain = arg_table(rows).set_index("method").loc["maml"]
    assert signed(gain["arg"]) in maml
    assert "[" not in maml  # three tasks have no interval
    assert f"{gain['wins']}/{gain['ties']}/{gain['losses']}" in maml


def test_console_table_with_many_targets_fits_a_terminal():
    rows = results(tasks=[f"some_longer_task_name_{i}" for i in range(12)])
    rows.loc[(rows["method"] == "ft") & (rows["task"] == "some_longer_task_name_3"), "test"] = math.nan
    text = rendered(rows)
    for i in range(12):
        line = next(line for line in text.splitlines() if f"some_longer_task_name_{i} " in line)
        assert len(re.findall(r"\d\d\.\d ±", line)) == (5 if i == 3 else 6)
    assert "Reptile" in text
    arg = next(line for line in text.splitlines() if "ARG %" in line)
    assert arg.count("*") == 1
    assert "* tasks or runs are missing" in " ".join(text.split())


def test_console_takes_markup_as_text():
    assert "[red]emo[/red]" in rendered(results(tasks=("[red]emo[/red]",)), width=140)


number = st.floats(-1e4, 1e4) | st.just(math.nan)


@given(st.dictionaries(st.text(max_size=8), st.tuples(number, number, number), max_size=5))
def test_figures_survive_any_number_and_name(values):
    series = {name: i for i, name in enumerate(values)}
    rows = {name: dict(zip(values, triple, strict=False)) for name, triple in values.items()}
    curves = {name: list(enumerate(triple)) for name, triple in values.items()}
    for svg in (
        figures.bars(values, series, title="t"),
        figures.dots(rows, series, title="t"),
        figures.lines(curves, series, title="t"),
    ):
        page = Page(svg)
        assert page.all("svg")
        assert not re.search(r'="[^"]*(nan|inf)', svg)
        assert {"svg", "text", "title", "path", "rect", "circle", "g"} >= {e["tag"] for e in page.elements}


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low, length):
    ticks = figures.ticks(low, low + length)
    assert 1 <= len(ticks) <= 8
    assert all(low - 1e-6 * length <= tick <= low + length + 1e-6 * length for tick in ticks)


def test_numbers_are_written_for_people():
    assert [signed(v) for v in (1.25, -3, 0.01, -0.01, math.nan)] == ["+1.2", "\u22123.0", "0.0", "0.0", "–"]
    assert [duration(s) for s in (0.84, 192, 7500)] == ["0.8 s", "3 min 12 s", "2 h 05 min"]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_every_method_fits_into_the_terminal(width):
    rows = results(tasks=("a_task_of_some_length", *map(str, range(9))))
    console = Console(width=width, file=io.StringIO())
    console.print(comparison_table(rows, arg_table(rows), width))
    text = console.file.getvalue()
    header = next(line for line in text.splitlines() if "PT" in line and "FT" in line)
    assert [DEFAULTS[m].label in header for m in METHODS] == [True] * 6
    assert ("±" in text) == (width > 80)
    assert "percent." in text


def test_variants_are_plotted_and_listed_with_the_study_as_declared(tmp_path):
    rows = pd.concat([results(), results(variant="short")])
    rows.loc[rows["variant"] == "short", "test"] *= 0.9
    page = report(tmp_path, rows)
    figure = next(e for e in page.all("svg") if "in points by variant" in e.get("aria-label", ""))
    arg = arg_table(rows).set_index(["variant", "method"])
    for variant in ("main", "short"):
        gain = arg.loc[(variant, "maml")]
        tip = f"{variant}, MAML: {signed(gain.mean_abs_gain)} points"
        assert tip in figure["text"]
        assert any(signed(gain.arg) in e["text"] for e in page.all("td"))
    assert "Of 10 comparisons with PT" in page.all("header")[0]["text"]
    assert sum(e.get("class") == "variant" for e in page.all("details")) == 1


def test_the_head_gives_question_result_and_certainty(tmp_path):
    rows = results(methods=("pt", "maml", "reptile"))
    head = report(tmp_path, rows).all("header")[0]["text"]
    assert "Do MAML and Reptile score higher than PT on 3 target tasks, with 2 few-shot samples" in head
    assert "Too few target tasks to tell: 3 with 2 comparisons, where the test needs 7" in head
    assert "corrected for 2 comparisons (Holm)" in head
    assert "One meta-training seed" in head
    assert not re.search("highest|best", head)


def test_the_head_spells_out_metric_shots_and_methods(tmp_path):
    rows = results(methods=("pt", "ft", "maml"), metric="ACC", shots=16)
    rows.loc[rows["task"] == "trec", ["metric", "shots"]] = ["EM", 32]
    page = report(tmp_path, rows)
    words = {
        dt["text"]: dd["text"]
        for dt, dd in zip(page.all("dt"), page.all("dd"), strict=True)
        if "Question" not in dt["text"]
    }
    assert words["points"].endswith("on its test set: ACC on 2 and EM on 1")
    assert words["k"].startswith("shots: 16 on 2 tasks and 32 on 1 task")
    assert words["PT"].startswith("plain prompt tuning")
    assert words["FT"].startswith("full fine-tuning")
    assert words["MAML"].startswith("prompt tuning from a start learned on source tasks")
    assert "100 × (score − PT) / PT" in words["ARG"]
    heads = [e["text"] for e in page.all("th")]
    assert any(text.startswith("trec") and "EM, k = 32" in text for text in heads)


def test_every_table_and_scrolling_part_has_a_name_and_figures_are_given_in_numbers(tmp_path):
    rows = results()
    page = report(tmp_path, rows, costs={"maml": {"meta_seconds": 93.2}})
    assert all(e.get("aria-label") or e.get("aria-labelledby") for e in page.all("table"))
    regions = [e for e in page.all("div") if e.get("role") == "region"]
    assert len(regions) > 8
    assert all(e["aria-label"] and e["tabindex"] == "0" for e in regions)
    numbers = {e["aria-label"].partition(",")[0]: e["text"] for e in page.all("table") if "aria-label" in e}
    gains = relative_gains(rows)
    for row in gains[gains["method"] == "maml"].itertuples():
        (line,) = (
            li for li in numbers["Gain in percent by task"].splitlines() if li.strip().startswith(row.task)
        )
        assert signed(row.gain) in line
    means = 100 * rows.groupby(["task", "method"])["test"].mean()
    for (task, method), mean in means.items():
        line = f"{task}{DEFAULTS[method].label}0.00{mean / 2:.2f}{mean:.2f}"
        assert line in numbers["Dev scores while adapting"]


@pytest.mark.slow
def test_a_page_of_many_settings_stays_light(tmp_path):
    """As large as a study of all published settings with five samples: 10 x 10 tasks x 6 methods x 5."""
    tasks = [f"a_task_of_some_length_{i}" for i in range(10)]
    many = [results(tasks, samples=range(5), setting=f"setting {i}") for i in range(10)]
    rows = pd.concat([each.assign(run=each["run"] + f"-{i}") for i, each in enumerate(many)])
    report(tmp_path, rows)
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_departures_and_what_was_kept(tmp_path):
    protocol = [
        {"what": "beams", "published": "4", "here": "1"},
        {"what": "outer steps", "published": "5000", "here": "5000"},
    ]
    page = report(tmp_path, results(), protocol=protocol)
    text = page.all("body")[0]["text"]
    assert "1 of 2 values differ" in text
    assert "The 1 value as published" in text
    assert "outer steps" in [e["text"] for e in page.all("dt")]


def test_a_recommendation_is_judged_on_the_page(tmp_path):
    targets = ("emo", "anli", "trec")
    followed = [
        {"settings": "a, b", "method": "maml", "task": t, "measure": "gradient", "start": "a", "gain": g,
         "random": 1.0, "widest": 0.5, "fixed": 2.0, "best": 9.0, "p": 0.25}
        for t, g in zip(targets, (1.0, 2.0, 6.0), strict=True)
    ]  # fmt: skip
    names = [*targets, "source"]
    measured = {
        "measures": {"gradient": {"tasks": names, "values": np.eye(4).tolist()}},
        "correlations": [],
        "points": [
            {
                "setting": "mini",
                "method": "maml",
                "measure": "gradient",
                "task": t,
                "similarity": s,
                "gain": g,
            }
            for t, s, g in zip(targets, (0.1, None, 0.3), (4.0, 5.0, -2.5), strict=True)
        ],
        "followed": followed,
    }
    page = report(tmp_path, results(), similarity=measured)
    body = [[td["text"] for td in page.all("td")][i : i + 8] for i in range(len(page.all("td")))]
    assert ["MAML", "+3.0", "+1.0", "+0.5", "+2.0", "+9.0", ".250", "3"] in body
    scatter = next(e for e in page.all("svg") if "against similarity" in e.get("aria-label", ""))
    assert scatter["text"].count("MAML") == 2  # the unknown one is left out
    assert "trec, MAML: \u22122.5 points at +0.30" in scatter["text"]


def test_a_headline_does_not_rest_on_a_ratio_to_nearly_nothing(tmp_path):
    """Reptile leads by ARG, because of one task where PT is near zero; MAML leads in points."""
    scores = {"pt": (0.5, 0.6, 0.001), "maml": (0.7, 0.8, 0.001), "reptile": (0.5, 0.6, 0.02)}
    rows = results(methods=tuple(scores))
    place = {task: i for i, task in enumerate(("emo", "anli", "trec"))}
    rows["test"] = [scores[m][place[t]] for m, t in zip(rows["method"], rows["task"], strict=True)]
    arg = arg_table(rows).set_index("method")["arg"]
    assert arg["reptile"] > 10 * arg["maml"]
    page = report(tmp_path, rows)
    result = next(e for e in page.all("dd") if "result" in e.get("class", ""))["text"]
    assert "mean gains +0.6 to +13.3 points" in result
    assert "PT is near zero on trec" in next(
        e["text"] for e in page.all("dd") if "warnings" in e.get("class", "")
    )


def test_dev_scores_that_never_moved_are_reported(tmp_path):
    rows = results(best_step=20)
    rows.loc[rows["task"] == "anli", ["dev", "best_step"]] = 0
    n = int((rows["task"] == "anli").sum())
    assert (
        f"{n} results of {len(rows)} (anli) stayed at step 0."
        in report(tmp_path, rows).all("body")[0]["text"]
    )
    assert "stayed at step 0" not in report(tmp_path, results(best_step=0)).all("body")[0]["text"]


def study_of(scores, n_tasks, noise=0.0):
    """Rows with a mean score for each method on every task, and a deviation of each task of its own."""
    tasks = tuple(f"t{i}" for i in range(n_tasks))
    rows = results(tasks, tuple(scores), samples=range(6))
    rng = np.random.default_rng(1)
    apart = {(m, t): rng.normal(0, noise) for m in scores for t in tasks}
    own = [scores[m] + apart[m, t] for m, t in zip(rows["method"], rows["task"], strict=True)]
    return rows.assign(test=own)


@pytest.mark.parametrize(
    ("scores", "n_tasks", "noise", "says"),
    [
        ({"pt": 0.5, "maml": 0.6}, 4, 0, "tell: 4 with 1 comparison, where the test needs 6."),
        ({"pt": 0.5, "maml": 0.6}, 8, 0, "MAML beats PT (mean gain +10.0 points"),
        ({"pt": 0.5, "maml": 0.4}, 8, 0, "MAML scores lower than PT (mean gain −10.0 points"),
        ({"pt": 0.5, "maml": 0.5, "reptile": 0.5}, 10, 0.05, "No method beats PT as far as 10 target"),
        (
            {"pt": 0.3, "multitask": 0.6, "maml": 0.6, "reptile": 0.6}, 10, 0.02,
            "All 3 methods, Multi-task, MAML and Reptile, beat PT (mean gains",
        ),
        ({"pt": 0.3, "maml": 0.6, "reptile": 0.6}, 10, 0.02, "They cannot be told apart."),
        ({"pt": 0.3, "maml": 0.7, "reptile": 0.5}, 10, 0.02, "told apart: MAML from Reptile (+"),
        ({"pt": 0.5, "ft": 0.5, "maml": 0.8}, 10, 0.04, "FT cannot be told apart from PT"),
    ],
)  # fmt: skip
def test_the_headline_says_what_can_be_told_apart(tmp_path, scores, n_tasks, noise, says):
    rows = study_of(scores, n_tasks, noise)
    result = next(e for e in report(tmp_path, rows).all("dd") if "result" in e.get("class", ""))["text"]
    assert says in result
    assert "highest" not in result


def test_several_settings_say_who_wins_everywhere(tmp_path):
    rows = study_of({"pt": 0.3, "maml": 0.6, "reptile": 0.3}, 10, 0.02)
    page = report(tmp_path, pd.concat([rows, rows.assign(setting="other")]))
    result = next(e for e in page.all("dd") if "result" in e.get("class", ""))["text"]
    assert result.startswith("Of 4 comparisons with PT, 2 are gains and 0 are losses")
    assert result.endswith("MAML beats PT in every setting.")


def test_methods_are_compared_with_each_other(tmp_path):
    rows = study_of({"pt": 0.3, "maml": 0.7, "reptile": 0.5}, 10, 0.02)
    page = report(tmp_path, rows)
    means = 100 * rows.groupby("method")["test"].mean()
    (table,) = (e for e in page.all("table") if e.get("class") == "against")
    assert f"{signed(means['maml'] - means['reptile'])} p .002" in " ".join(table["text"].split())
    assert sum("best" in e.get("class", "").split() and " p " in e["text"] for e in page.all("td")) == 6


def test_warnings_stand_at_the_top(tmp_path):
    rows = results(methods=("pt", "maml"), chance=0.95, majority=0.5)
    page = report(tmp_path, rows)
    told = next(e["text"] for e in page.all("dd") if "warnings" in e.get("class", ""))
    assert "3 target tasks cannot tell 1 method from PT at p ≤ 0.05, whatever the scores; 6 could" in told
    assert "at chance, not above guessing or the most frequent answer: PT and MAML on anli (95.0)" in told
    text = rendered(rows, 140)
    assert re.search(r"emo +95\.0 +50\.0 ", text)
    said = findings(rows, arg_table(rows))
    assert said[0].startswith("Too few target tasks")
    assert any("at chance" in line for line in said)


def test_every_figure_has_labeled_axes_and_a_form_for_a_phone(tmp_path):
    rows = pd.concat([results(budget=budget) for budget in (10, 60)])
    rows = pd.concat([rows, rows.assign(variant="short")])
    rows["run"] = [f"r{i}" for i in range(len(rows))]
    meta = pd.DataFrame([("maml", s, 3 - s / 100) for s in range(200)], columns=["method", "step", "loss"])
    page = report(tmp_path, rows, meta_curves=meta)
    drawn = [e for e in page.all("svg") if e.get("role") == "img"]
    wide = [e for e in drawn if e["viewbox"].split()[2] == "720"]
    narrow = [e for e in drawn if e["viewbox"].split()[2] == "320"]
    assert len(wide) == len(narrow) >= 5
    axes = ("relative gain over PT", "gain over PT", "dev score, points", "nats per token", "gain, points")
    for figure in drawn:
        assert any(axis in figure["text"] for axis in axes), figure["aria-label"]
