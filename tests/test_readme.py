"""What the README shows can be run as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

from softstart.study.spec import parse_study

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4


def test_ci_runs_exactly_the_test_command():
    command = README.split("<!-- test command -->")[1].split("```bash\n")[1].split("\n")[0]
    assert command.startswith("python3 -m venv")
    found = subprocess.run(
        ["awk", "/<!-- test command -->/{found=1} found && /^python3 /{print; exit}", "README.md"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert found.stdout.strip() == command


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
