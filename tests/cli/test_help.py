"""The command line explains itself: every command with examples, every option in words."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys

import pytest

from helpers.paths import ROOT
from helpers.toy_study import SOFTSTART
from softstart.cli import listing

sys.path.insert(0, str(ROOT / "docs"))

import reference

COMMANDS = reference.commands()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_and_explains_its_options(name):
    command = COMMANDS[name]
    summary, _, examples = inspect.cleandoc(command.help or "").partition("\b\n")
    assert summary.strip().endswith((".", "?")), name
    assert len(summary.split()) > 4, f"{name} is not explained"
    assert examples.startswith("Examples:\n"), f"{name} has no examples"
    for line in examples.splitlines()[1:]:
        check_example(name, line.strip())
    bare = [parameter.name for parameter in command.params if not getattr(parameter, "help", "")]
    assert not bare, f"{name} does not explain {bare}"


def check_example(name, line):
    """An example calls its command, with options that it has."""
    assert f"{line} ".startswith(f"{name} "), line
    words = line.removeprefix(name).split(" > ")[0].split()
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options, line


def test_the_groups_explain_themselves():
    from typer.main import get_command

    from softstart.cli.app import app

    whole = get_command(app)
    assert "softstart demo" in whole.help
    assert all(group.help for group in whole.commands.values())


def test_help_lists_what_is_registered(monkeypatch):
    from typer.testing import CliRunner

    from softstart.cli.app import app
    from softstart.gym.metrics import METRICS
    from softstart.prompt import usages
    from softstart.study.run.executors import EXECUTORS
    from softstart.study.run.trackers import TRACKERS

    def shown(*arguments):
        done = CliRunner().invoke(app, [*arguments, "--help"])
        assert done.exit_code == 0
        return " ".join(done.output.split())

    assert ", ".join(TRACKERS) in shown("run")
    assert ", ".join(EXECUTORS) in shown("run")
    assert ", ".join(usages()) in shown("adapt")
    assert "EM" in shown("evaluate")
    monkeypatch.setitem(METRICS._entries, "From-Outside", METRICS["EM"])
    assert "From-Outside" in shown("evaluate")


@pytest.mark.parametrize("placeholder", listing.REGISTRIES)
def test_a_placeholder_of_help_stands_for_names(placeholder):
    names = listing.registered(placeholder).split(", ")
    assert names
    assert all(re.match(r"\w", name) for name in names)


@pytest.mark.parametrize("group", [(), ("gym",), ("tiny",), ("backbone",)])
def test_the_list_of_commands_shows_whole_sentences(group):
    done = subprocess.run(
        [SOFTSTART, *group, "--help"], capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"}
    )
    listed = done.stdout.partition("Commands:")[2]
    assert listed
    assert "..." not in listed


def test_help_loads_neither_torch_nor_what_prints():
    code = (
        "import sys; from softstart.cli.app import app; app(['--help'], standalone_mode=False); "
        "assert not {'torch', 'numpy', 'pandas', 'rich', 'yaml', 'jinja2'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
