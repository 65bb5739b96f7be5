"""What surrounds the code: checks before a commit and in CI, the release, the source distribution."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib

import pytest
import yaml

import softstart
from helpers.paths import ROOT

CHECKS = ("ruff", "format", "mypy", "imports")


def test_the_checks_of_a_commit_are_those_of_ci():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"], "hooks that need no network"
    entries = [hook["entry"] for repository in hooks for hook in repository["hooks"]]
    assert entries == [f".ci/check {name}" for name in CHECKS]
    assert f"set -- {' '.join(CHECKS)}" in (ROOT / ".ci" / "check").read_text(encoding="utf-8")


def test_an_unknown_check_is_refused():
    done = subprocess.run([ROOT / ".ci" / "check", "rough"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "unknown check 'rough'" in done.stderr


def test_ci_runs_tests_checks_benchmarks_and_the_real_model():
    steps = re.findall(r'^step "?(.+?)"?$', (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.M)
    real = "python -m pytest -m real -n 0 -rs"
    rooms = (
        "tests/cli tests/extensions tests/prompt tests/study/run tests/training/test_context.py "
        "tests/training/test_source_mixture.py tests/yourtasks tests/robustness/test_faults.py"
    )
    slow = f"python -m pytest -m slow -k 'not random_moments' {rooms}"
    assert steps == ["$command", ".ci/check", "python -m pytest -m bench", slow, real]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["tests"]["steps"][-1] == {"run": ".ci/run"}
    package = workflow["jobs"]["package"]
    assert package["strategy"]["matrix"] == {"versions": ["oldest", "newest"]}
    assert package["steps"][-1] == {"run": ".ci/package ${{ matrix.versions }}"}


def test_unknown_versions_of_a_package_are_refused():
    done = subprocess.run([ROOT / ".ci" / "package", "older"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "unknown versions 'older'" in done.stderr


def test_the_version_is_the_same_everywhere():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert softstart.__version__ == declared == cited
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(declared)} \((\d{{4}}-\d\d-\d\d|unreleased)\)$", changes, re.M)


def test_a_source_distribution_holds_what_its_tests_read():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packed = set(project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
    read = {
        f"/{part}"
        for path in (ROOT / "tests").rglob("*.py")
        for part in parts_of_the_repository(path.read_text(encoding="utf-8"))
    }
    # What the build backend adds by itself.
    assert sorted(read - packed - {"/pyproject.toml", "/LICENSE"}) == []
    assert {"/benchmarks", "/.ci"} <= read


def parts_of_the_repository(source):
    """The first part of each path below ROOT, and ``benchmarks`` where it is imported or run."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.BinOp(left=ast.Name(id="ROOT"), op=ast.Div(), right=ast.Constant(value=str(path))):
                yield path.split("/")[0]
            case ast.Constant(value=str(name)) | ast.ImportFrom(module=str(name)):
                if re.match(r"benchmarks[./]", name):
                    yield "benchmarks"


@pytest.mark.parametrize("name", ["pull_request_template.md", "CODEOWNERS"])
def test_a_contributor_is_guided(name):
    assert (ROOT / ".github" / name).read_text(encoding="utf-8").strip()
