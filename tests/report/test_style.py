"""Labels and colors: declared once, distinguishable, the same on the page, in files and in LaTeX."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import softstart.report
from helpers.paths import ROOT
from softstart.analysis import arg_table, relative_gains
from softstart.errors import SoftstartError
from softstart.report import write_report
from softstart.report.colors import DARK_GROUND, LIGHT_GROUND, PALETTE, contrast, difference
from softstart.report.files import write_files
from softstart.report.style import DASHES, DEFAULTS, THEME, Appearance, MethodStyles
from softstart.study import load_study
from softstart.training.methods import BASELINES, LEARNERS, find_method

STUDIES = sorted((ROOT / "studies").glob("*.yaml"))

# Viénot, Brettel and Mollon (1999): linear sRGB as seen without long- and without medium-wavelength cones.
DICHROMATS = {
    "full": np.eye(3),
    "protan": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    "deutan": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
}


XYZ = [
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.072175],
    [0.0193339, 0.119192, 0.9503041],
]


def cielab(color, vision):
    c = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = vision @ np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(linear, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def delta_e(a, b, vision="full"):
    return float(np.linalg.norm(cielab(a, DICHROMATS[vision]) - cielab(b, DICHROMATS[vision])))


def rows_of(methods, tasks=("emo", "anli"), samples=(13, 21)):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"setting": "mini", "method": m, "task": t, "sample": s, "lr": 0.3, "test": rng.uniform(0.4, 0.9),
             "dev": 0.5, "run": f"{m}-{t}-{s}"}
            for m in methods for t in tasks for s in samples
        ]
    )  # fmt: skip


@pytest.mark.parametrize("vision", DICHROMATS)
@pytest.mark.parametrize("ground", ["light", "dark"])
def test_eight_colors_are_told_apart_whatever_the_color_vision(vision, ground):
    colors = [getattr(color, ground) for color in PALETTE]
    assert min(delta_e(a, b, vision) for a, b in combinations(colors, 2)) > 10


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_methods_of_every_shipped_study_differ_in_color(path):
    methods = list(load_study(path).methods)
    styles = MethodStyles(methods)
    assert set(styles) == {*methods, "pt"}
    for (_, a), (_, b) in combinations(styles.items(), 2):
        assert a.label != b.label
        for ground in ("light", "dark"):
            apart = delta_e(getattr(a.color, ground), getattr(b.color, ground))
            assert apart > (20 if len(styles) <= len(PALETTE) else 5), (a, b)
    assert all(style.dash == DASHES[0] for style in list(styles.values())[:8])
    assert len({(style.color, style.dash) for style in styles.values()}) == len(styles)


@given(st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=24), st.data())
def test_no_two_methods_look_or_read_alike(methods, data):
    color = st.none() | st.sampled_from(["#1a3c9f", "#1a3c9e", "#ffffff", "#000000", "#abcdef"])
    appearance = {
        method: Appearance(data.draw(st.sampled_from(["A", "B", method])), data.draw(color))
        for method in methods
    }
    styles = MethodStyles(methods, appearance)
    assert len({style.label for style in styles.values()}) == len(styles)
    for a, b in combinations(styles.values(), 2):
        assert difference(a.color, b.color) > 0.01
    for style in styles.values():
        assert contrast(style.color.light, LIGHT_GROUND) > 2.2
        assert contrast(style.color.dark, DARK_GROUND) > 2.2


def test_what_is_known_by_name_is_what_the_algorithms_declare():
    for name, look in DEFAULTS.items():
        declared = find_method("multitask" if name == "multi" else name)
        assert (look.label, look.color) == (declared.label, declared.color)
    assert set(DEFAULTS) - {"multi"} == {*BASELINES, *LEARNERS}


def test_known_methods_keep_their_colors_in_every_study():
    few, many = MethodStyles(["maml"]), MethodStyles([*DEFAULTS, "mine", "yours"])
    assert few["maml"].color == many["maml"].color == PALETTE[3]
    assert many.in_order(["mine", "maml", "pt"]) == ("pt", "maml", "mine")


def test_a_declared_label_and_color_reach_page_figures_and_latex(tmp_path):
    rows = rows_of(("pt", "maml", "sign-maml", "other"))
    appearance = {"sign-maml": Appearance("Sign-MAML", "#8a6d3b")}
    tables = (arg_table(rows), relative_gains(rows))
    write_report(tmp_path / "report.html", {}, rows, pd.DataFrame(), *tables, {}, appearance=appearance)
    write_files(tmp_path / "files", rows, *tables, appearance=appearance)
    styles = MethodStyles(rows["method"], appearance)
    assert styles["sign-maml"].label == "Sign-MAML"
    assert styles["sign-maml"].color.light == "#8a6d3b"
    page, figure, colors, table = (
        (tmp_path / name).read_text(encoding="utf-8")
        for name in ("report.html", "files/gains-1.svg", "files/colors.tex", "files/scores.tex")
    )
    for style in styles.values():
        rule = f".s{style.number} {{ --c: {style.color.light};"
        assert rule in page
        assert rule in figure
        assert f"{{HTML}}{{{style.color.light[1:].upper()}}}  % {style.label}" in colors
    assert "Sign-MAML" in page
    assert "Sign-MAML" in figure
    assert "Sign-MAML" in table
    assert "Sign-MAML, emo" in page or "emo, Sign-MAML" in page


def test_style_sheets_name_no_color_of_their_own():
    for path in Path(softstart.report.__file__).parent.glob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"#[0-9a-fA-F]{3,8}\b|rgb|hsl", text), path
        assert set(re.findall(r"var\(--(\w+)\)", text)) <= {*THEME["light"], "c", "dash"}


def test_what_is_no_color_is_refused():
    with pytest.raises(SoftstartError, match=r"'red; }' is not a color"):
        Appearance("A", "red; }")
