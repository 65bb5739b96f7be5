"""The command line explains itself: every command with examples, every option in words."""

from __future__ import annotations

import inspect
import sys

import pytest

from helpers.paths import ROOT

sys.path.insert(0, str(ROOT / "docs"))

import reference

COMMANDS = reference.commands()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_and_explains_its_options(name):
    command = COMMANDS[name]
    told, _, examples = inspect.cleandoc(command.help or "").partition("\b\n")
    assert told.strip().endswith((".", "?")), name
    assert len(told.split()) > 4, f"{name} is not explained"
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
