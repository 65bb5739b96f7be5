"""What long work prints where there is no terminal."""

from __future__ import annotations

import io

from rich.console import Console

from softstart.console import TerminalDisplay, duration


def test_durations_are_readable():
    assert [duration(s) for s in (0.4, 59.6, 200, 7500)] == ["0s", "1m00s", "3m20s", "2h05m"]


def test_plain_lines_tell_share_stage_and_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("softstart.console.time.monotonic", lambda: now[0])
    out = io.StringIO()
    with TerminalDisplay(Console(file=out, width=100), every=10) as display:
        display.start(200)
        display.stage("adapting")
        for _ in range(4):
            now[0] += 5
            display.advance(25, "dev 0.50")
        display.stage("adapting")
        display.line("a lasting line")
    lines = out.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["0%", "25%", "50%", "a"]
    assert lines[2] == " 50%  20s elapsed, ETA 20s  adapting  dev 0.50"


def test_the_bar_of_a_terminal_shows_the_stage():
    out = io.StringIO()
    with TerminalDisplay(Console(file=out, width=100, force_terminal=True)) as display:
        display.start(10)
        display.stage("fine-tuning: toy")
        display.advance(10)
    assert "fine-tuning: toy" in out.getvalue()
    assert "100%" in out.getvalue()
