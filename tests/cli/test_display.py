"""What long work prints where there is no terminal."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from softstart.cli import terminal
from softstart.cli.display import Meter, ProgressLines, TerminalDisplay, estimate
from softstart.progress import Tally, duration, short
from softstart.study.plan.plan import Plan
from softstart.study.run.pace import Pace
from softstart.study.run.work_graph import Unit


def test_durations_are_readable():
    assert [duration(s) for s in (0.4, 59.6, 200, 7500)] == [
        "0.4 s",
        "1 min 00 s",
        "3 min 20 s",
        "2 h 05 min",
    ]


def test_plain_lines_tell_share_stage_and_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("softstart.cli.display.time.monotonic", lambda: now[0])
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
    assert lines[2] == " 50%  20 s elapsed, ETA 20 s  adapting  dev 0.50"


TALLY = Tally(runs=12, planned=96, tokens=34_400, best_points=83.4, left=200)


def test_a_plain_line_says_where_the_whole_stands(monkeypatch):
    monkeypatch.setattr("softstart.cli.display.time.monotonic", lambda: 100.0)
    out = io.StringIO()
    with TerminalDisplay(Console(file=out, width=100)) as display:
        display.start(200)
        display.tally(TALLY)
        display.stage("adapting")
    text = "  0%  0.0 s elapsed, ETA 3 min 20 s  12/96 runs  34k tokens/s  best dev 83.4  adapting"
    assert out.getvalue().splitlines() == [text]
    assert str(Tally(0, 96, 0.0, None, None)) == "0/96 runs"
    assert [short(n) for n in (7.4, 999, 999.9, 1234, 9_960, 2_500_000)] == [
        "7", "999", "1.0k", "1.2k", "10k", "2.5M",
    ]  # fmt: skip


def test_the_bar_of_a_terminal_shows_the_stage():
    out = io.StringIO()
    with TerminalDisplay(Console(file=out, width=150, force_terminal=True)) as display:
        display.start(10)
        display.stage("fine-tuning: toy")
        display.tally(TALLY)
        display.advance(10)
    assert "fine-tuning: toy" in out.getvalue()
    assert "100%" in out.getvalue()
    assert "ETA 3 min 20 s" in out.getvalue()
    assert "12/96 runs" in out.getvalue()


def test_the_time_left_follows_the_speed_of_every_kind_of_work(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("softstart.study.run.pace.time.monotonic", lambda: now[0])
    units = [Unit("", "", kind, rows, lambda: None) for kind, rows in (("a", 100), ("b", 200), ("c", 50))]
    pace = Pace(Plan([], [], {}), units, {})
    pace.begin("one")
    pace.begin("two")
    now[0] = 10.0
    pace.computed("one", "a", 20)  # half a second a row
    pace.left["a"] -= 20
    assert pace.seconds_left(1) is None  # most of what is left was never seen
    pace.computed("two", "b", 5)  # two seconds a row
    pace.left["b"] -= 5
    # 80 rows of a, 195 of b, and 50 of c at the mean of what was seen.
    assert pace.seconds_left(1) == pytest.approx(80 * 0.5 + 195 * 2 + 50 * 20 / 25)
    assert pace.seconds_left(2) == pytest.approx(pace.seconds_left(1) / 2)


def test_short_work_prints_nothing_and_long_work_an_estimate_and_lines(monkeypatch):
    out = io.StringIO()
    console = Console(file=out, width=200)
    with ProgressLines(console, "tuning", 100) as report:
        report(0)
        report(100)
    assert out.getvalue() == ""
    monkeypatch.setattr("softstart.cli.display._ENOUGH", 0.02)
    with ProgressLines(console, "tuning", 10_000, first=0.1) as report:
        report(50, "resumed")  # of an earlier call: takes no time
        for _ in range(3):
            time.sleep(0.06)
            report(1, "dev 0.50")
        time.sleep(0.1)
    said = out.getvalue()
    assert re.search(r"^tuning: about .* in all$", said, re.M)
    assert re.search(r"^tuning: 1 %, [\d.]+ s so far, about .* left; dev 0.50$", said, re.M)


def test_the_estimate_rests_on_what_was_done_since_the_first_report(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("softstart.cli.display.time.monotonic", lambda: now[0])
    meter = Meter(100)
    meter.add(40)
    assert estimate("tuning", meter) == ""
    now[0] += 6
    meter.add(10)
    assert meter.left == 30
    assert estimate("tuning", meter) == "tuning: about 36 s in all"
    now[0] += 1
    meter.add(49)
    assert estimate("tuning", meter) == ""  # seven seconds are not long


def test_a_command_tells_of_long_work_on_standard_error_alone(monkeypatch, capsys):
    monkeypatch.setattr("softstart.cli.display.ProgressLines.__init__.__defaults__", (0.05,))
    with terminal.progress_bar("reading rows"):
        time.sleep(0.15)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.match(r"reading rows: [\d.]+ s so far\n", shown.err)
