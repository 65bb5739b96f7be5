"""An interrupted command says that something is kept only where something is."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time

import pytest

from helpers.toy_study import SOFTSTART
from softstart.cli import app as cli
from softstart.cli import resuming
from softstart.errors import SoftstartError

KEPT = "error: interrupted; what was finished is kept: run the same command again to go on\n"


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        ([], "error: interrupted\n"),
        ([lambda: False], "error: interrupted\n"),
        ([lambda: False, lambda: True], KEPT),
        ([lambda: (_ for _ in ()).throw(SoftstartError("damaged"))], "error: interrupted\n"),
    ],
)
def test_the_message_says_what_is_so(monkeypatch, capsys, checks, message):
    def interrupted(arguments, standalone_mode):
        for check in checks:
            resuming.resumable(check)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    assert cli._main([], debug=False) == 130
    assert capsys.readouterr().err == message


def test_what_an_earlier_command_kept_is_not_said_of_the_next(monkeypatch, capsys):
    resuming.resumable(lambda: True)
    monkeypatch.setattr(cli, "app", lambda *a, **k: 130)
    assert cli._main([], debug=False) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


@pytest.mark.parametrize("early", [True, False])
def test_meta_training_says_kept_once_there_is_a_checkpoint(tmp_path, early):
    rows = "".join(f"w{i} is good,{'yes' if i % 2 else 'no'}\n" for i in range(12))
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "one.csv").write_text("input,output\n" + rows)
    more = ["--set", f"checkpoint_every={10**6 if early else 1}", "--steps", str(10**6)]
    process = subprocess.Popen(
        [SOFTSTART, "meta-train", "sources", "--out", "start", "--length", "2", "--device", "cpu", *more],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        # A shell starts background jobs with interrupts ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    if early:
        time.sleep(4)
    while not early and not list(tmp_path.glob("start/unfinished-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        # While modules load, an interrupt can get lost; a person would press again.
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
        _, stderr = process.communicate(timeout=5)
    finally:
        process.kill()
    assert process.returncode == 130
    last = stderr.splitlines(keepends=True)[-1]  # a slow machine tells of its progress before
    assert last == ("error: interrupted\n" if early else KEPT)
