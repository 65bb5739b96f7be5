"""The short form of the fault campaign; the long one is ``python -m tests.faults --faults 200 --out DIR``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_few_faults_cost_nothing(tmp_path):
    command = [sys.executable, "-m", "tests.faults", "--short", "--real", "0", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = json.loads((tmp_path / "report.json").read_text())["trials"]
    assert len(trials) == 5
    for trial in trials:
        assert not {"wrong", "lost", "tracebacks", "unfinished"} & trial.keys(), trial
    assert sum("skipped" in trial for trial in trials) <= 1
