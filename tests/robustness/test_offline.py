"""Default use asks nobody: a study, its report and prompts for own tables without a single connection."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pandas as pd
import yaml

from softstart import SoftPrompt

GUARD = """
import json, socket, sys

def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto") or (
        event == "socket.connect" and arguments[0].family != socket.AF_UNIX
    ):
        print("network:", event, arguments[1:], file=sys.stderr, flush=True)
        raise OSError("no network here")

sys.addaudithook(refuse)
from softstart.cli.app import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["softstart", *arguments]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""
STUDY = {
    "name": "offline",
    "setting": {"name": "one", "source": ["choose_emotion"], "target": ["emotion_of_other"]},
    "samples": [13],
    "test_rows": 4,
    "prompt": {"length": 2},
    "meta": {"steps": 1, "lr": 0.3},
    "methods": {"pt": {}, "reptile": {"inner_lr": 0.1, "inner_steps": 1}},
    "learning_rates": [0.3],
    "adaptation": {"steps": 1, "eval_every": 1, "eval_start": False},
}


def test_no_command_of_default_use_makes_a_connection(tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    table = "input,label\n" + "".join(f"text {i},{'good' if i % 2 else 'bad'}\n" for i in range(20))
    (tmp_path / "sources").mkdir()
    for name in ("sources/one.csv", "sources/two.csv", "mine.csv"):
        (tmp_path / name).write_text(table)
    short = ["--steps", "1", "--device", "cpu"]
    commands = [
        ["run", "study.yaml", "--threads", "1", "--out", "o"],
        ["report", "o"],
        ["meta-train", "sources", "--length", "2", "--out", "start", *short],
        [
            "adapt",
            "--init",
            "start",
            "--train",
            "mine.csv",
            "--splits",
            "1",
            "--lr",
            "0.3",
            "--out",
            "tuned",
            *short,
        ],
    ]
    # As a user has it: nothing switched offline, an empty home, a cache to fill.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "SOFTSTART_"))}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", GUARD, json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "network:" not in done.stderr
    assert len(pd.read_csv(tmp_path / "o" / "results.csv")) == 2
    assert list((tmp_path / "o").glob("*.html"))
    assert SoftPrompt.load(tmp_path / "start").tensor.shape[0] == 2
    assert SoftPrompt.load(tmp_path / "tuned").info["input"] == "{input}"


def test_the_guard_sees_a_connection():
    probe = GUARD.split("from softstart")[0] + "socket.create_connection(('localhost', 9))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 1
    assert "network: socket.getaddrinfo" in done.stderr
