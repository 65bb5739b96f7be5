"""What a study folder's tables and report say of what is missing, and of how its scores are read."""

from __future__ import annotations

import importlib
import json
import platform

import pandas as pd
import pytest
import torch
import yaml

from helpers.paths import ROOT
from helpers.study_folder import SCORES, STUDY, folder_of
from softstart.analysis import refuse_mixed
from softstart.backbone.devices import device_memory
from softstart.cli import app as cli
from softstart.errors import SoftstartError
from softstart.study import report_study
from softstart.study.declare.study_file import parse_study
from softstart.study.results.frames import reading
from softstart.study.results.stores import open_store


def test_a_task_that_no_method_has_yet_makes_its_setting_incomplete_and_no_other(tmp_path):
    folder = folder_of(tmp_path / "s", lambda run: run.task == "t2")
    with open_store(folder) as store:
        store.add_failure("k", "reptile, seed 42", "diverged", "the loss is no longer finite")
    outcome = report_study(folder)
    arg = outcome.arg.set_index(["setting", "method"])
    assert arg["n_missing"].to_dict() == {
        (setting, method): int(setting == "wide") for setting in ("wide", "narrow") for method in SCORES
    }
    assert list(arg["complete"]["narrow"]) == [True] * 3
    assert not arg["complete"]["wide"].any()
    assert arg.loc[("wide", "maml"), "arg"] == pytest.approx(25)
    missing, failed = outcome.notes
    assert "6 of 24 runs and 2 of 2 meta-trainings are missing" in missing
    assert failed == "1 failed, among them reptile, seed 42: the loss is no longer finite."
    page = (folder / "report.html").read_text()
    assert missing in page.partition("<main")[0]
    assert "wide · softstart/tiny: incomplete, do not compare with complete cells: MAML (1 task" in page
    assert "narrow · softstart/tiny: incomplete" not in page


def test_a_finished_study_of_unequal_settings_has_nothing_to_say(tmp_path, capsys):
    folder = folder_of(tmp_path / "s", lambda run: False)
    assert cli._main(["report", str(folder)], debug=False) == 0
    assert "missing" not in capsys.readouterr().out
    outcome = report_study(folder)
    assert outcome.arg["complete"].all()
    assert outcome.notes == []


def test_without_the_baseline_one_line_says_what_is_not_written(tmp_path, capsys):
    folder, markdown = folder_of(tmp_path / "s", lambda run: run.method.name == "pt"), tmp_path / "r.md"
    assert cli._main(["report", str(folder), "--markdown", str(markdown)], debug=False) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "no results of pt" in line]
    assert told == [f"no results of pt to compare with: report/ and {markdown} are not written"]
    assert not (folder / "report").exists()
    assert not markdown.exists()
    assert cli._main(["report", str(folder_of(tmp_path / "o", lambda run: True))], debug=False) == 1


READINGS = {
    "likeliest label": {"evaluation": {"scoring": "rank"}},
    "4 beams": {"evaluation": {"decoding": {"num_beams": 4}}},
    "repetition penalty 2.5": {"evaluation": {"decoding": {"repetition_penalty": 2.5}}},
    "32 new tokens": {"evaluation": {"bounded": False}},
    "last prompt": {"adaptation": {"select": "last"}},
    "best prompt": {"adaptation": {"eval_start": False}},
    "text '{input}' of 512 to 128 tokens": {"text": {"template": "{input}"}},
    "7 test rows": {"test_rows": {"t1": 7}},
}


@pytest.mark.parametrize("told", READINGS)
def test_scores_read_in_two_ways_are_told_apart(told):
    one, other = (parse_study(yaml.safe_dump({**STUDY, **c}), "s") for c in ({}, READINGS[told]))
    rows = pd.DataFrame(
        [
            {"method": method, "task": "t1", "sample": 13, "test": 0.5, "protocol": reading(study, "t1")}
            for study, method in ((one, "pt"), (one, "maml"), (other, "reptile"))
        ]
    )
    with pytest.raises(SoftstartError, match="under different protocols, protocol") as refused:
        refuse_mixed(rows)
    assert f"{told} (reptile)" in str(refused.value)
    apart = rows.assign(variant=["main", "main", "other"])
    with pytest.raises(SoftstartError, match="under different protocols"):
        refuse_mixed(apart)  # held against the baseline of main
    refuse_mixed(pd.concat([apart, apart.tail(1).assign(method="pt")]))
    refuse_mixed(rows.drop(columns="protocol"))
    assert reading(one, "t1") == reading(parse_study(yaml.safe_dump({**STUDY, "meta_seeds": [7]}), "s"), "t1")


def test_rows_come_out_in_three_formats(finished, tmp_path, capsys):
    reference = pd.read_csv(finished[0] / "results.csv")
    assert cli._main(["results", str(finished[0])], debug=False) == 0
    assert capsys.readouterr().out == (finished[0] / "results.csv").read_text()
    for how, read in (("parquet", pd.read_parquet), ("json", pd.read_json), ("csv", pd.read_csv)):
        out = tmp_path / f"rows.{how}"
        assert cli._main(["results", str(finished[0]), "--format", how, "--out", str(out)], debug=False) == 0
        got = read(out).astype(reference.dtypes)
        pd.testing.assert_frame_equal(got, reference, check_exact=how != "json")


def test_every_run_says_what_it_took_and_what_it_was_made_with(finished, tmp_path):
    out = tmp_path / "runs.parquet"
    arguments = ["results", str(finished[0]), "--rows", "runs", "--format", "parquet", "--out", str(out)]
    assert cli._main(arguments, debug=False) == 0
    runs = pd.read_parquet(out)
    assert len(runs) == runs["run"].nunique() == 44
    for name in ("tokens", "flops", "computed_tokens", "computed_flops", "seconds", "memory"):
        assert (runs[name] > 0).all(), name
    # What training reads follows from the rows alone; twice the steps would be twice the tokens.
    assert set(runs[runs["method"] != "ft"].groupby(["task", "sample"])["tokens"].nunique()) == {1}
    assert runs["flops_per_second"].tolist() == (runs["flops"] / runs["seconds"]).tolist()
    assert 2**26 < runs["memory"].min() < device_memory(torch.device("cpu"))
    assert set(runs["device"]) == {platform.machine()}
    assert set(runs["threads"]) == {"1"}
    for name in ("softstart", "torch", "transformers"):
        assert set(runs[name]) == {importlib.import_module(name).__version__}, name
    if ROOT.joinpath(".git").exists():
        assert runs["git"].str.fullmatch(r"[0-9a-f]{12}\+?").all()
    with open_store(finished[0], readonly=True) as store:
        metas, stored = store.metas(), store.runs()
    assert len(metas) == 4
    assert all(row[name] > 0 for row in metas.values() for name in ("tokens", "flops", "seconds", "memory"))
    assert all(json.loads(row["environment"])["torch"] for row in metas.values())
    assert all(len(row["curve"]) == 6 for row in metas.values())
    assert all([step for step, *_ in row["curve"]][-2:] == [4, 8] for row in stored.values())
