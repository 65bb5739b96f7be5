"""A smoke run of the engine's benchmarks: every peer that is installed computes the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from helpers.paths import ROOT

pytestmark = pytest.mark.bench


def test_the_engine_and_its_peers_agree_on_the_work():
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.engine", "--shapes", "micro"]
    command += ["--packs", "2", "--inner", "2", "--rounds", "1", "--no-peaks"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (\w[^|]*) \|[^|]+\|[^|]+\|[^|]+\| ([\d.e+-]+) \|", done.stdout, re.M)
    assert {"softstart", "transformers loop", "no padding, MKL", "softstart, all recomputed"} <= {
        name for name, _ in rows
    }
    assert all(float(d) < (0.1 if "bfloat16" in name else 1e-3) for name, d in rows)
    # A peer is timed or its absence is explained.
    for peer in ("PEFT, plain loop", "PEFT, HF Trainer", "higher", "torchopt", "learn2learn"):
        assert f"| {peer} |" in done.stdout or f"Not run: {peer} (" in done.stdout


def test_every_section_of_causal_models_runs_and_is_kept(tmp_path, monkeypatch):
    monkeypatch.delenv("SOFTSTART_SHARED", raising=False)
    file = tmp_path / "causal.md"
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.engine", "causal", "--model", "micro"]
    command += [
        "--packs",
        "2",
        "--prompts",
        "5",
        "--rounds",
        "1",
        "--rows",
        "12",
        "--steps",
        "1",
        "--inner",
        "1",
    ]
    for _ in range(2):
        done = subprocess.run(
            [*command, "--out", str(file)], cwd=ROOT, capture_output=True, text=True, check=True
        )
    assert "###" not in done.stdout  # the second time everything is in the file
    page = file.read_text()
    for heading in (
        "P = 5, 2 runs",
        "P = 20, 2 runs",
        "scoring 12",
        "a whole adaptation",
        "K = 1, 1 task",
        "peak memory",
    ):
        assert page.count(heading) == 1, heading
    answers = dict(
        re.findall(r"^\| (prefix, rows read whole|PEFT, [^|]+) \|.*\| ([\d.e+-]+) \|$", page, re.M)
    )
    for name in ("prefix, rows read whole", "PEFT, HF Trainer"):
        assert float(answers[name]) < 1e-5


def test_every_section_of_the_gpu_benchmark_runs_on_a_cpu(tmp_path):
    file = tmp_path / "results.json"
    file.write_text('{"peak": {"matmul": {"flops": 12340.0}}}')
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", "--smoke", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(file.read_text())
    assert results["machine"]["smoke"]
    assert {
        "correctness",
        "peak",
        "peers",
        "profile",
        "packs",
        "meta",
        "decoding",
        "maml",
        "causal",
        "scaling",
    } <= results.keys()
    sections = [found for name, found in results.items() if name != "machine"]
    assert not [row for found in sections for row in found.values() if "error" in row]
    pairs = [row for what in results["causal"].values() for row in what.values()]
    assert pairs
    assert not [row for row in pairs if "failed" in row]
    assert all(row["ok"] for row in results["correctness"].values())
    page = (tmp_path / "results.md").read_text()
    assert "the times mean nothing" in page
    assert "extrapolated, not run" in page
    # What was measured before is kept.
    assert "peak: matmul\n" not in done.stdout
    assert "| matmul | 1.234e+04 |" in page
