"""The real command line on a random model and toy tasks: the whole road, and every way to fall off it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

from helpers.own_tables import softstart
from helpers.toy_study import SOFTSTART, STUDY, TASKS, call, command, contents
from softstart.cli import app as cli
from softstart.prompt import SoftPrompt

TIMES = ["seconds"]


def one_line_error(code, stderr):
    lines = stderr.strip().splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    assert code == 1
    return lines[0]


def test_the_whole_road(finished, world):
    out, printed = finished
    rows = pd.read_csv(out / "results.csv")
    assert len(rows) == 6 * 2 * 2  # methods x targets x samples
    assert rows["test"].between(0, 1).all()
    assert set(rows["method"]) == set(STUDY["methods"])
    assert (rows["outside"] == 0).all()  # ranked answers are label words
    runs = pd.read_csv(out / "runs.csv")
    assert len(runs) == (5 * 2 + 1) * 4
    # Every number leads to a run, every prompt run to a prompt file.
    assert set(rows["run"]) <= set(runs["run"])
    for row in rows[rows["method"] != "ft"].itertuples():
        prompt = SoftPrompt.load(out / "prompts" / f"{row.run}.safetensors")
        assert prompt.tensor.shape == (4, 16)
        assert prompt.info["task"] == row.task
        best = runs[(runs.method == row.method) & (runs.task == row.task) & (runs["sample"] == row.sample)]
        assert row.dev == best.dev.max()
    assert len(list((out / "prompts").iterdir())) == len(runs[runs.method != "ft"]) + 4  # and the starts
    assert not list((out / "checkpoints").iterdir())
    curves = pd.read_csv(out / "curves.csv")
    assert set(curves["step"]) == {0, 4, 8}
    page = (out / "report.html").read_text()
    assert all(name in page for name in TASKS[2:])
    assert "100%" not in printed or "ETA" in printed
    for method in ("PT", "FT", "MAML", "Reptile"):
        assert method.lower() in printed.lower()
    assert "ARG" in printed


def test_arg_from_the_command_line_equals_the_definition(finished):
    out, _ = finished
    done = call(SOFTSTART, "arg", out / "results.csv", "--format", "csv")
    assert done.returncode == 0
    table = pd.read_csv(pd.io.common.StringIO(done.stdout)).set_index("method")
    means = pd.read_csv(out / "results.csv").groupby(["method", "task"])["test"].mean().unstack()
    gains = 100 * (means - means.loc["pt"]) / means.loc["pt"]
    for method in ("ft", "maml", "reptile"):
        defined = gains.loc[method][means.loc["pt"] > 0]
        assert table.loc[method, "arg"] == pytest.approx(defined.mean(), abs=1e-9)


def test_a_second_call_computes_nothing_and_a_wider_grid_only_the_rest(finished, world, tmp_path):
    out = tmp_path / "study"
    subprocess.run(["cp", "-rp", finished[0], out], check=True)
    before = {f: f.stat().st_mtime_ns for f in (out / "prompts").iterdir()}
    assert softstart(*command(world, out)[1:], cwd=tmp_path)[0] == 0
    assert {f: f.stat().st_mtime_ns for f in (out / "prompts").iterdir()} == before
    wider = command(world, out, "--set", "learning_rates=[0.5,0.2,0.05]")
    assert softstart(*wider[1:], cwd=tmp_path)[0] == 0
    after = {f: f.stat().st_mtime_ns for f in (out / "prompts").iterdir()}
    assert {f: after[f] for f in before} == before
    assert len(after) - len(before) == 5 * 2 * 2
    assert softstart(*command(world, out)[1:], cwd=tmp_path)[0] == 0
    _, status, _ = softstart("status", out, cwd=tmp_path)
    assert re.search(r"0 runs missing, 24 results, 24 of them tested", status)


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        signal.SIGKILL,
    ],
)
def test_killed_and_repeated_equals_uninterrupted(finished, world, tmp_path, ending):
    reference = pd.read_csv(finished[0] / "results.csv")
    out, stops = tmp_path / "study", 0
    for wait in (0.5,) if ending == signal.SIGTERM else (0.0, 0.5):
        process = subprocess.Popen(
            command(world, out),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts background jobs with interrupts ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        kept = len(list((out / "prompts").glob("*"))) if out.exists() else 0
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if out.exists() and len(list((out / "prompts").glob("*"))) > kept:
                time.sleep(wait)
                # A launcher may repeat itself while the first signal is still being answered.
                for _ in range(20 if ending == signal.SIGTERM else 1):
                    process.send_signal(ending)
                    time.sleep(0.005)
                break
            time.sleep(0.01)
        _, stderr = process.communicate(timeout=60)
        stops += process.returncode != 0
        if process.returncode and ending != signal.SIGKILL:
            assert process.returncode in (130, -signal.SIGTERM)
            assert stderr.strip().startswith("error: interrupted; what was finished is kept")
            assert stderr.count("error: ") == 1
        assert "Traceback" not in stderr
    assert stops
    done = call(*command(world, out))
    assert done.returncode == 0, done.stderr
    got = pd.read_csv(out / "results.csv")
    pd.testing.assert_frame_equal(got.drop(columns=TIMES), reference.drop(columns=TIMES))
    assert contents(out) == contents(finished[0])


def test_report_writes_the_page_again(finished):
    out, _ = finished
    (out / "report.html").unlink()
    assert call(SOFTSTART, "report", out).returncode == 0
    assert (out / "report.html").exists()


def test_bad_input_is_one_clear_line(world, tmp_path, capsys):
    study, gym, model = world / "study.yaml", world / "gym", world / "model"
    base = ["run", study, "--gym", gym, "--backbone", model, "--out", tmp_path / "o"]
    cases = [
        (["run", tmp_path / "no.yaml"], "cannot read the study"),
        (["run", study, "--gym", tmp_path / "nowhere", "--out", tmp_path / "o"], "nowhere"),
        ([*base, "--set", "setting.target=[toy-e]"], "toy-e: Did you mean toy-"),
        ([*base, "--set", "methods.mamml={}"], "unknown method 'mamml'"),
        ([*base, "--set", "setting.target=[toy-a]"], "source and target at once: toy-a"),
        ([*base, "--set", "setting.source=[]"], "has no source task to learn from"),
        ([*base, "--set", "samples=[99]"], "has no sample 99. It has 13, 21"),
        ([*base, "--backbone", tmp_path], "cannot be loaded"),
        ([*base, "--device", "cuda:99"], "device 'cuda:99' cannot be used"),
        ([*base, "--set", "dtype=float16"], "overflow in float16"),
        ([*base[:-1], study / "below-a-file"], "not a folder"),
        (["arg", tmp_path / "no.csv"], "cannot read this table"),
        (["report", tmp_path / "no"], "no: no such study folder"),
        (["status", world / "gym"], "cannot read the study"),
    ]
    for arguments, message in cases:
        code = cli._main(list(map(str, arguments)), debug=False)
        assert message in one_line_error(code, capsys.readouterr().err), arguments
    assert cli._main(["run"], debug=False) == 2
    assert cli._main(["nonsense"], debug=False) == 2


def test_a_traceback_is_shown_on_request_only(tmp_path):
    done = call(SOFTSTART, "run", tmp_path / "no.yaml")
    assert "cannot read the study" in one_line_error(done.returncode, done.stderr)
    assert "Traceback" in call(SOFTSTART, "run", tmp_path / "no.yaml", "--debug").stderr


def test_a_malformed_row_is_named_by_file_and_line(world, tmp_path):
    broken = tmp_path / "gym"
    subprocess.run(["cp", "-r", world / "gym", broken], check=True)
    file = broken / "toy-c" / "toy-c_4_21_train.tsv"
    lines = file.read_text().splitlines()
    lines[4] = "no tab in this row"
    file.write_text("\n".join(lines) + "\n")
    arguments = command(world, tmp_path / "o")
    arguments[arguments.index("--gym") + 1] = str(broken)
    done = call(*arguments)
    message = one_line_error(done.returncode, done.stderr)
    assert "toy-c_4_21_train.tsv" in message
    assert re.search(r"\b5\b", message)


def test_a_prompt_of_another_backbone_or_a_damaged_one_is_named(finished, world, tmp_path):
    out = tmp_path / "study"
    subprocess.run(["cp", "-r", finished[0], out], check=True)
    rows = pd.read_csv(out / "results.csv")
    start = next(f for f in (out / "prompts").iterdir() if SoftPrompt.load(f).info.get("algorithm") == "maml")
    SoftPrompt(torch.zeros(4, 99), "other/model").save(start)
    code, _, errors = softstart(*command(world, out, "--set", "learning_rates=[0.01]")[1:], cwd=tmp_path)
    assert code == 1
    assert f"{start.name}: the prompt has width 99 but backbone" in errors
    assert set(pd.read_csv(out / "results.csv")["method"]) == set(STUDY["methods"]) - {
        "maml"
    }  # the rest went on
    start.write_bytes(b"junk")
    code, *shown = softstart(*command(world, out, "--set", "learning_rates=[0.02]")[1:], cwd=tmp_path)
    assert code == 0
    assert f"{start.name}: not a readable safetensors file" in "".join(shown)
    again = pd.read_csv(out / "results.csv")
    assert set(again["method"]) == set(STUDY["methods"])
    assert len(rows) == 24


DIVERGES = "methods.maml.optimizer={name: adafactor, decay_rate: 1000}"
"""Infinite from the second step on: 2 to the power of 1000."""


def test_a_diverging_method_is_reported_and_the_others_go_on(world, tmp_path):
    run = command(world, "o", "--set", DIVERGES, "--set", "samples=[13]")
    code, _, errors = softstart(*run[1:], cwd=tmp_path)
    assert code == 1
    assert "meta-training maml: meta-training diverged" in errors
    methods = set(pd.read_csv(tmp_path / "o" / "results.csv")["method"])
    assert methods == set(STUDY["methods"]) - {"maml"}


def test_version_and_help():
    assert "demo" in call(SOFTSTART, "--help").stdout


def test_an_interrupt_while_an_error_is_printed_changes_nothing(tmp_path):
    """As from a launcher that ends all processes of a job of which one has failed."""
    code = (
        "import os, signal, sys\n"
        "from softstart.cli import app as cli\n"
        "show = cli.say_error\n"
        "cli.say_error = lambda text: (os.kill(os.getpid(), signal.SIGTERM), show(text))\n"
        f"sys.argv = ['softstart', 'status', {str(tmp_path / 'none')!r}]\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")


SIGNALS = """
import os, signal, sys, time
from softstart.cli import app as cli
def interrupt():
    os.kill(os.getpid(), signal.SIGTERM)
