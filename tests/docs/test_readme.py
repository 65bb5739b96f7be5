"""The README's two commands and the table that one of them prints (other blocks: test_blocks.py)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers.paths import ROOT
from softstart.study.declare.study_file import parse_study

README = (ROOT / "README.md").read_text(encoding="utf-8")


def command(comment):
    """The line below a comment of the README."""
    return README.split(comment)[1].split("```bash\n")[1].split("\n")[0]


def test_ci_runs_exactly_the_test_command():
    assert command("<!-- test command -->").startswith("python3 -m venv")
    printed = subprocess.run(
        ["awk", "/<!-- test command -->/{found=1} found && /^python3 /{print; exit}", "README.md"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert printed.stdout.strip() == command("<!-- test command -->")


def test_shipped_studies_are_valid_and_every_command_exists():
    studies = [*(ROOT / "studies").glob("*.yaml"), ROOT / "src/softstart/study/demo.yaml"]
    for study in studies:
        text = study.read_text(encoding="utf-8")
        assert parse_study(text, study.name).name == yaml.safe_load(text)["name"]
    help_text = subprocess.run(
        [str(Path(sys.executable).parent / "softstart"), "--help"], capture_output=True, text=True
    ).stdout
    for verb in set(re.findall(r"softstart ([a-z-]+)(?= |`)", README)) - {"import"}:
        assert verb in help_text, verb


def table(text):
    """Rows of the demo's table by their first word."""
    rows = re.findall(r"^ ?([A-Za-z_/%0-9]+(?: %| from| to)?) {2,}(\S.*)$", text, re.M)
    return {name: re.split(r" {2,}", values.strip()) for name, values in rows}


def test_the_table_of_the_readme_is_whole():
    shown = table(README.split("<!-- end of table -->")[0])
    assert len([name for name in shown if "_" in name]) == 8
    assert all(len(values) == 6 for name, values in shown.items() if "_" in name)
    gains = [100 * (float(values[2]) / float(values[0]) - 1) for name, values in shown.items() if "_" in name]
    assert abs(sum(gains) / 8 - float(shown["ARG %"][2])) < 1.0


@pytest.mark.slow
def test_the_demo_prints_the_table_of_the_readme(tmp_path):
    """The same tasks and methods, and PT and FT to the point; learned starts may differ with rounding."""
    call = [str(Path(sys.executable).parent / "softstart"), "demo", "--out", str(tmp_path / "demo")]
    done = subprocess.run(
        call, capture_output=True, text=True, env={"COLUMNS": "80", "PATH": "/usr/bin:/bin"}
    )
    assert done.returncode == 0, done.stderr
    printed, shown = table(done.stdout), table(README)
    assert {name for name in shown if "_" in name} <= set(printed)
    for name in (name for name in shown if "_" in name):
        assert abs(float(printed[name][0]) - float(shown[name][0])) < 5, name


@pytest.mark.network
def test_the_demo_command_works_in_a_fresh_copy(tmp_path):
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command("<!-- demo command -->")], cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "demo" / "report.html").exists()
