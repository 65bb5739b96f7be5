"""A smoke run of the engine's benchmarks: everybody who is installed computes the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_engine_and_its_peers_agree_on_the_work():
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.engine", "--shapes", "micro"]
    command += ["--packs", "2", "--inner", "2", "--rounds", "1", "--no-peaks"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (\w[^|]*) \|[^|]+\|[^|]+\|[^|]+\| ([\d.e+-]+) \|", done.stdout, re.M)
    assert {"softstart", "transformers loop", "softstart, all recomputed"} <= {name for name, _ in rows}
    assert all(float(d) < (0.1 if "bfloat16" in name else 1e-3) for name, d in rows)
    # A peer is timed or its absence is explained.
    for peer in ("PEFT, plain loop", "PEFT, HF Trainer", "higher", "torchopt", "learn2learn"):
        assert f"| {peer} |" in done.stdout or f"Not run: {peer} (" in done.stdout
