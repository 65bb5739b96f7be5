"""Default use asks nobody: a whole study on the embedded model and gym without a single connection."""

from __future__ import annotations

import os
import subprocess
import sys

import pandas as pd
import yaml

GUARD = """
import socket, sys

def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto") or (
        event == "socket.connect" and arguments[0].family != socket.AF_UNIX
    ):
        print("network:", event, arguments[1:], file=sys.stderr, flush=True)
        raise OSError("no network here")

sys.addaudithook(refuse)
from softstart.cli import main
main()
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


def test_a_study_makes_no_connection(tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    # As a user has it: nothing switched offline, an empty home, a cache to fill.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "SOFTSTART_"))}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", GUARD, "run", str(tmp_path / "study.yaml"), "--threads", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "o")],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "network:" not in done.stderr
    assert len(pd.read_csv(tmp_path / "o" / "results.csv")) == 2


def test_the_guard_sees_a_connection():
    probe = GUARD.split("from softstart")[0] + "socket.create_connection(('localhost', 9))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 1
    assert "network: socket.getaddrinfo" in done.stderr
