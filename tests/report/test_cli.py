"""The real commands that read a study folder back: ``report``, ``similarity``, ``inspect``."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.toy_study import SOFTSTART, call
from softstart.analysis import arg_table
from softstart.cli import app as cli
from softstart.prompt import SoftPrompt
from softstart.report.words import signed
from softstart.study.results.sqlite_rows import row_digest

KEPT = ("results.csv", "runs.csv", "curves.csv", "report.html")


@pytest.fixture
def study(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "study")


@pytest.fixture
def softstart(capsys):
    """The command line in this process: arguments → exit code, stdout, stderr."""

    def run(*arguments):
        capsys.readouterr()
        code = cli._main(list(map(str, arguments)), debug=False)
        return (code, *capsys.readouterr())

    return run


def with_inputs(study, change):
    with sqlite3.connect(study / "study.db") as db:
        data = json.loads(db.execute("SELECT data FROM inputs").fetchone()[0])
        change(data)
        row = {"id": 1, "data": json.dumps(data)}
        db.execute("UPDATE inputs SET data=?, digest=?", (row["data"], row_digest(row)))


def refused(softstart, study, message):
    before = {name: (study / name).read_bytes() for name in KEPT}
    code, _, err = softstart("report", study)
    assert code == 1
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line), line
    assert "un the study again" in line
    assert {name: (study / name).read_bytes() for name in KEPT} == before


def test_results_that_no_longer_belong_to_the_plan_are_left_alone(softstart, study):
    with_inputs(study, lambda data: data["parts"][0]["tasks"]["toy-c"].update(digest="changed since"))
    refused(
        softstart,
        study,
        r"study: 12 of 24 results in this folder do not belong to the study as it is planned now",
    )
    with_inputs(study, lambda data: data.update(backbone_digest="another"))
    refused(softstart, study, "24 of 24 results")
    (study / "results.csv").unlink()  # nothing to lose, but nothing to report either
    _, _, err = softstart("report", study)
    assert "all 44 runs in this folder do not belong to the study" in err
    assert not (study / "results.csv").exists()


def test_a_damaged_record_of_the_inputs_is_one_clear_line(softstart, study):
    with sqlite3.connect(study / "study.db") as db:
        db.execute("UPDATE inputs SET data=replace(data, 'toy-c', 'toy-z')")
    refused(softstart, study, "study.db: the record of what the study depends on is damaged")


def test_inputs_of_another_version_are_one_clear_line(softstart, study):
    with_inputs(study, lambda data: data["parts"][0].pop("source"))
    refused(softstart, study, "was run with another version of Softstart")


def test_results_whose_prompts_are_gone_are_left_alone(softstart, study):
    shutil.rmtree(study / "prompts")
    refused(softstart, study, "20 of 24 results in this folder have lost their prompt files")


def test_a_page_and_tables_are_written_again_from_the_store(study, tmp_path):
    rows = pd.read_csv(study / "results.csv")
    for name in KEPT:
        (study / name).unlink()
    done = call(SOFTSTART, "report", study, "--markdown", tmp_path / "r.md", "--command", "softstart run x")
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(pd.read_csv(study / "results.csv"), rows)
    arg = arg_table(rows).set_index("method")["arg"]
    text = (tmp_path / "r.md").read_text()
    assert "softstart run x\nsoftstart report" in text
    files = study / "report"
    assert text.count(signed(arg["maml"])) >= 1
    written = pd.read_csv(files / "arg.csv").set_index("method")["arg"]
    pd.testing.assert_series_equal(written, arg, rtol=1e-12)
    latex = (files / "arg.tex").read_text()
    assert signed(arg["maml"]).replace("\u2212", "$-$") in latex
    assert latex.count("&") % 5 == 0  # a row is a name and five methods
    scores = (files / "scores.tex").read_text()
    assert re.search(r"^toy-c.* & \d", scores, re.M)
    for part in (
        r"\begin{table}",
        r"\caption{",
        "k = ",
        r"\label{tab:",
        r"$\pm$",
        "Holm",
        "p (Holm)",
        "mean & ",
    ):
        assert part in scores, part
    assert scores.count("{") == scores.count("}")
    assert r"\begin{tabular}" in (files / "methods.tex").read_text()
    assert {"method", "other", "p_holm", "difference_points"} <= set(pd.read_csv(files / "methods.csv"))
    for figure in files.glob("*.svg"):
        ET.parse(figure)
    written = {f.name for f in files.iterdir()}
    assert {"arg-1.svg", "gains-1.svg", "curves-1.svg", "gains.csv", "report.md"} <= written
    speed = pd.read_csv(files / "speed.csv").set_index("method")
    assert f"& {speed.loc['maml', 'area_points']:.1f} [" in (files / "speed.tex").read_text()
    costs = pd.read_csv(files / "costs.csv").set_index("method")
    assert f"& {int(costs.loc['maml', 'tokens']):,} &" in (files / "costs.tex").read_text()
    assert f"| {int(costs.loc['maml', 'tokens']):,} |" in text
    influence = pd.read_csv(files / "influence.csv").set_index(["method", "task"])
    without = influence.loc[("maml", "toy-c"), "arg_without"]
    assert without == pytest.approx(influence.loc[("maml", "toy-d"), "gain"])
    assert "| beams | 4 | 1 |" in text
    assert (study / "report.html").stat().st_size < 2_000_000
    page = (study / "report.html").read_text()
    assert "google/t5-large-lm-adapt" in page  # the published backbone among the departures


def test_figures_as_png_and_pdf_or_what_to_install(softstart, study):
    code, _, err = softstart("report", study, "--raster")
    if find_spec("matplotlib") is None:
        assert "pip install 'softstart[figures]'" in err
        return
    assert code == 0, err
    assert (study / "report" / "gains-1.png").read_bytes().startswith(b"\x89PNG")
    assert (study / "report" / "gains-1.pdf").read_bytes().startswith(b"%PDF")


def test_similarity_is_measured_and_put_on_the_page(softstart, study):
    code, out, err = softstart("similarity", study)
    assert code == 0, err
    assert "4 tasks; measures: gradient" in out
    assert "nothing to recommend" in out
    measured = json.loads((study / "similarity.json").read_text())
    for rows in ("flat", "mean", "matched"):
        prompts = np.array(measured["measures"][f"prompt, {rows}"]["values"])
        np.testing.assert_allclose(np.diag(prompts), 1, atol=1e-4)
        assert np.abs(np.triu(prompts, 1)).max() < 1 - 1e-4
    table = np.array(measured["measures"]["gradient"]["values"])
    np.testing.assert_allclose(table, table.T, atol=1e-4)
    np.testing.assert_allclose(np.diag(table), 1, atol=1e-4)
    names = measured["measures"]["gradient"]["tasks"]
    rows = pd.read_csv(study / "results.csv").groupby(["method", "task"])["test"].mean()
    points = {(p["method"], p["task"]): p for p in measured["points"] if p["measure"] == "gradient"}
    assert len(points) == 4 * 2  # learned starts x targets
    for (method, task), point in points.items():
        to_sources = [table[names.index(task), names.index(s)] for s in ("toy-a", "toy-b")]
        assert point["similarity"] == pytest.approx(np.mean(to_sources), abs=2e-4)
        assert point["gain"] == pytest.approx(100 * (rows[method, task] - rows["pt", task]), abs=1e-3)
    assert softstart("report", study)[0] == 0
    page = (study / "report.html").read_text()
    assert "Gain in points against similarity to the sources" in page
    assert (study / "report" / "similarity.svg").exists()
    kept = pd.read_csv(study / "report" / "similarity-points.csv")
    assert len(kept) == len(measured["points"])
    tips = ET.parse(study / "report" / "similarity-gain.svg").iter("{http://www.w3.org/2000/svg}title")
    assert sum("points at" in tip.text for tip in tips) == len(points)


def test_a_new_task_gets_a_start_recommended(softstart, study, tmp_path):
    table = tmp_path / "mine.csv"
    rows = [
        f"a {w} day,{'w3' if i % 2 else 'w4'}"
        for i, w in enumerate(["red", "big", "old", "new", "wet", "dry"] * 4)
    ]
    table.write_text("\n".join(["input,output", *rows]) + "\n")
    code, out, err = softstart("similarity", study, "--train", table)
    assert code == 0, err
    assert "Nearest sources: toy-" in out
    line = out.strip().splitlines()[-1]
    assert line.startswith("softstart adapt --init ")
    start = SoftPrompt.load(Path(line.split()[3]))
    assert start.info["method"] in ("multitask", "maml", "fomaml", "reptile")
    code, _, err = softstart("similarity", study, "--train", tmp_path / "none.csv")
    assert code == 1
    assert "none.csv" in err


def test_inspect_says_what_a_prompt_is_made_of(softstart, study):
    rows = pd.read_csv(study / "results.csv")
    row = (
        rows[rows["method"].isin(["multitask", "maml", "fomaml", "reptile"])].nlargest(1, "best_step").iloc[0]
    )
    assert row["best_step"] > 0
    learned = study / "prompts" / f"{row['run']}.safetensors"
    prompts = {f: SoftPrompt.load(f).info for f in (study / "prompts").iterdir()}
    start = next(f for f, info in prompts.items() if info.get("algorithm") == row["method"])
    code, out, err = softstart("inspect", learned, "--before", start, "--nearest", "2", "--study", study)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "4 rows of width 16"
    a, b = (SoftPrompt.load(f).tensor.float() for f in (learned, start))
    for i, line in enumerate(lines[2:6]):
        norm, moved = re.search(r"norm +([\d.]+).*moved +([\d.]+)", line).groups()
        assert float(norm) == pytest.approx(float(a[i].norm()), abs=0.006)
        assert float(moved) > 0
        assert float(moved) == pytest.approx(float((a[i] - b[i]).norm()), abs=0.006)
        assert len(re.findall(r"'\S+' -?\d\.\d\d", line)) == 4  # two words now, two before
    lines_of_methods = [line for line in lines if "exact and first-order meta-gradient" in line]
    assert {line.split(":")[0] for line in lines_of_methods} == {"maml", "fomaml"}
    for line in lines_of_methods:
        assert -1 <= float(re.search(r"cosine (-?[\d.]+)", line).group(1)) <= 1


def test_bad_input_to_inspect_is_one_clear_line(softstart, tmp_path):
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    for name in ("junk", "no"):
        code, _, err = softstart("inspect", tmp_path / f"{name}.safetensors")
        assert code == 1
        assert err.startswith("error: ")
        assert len(err.strip().splitlines()) == 1


def test_an_exported_start_lists_the_scores_of_its_study(softstart, study, tmp_path):
    rows = pd.read_csv(study / "results.csv")
    with sqlite3.connect(study / "study.db") as db:
        starts = dict(db.execute("SELECT key, start FROM runs"))
    of_maml = rows[rows["method"] == "maml"]
    start = starts[of_maml["run"].iloc[0]]
    code, _, err = softstart("export", study / "prompts" / f"{start}.safetensors", tmp_path / "adapter")
    assert code == 0, err
    card = (tmp_path / "adapter" / "README.md").read_text()
    of_start = of_maml[of_maml["run"].map(starts) == start]
    for task, runs in of_start.groupby("task"):
        assert re.search(rf"\| {task} \| \S+ \| {100 * runs['test'].mean():.1f} \| ", card), card
    samples = of_start.groupby("task")["sample"].nunique().iloc[0]
    assert samples == 1 or f"over {samples} samples" in card


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"measures": {"gradient": {"tasks": ["a"], "values": []}}}']
)
def test_a_damaged_similarity_is_left_out_and_said(finished, tmp_path, capsys, text):
    out = tmp_path / "study"
    shutil.copytree(finished[0], out)
    (out / "similarity.json").write_text(text)
    assert cli._main(["report", str(out)], debug=False) == 0
    said = capsys.readouterr().out
    assert re.search(r"similarity\.json: is damaged, and left out .* Run softstart similarity again", said)
    assert (out / "report" / "report.md").exists()
