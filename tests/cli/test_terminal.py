"""Names of the user's own are printed as they are, through every command, the bar of a terminal included."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys

import pytest
from rich.console import Console

from helpers.own_tables import softstart
from helpers.toy_study import SOFTSTART, command
from softstart.cli import app, terminal
from softstart.cli.display import TerminalDisplay
from softstart.cli.plain_console import PlainConsole
from softstart.errors import SoftstartError

NAMES = ["[v2]", "x[/b]", "[red]", ":smile:", "[link=http://x]y"]


@pytest.mark.parametrize("name", NAMES)
def test_text_is_printed_as_it_is(capsys, name):
    terminal.say(f"a {name}")
    terminal.warn(name)
    terminal.say_error(name)
    terminal.show_table(_table(name))
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == f"a {name}"
    assert shown.out.count(name) == 4
    assert shown.err == f"warning: {name}\nerror: {name}\n"


def test_what_the_package_logs_is_shown(capsys, monkeypatch):
    log = logging.getLogger("softstart")
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "level", log.level)
    app.show_log()
    log.info("texts are read %s", "[once]")
    assert capsys.readouterr().err == "note: texts are read [once]\n"


def _table(name):
    table = terminal.new_table("head", name, title=f"title {name}")
    table.add_row("cell", name)
    return table


def test_tables_are_not_cut_where_there_is_no_terminal(capsys):
    table = terminal.new_table("a", "b")
    table.add_row("x" * 100, "y" * 100)
    terminal.show_table(table)
    assert f"{'x' * 100}  {'y' * 100}" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tty", [True, False])
def test_the_display_of_a_study_shows_names_as_they_are(name, tty):
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=tty, markup=False, highlight=False, emoji=False)
    with TerminalDisplay(console, every=0) as display:
        display.start(10)
        display.stage(f"stage {name}")
        display.advance(1, f"note {name}")
        display.line(f"line {name}")
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    for word in ("stage", "note", "line"):
        assert f"{word} {name}" in plain


def on_a_terminal(*arguments):
    """What a command prints to a terminal of 200 columns, and its exit code."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
    process = subprocess.Popen(
        list(map(str, arguments)), stdin=follower, stdout=follower, stderr=follower, env=environment
    )
    os.close(follower)
    text = b""
    try:
        while part := os.read(leader, 4096):
            text += part
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    return process.wait(60), re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.decode())


def test_a_study_of_odd_names_through_the_command_line(world, tmp_path):
    """A folder named ``[v2]``, a study named ``x[/b]``, a method and a setting like markup."""
    out = tmp_path / "[v2]"
    few = ("methods={pt: {}, 'm[/b]': {algorithm: reptile, inner_lr: 0.1, inner_steps: 1}}", "samples=[13]")
    further = [word for key in (*few, "name=x[/b]", "setting.name='[bold]'") for word in ("--set", key)]
    code, shown = on_a_terminal(*command(world, out, *further))
    assert code == 0, shown
    assert str(out / "report.html") in shown
    assert "m[/b]" in shown
    for arguments in (("status", out), ("report", out), ("arg", out / "results.csv")):
        code, shown, errors = softstart(*arguments, cwd=tmp_path)
        assert code == 0, errors
        assert str(out) in shown or "m[/b]" in shown
    lost = tmp_path / "[/b]"
    _, _, errors = softstart("status", lost, cwd=tmp_path)
    assert errors.strip() == f"error: {lost}: no such study folder. Give the --out of a run."


STEERING = "a\x1b[2Jb\x07c\u202ed\x9be"


def test_names_cannot_steer_a_terminal():
    out = io.StringIO()
    console = PlainConsole(file=out, width=200, force_terminal=True, markup=False, highlight=False)
    console.print(STEERING)
    console.print(_table(STEERING))
    with TerminalDisplay(console, every=0) as display:
        display.start(10)
        display.stage(STEERING)
        display.advance(1, STEERING)
        display.line(STEERING)
    text = out.getvalue()
    assert text.count(r"a\x1b[2Jb\x07c\u202ed\x9be") >= 5
    assert not {"\x07", "\u202e", "\x9b"} & set(text)
    assert "\x1b[2J" not in text


def test_data_go_out_as_they_are_and_to_a_terminal_without_control_characters(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, expected in ((io.StringIO(), STEERING), (Terminal(), r"a\x1b[2Jb\x07c\u202ed\x9be")):
        monkeypatch.setattr(sys, "stdout", stream)
        terminal.say_data(STEERING)
        assert stream.getvalue() == expected


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_every_sign_is_printed_in_every_encoding(monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    terminal.prepare_output()
    terminal.say_json({"a": "→ é"})
    Console(file=sys.stdout, width=80).print("→ done")
    with pytest.raises(SoftstartError, match=rf"encoding, {encoding}, lacks a sign of these data"):
        terminal.say_data("→\n")
    sys.stdout.flush()
    said = raw.getvalue().decode(encoding)
    assert json.loads(said.split("}")[0] + "}") == {"a": "→ é"}
    assert r"\u2192 done" in said


@pytest.mark.parametrize(
    ("shell", "code", "said"), [(">&-", 0, ""), ("> /dev/full", 1, "No space left"), ("| true", 0, "")]
)
def test_an_output_that_is_closed_or_full_is_no_bug(shell, code, said):
    command = f"{SOFTSTART} gym settings {shell}"
    done = subprocess.run(command, shell=True, executable="/bin/bash", capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == bool(said)