"""


def test_an_interrupt_is_reported_once_however_often_it_comes():
    code = (
        f"{SIGNALS}"
        "show = cli.say_error\n"
        "cli.say_error = lambda text: (show(text), interrupt())\n"
        "cli.app = lambda *_, **__: 130\n"  # as typer ends a command that an interrupt has stopped
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


@pytest.mark.parametrize(
    ("wait", "end"), [(0.0, "error: interrupted\n"), (1.1, "error: interrupted at once")]
)
def test_an_interrupt_is_heard_again_after_a_second(wait, end):
    code = (
        f"{SIGNALS}"
        "def hang(*_, **__):\n"
        "    try:\n"
        "        interrupt()\n"
        "    finally:\n"
        f"        time.sleep({wait})\n"
        "        interrupt()\n"
        "cli.app = hang\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.startswith(end)


def test_an_error_leaves_signals_alone_that_are_not_the_program_s(capsys):
    before = [signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)]
    assert cli._main(["status", "no-such-folder"], debug=False) == 1
    assert [signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)] == before
    assert "no-such-folder" in capsys.readouterr().err


def test_an_empty_argument_does_not_pass_for_none(capsys):
    assert cli._main(["adapt", "--train", "t.csv", "--backbone", ""], debug=False) == 1
    assert "an empty argument after '--backbone'" in one_line_error(1, capsys.readouterr().err)
