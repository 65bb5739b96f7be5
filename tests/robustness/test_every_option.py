"""Every option of every command, and every key of a study, with values of its type and at its edges.

Whatever is given: success, or one line and exit code 1 or 2, within a time. Commands that would work for long
or over a network are given something that they refuse at once, so that only their options are read.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator

import click
import pytest
import typer
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.own_tables import table
from softstart import Backbone
from softstart.cli import app as cli
from softstart.prompt import SoftPrompt
from softstart.study.declare.spec import Study
from softstart.study.declare.study_file import parse_study
from softstart.yourtasks import plain_start

SECONDS = 120
"""A bound on the time of one command, on a busy machine."""

BASES = {
    "adapt": "--train mine.csv --input {body} --steps 1 --splits 1 --length 2 --lr 0.3 --device cpu",
    "arg": "study/results.csv",
    "backbone fetch": "nowhere",
    "backbone list": "",
    "backbone path": "nowhere",
    "demo": "--backbone nowhere --gym nowhere",
    "doctor": "",
    "evaluate": "tuned --rows mine.csv --input {body} --device cpu",
    "explain-protocol": "study.yaml",
    "export": "tuned x.safetensors",
    "gym build": "nowhere --out gym",
    "gym list": "",
    "gym sample": "mine.csv --out gym --input {body} --shots 2",
    "gym settings": "",
    "gym show": "nowhere",
    "gym verify": "nowhere",
    "inspect": "tuned",
    "meta-train": "sources --input {body} --out start --steps 1 --length 2 --device cpu",
    "predict": "tuned --rows mine.csv --input {body} --out o.csv --device cpu",
    "push": "nowhere nobody/nothing",
    "report": "study",
    "results": "study",
    "run": "study.yaml --dry-run --device cpu",
    "similarity": "nowhere",
    "starts": "",
    "status": "study",
    "tiny pretrain": "--tokens 1 --out taken",
}
SKIPPED = {("doctor", "--bench")}
"""It measures the machine for a while."""

TEXTS = [
    "", " ", "-", "--", ".", "..", "a/b", "mine.csv", "study", "taken", "missing.csv", "[/b]", "\x1b[2J", "{",
    "{}", "{label}", "{body", "nan", "cpu", "cpu:7", "meta", "cuda:99", "cpu:99999999999", "none", "a=b",
    "x" * 300, "\udcff", "é", "os.system", "softstart.nothing", "vocabulary", "text:", "average:", "hf:",
    "1e400", "2026",
]  # fmt: skip
INTEGERS = [-(2**63), -1, 0, 1, 2, 3, 10**9 + 1, 2**31, 2**63, 10**30]
FLOATS = [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e-320, 0.5, 1e300]


def commands(group: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command by its full name."""
    inner = getattr(group, "commands", None)
    if inner is None:
        yield name, group
    for each, command in (inner or {}).items():
        yield from commands(command, f"{name} {each}".strip())


COMMANDS = dict(commands(typer.main.get_command(cli.app)))


def values(kind: click.ParamType) -> st.SearchStrategy[str]:
    """Values of the type of an option."""
    name = kind.name
    if name.startswith("integer"):
        return st.sampled_from(INTEGERS).map(str)
    if name.startswith("float"):
        return st.sampled_from(FLOATS).map(str)
    if hasattr(kind, "choices"):
        return st.sampled_from([*map(str, kind.choices), "other"])
    return st.sampled_from(TEXTS)


@st.composite
def calls(draw) -> list[str]:
    """A command with one or two more options."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    arguments = [*name.split(), *BASES[name].split()]
    options = [
        option
        for option in COMMANDS[name].params
        if isinstance(option, click.Option) and (name, option.opts[0]) not in SKIPPED
    ]
    for option in draw(st.lists(st.sampled_from(options), max_size=2)) if options else []:
        arguments.append(option.opts[0])
        if not option.is_flag:
            arguments.append(draw(values(option.type)))
    return arguments


def test_every_command_has_something_that_it_can_be_called_with():
    assert COMMANDS.keys() == BASES.keys()


@pytest.fixture(scope="module")
def place(tmp_path_factory, finished):
    """A folder with a table, a prompt, a study file and a finished study."""
    here = tmp_path_factory.mktemp("options")
    (here / "sources").mkdir()
    (here / "taken").mkdir()
    (here / "taken" / "mine").touch()
    table(here / "mine.csv", 24)
    table(here / "sources" / "one.csv", 24)
    backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    SoftPrompt.of(backbone, plain_start(backbone, 2), {"labels": ["good", "bad"]}).save_pretrained(
        here / "tuned"
    )
    shutil.copytree(finished[0], here / "study")
    small = {"name": "small", "gym": "mini", "setting": "mini-cls2cls", "methods": {"pt": {}, "maml": {}},
             "preset": "tiny"}  # fmt: skip
    (here / "study.yaml").write_text(yaml.safe_dump(small))
    return here


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Fail where a call takes too long."""

    def too_long(*_):
        raise AssertionError(f"still at work after {seconds} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(int(seconds))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check_call(arguments: list[str], place) -> None:
    """Call a command; judge how it ends."""
    out, err, began = io.StringIO(), io.StringIO(), time.monotonic()
    with contextlib.chdir(place), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        with bounded(SECONDS):
            code = cli._main(arguments, debug=False)
        for made in ("start", "gym", "tuned-again", "o.csv", "x.safetensors"):
            shutil.rmtree(made, ignore_errors=True)
            with contextlib.suppress(OSError):
                os.unlink(made)
    said = err.getvalue()
    assert code in (0, 1, 2), (arguments, code, said)
    assert "Traceback" not in said
    assert "bug" not in said
    if code == 1:
        last = said.splitlines()[-1]
        assert last.startswith("error: "), (arguments, said)
        assert sum(line.startswith("error: ") for line in said.splitlines()) == 1
    assert time.monotonic() - began < SECONDS


HOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def test_every_option_is_taken_or_refused_in_one_line(place):
    @settings(max_examples=40, **HOW)
    @given(calls())
    def check(arguments: list[str]) -> None:
        check_call(arguments, place)

    check()


@pytest.mark.slow
def test_every_option_many_times(place):
    @settings(max_examples=1500, **HOW)
    @given(calls())
    def check(arguments: list[str]) -> None:
        check_call(arguments, place)

    check()


def paths(data: object, prefix: str = "") -> Iterator[str]:
    """Every key of a study with its defaults filled in."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield f"{prefix}{key}"
            yield from paths(value, f"{prefix}{key}.")


WHOLE = parse_study(
    "{name: s, gym: mini, setting: mini-cls2cls, methods: {pt: {}, maml: {inner_steps: 2}}}", "study.yaml"
)
KEYS = sorted(set(paths(WHOLE.model_dump(mode="json"))) | set(Study.model_fields))
plain = st.sampled_from([None, True, False, *INTEGERS, *FLOATS, *(t for t in TEXTS if t.isprintable())])
anything = st.one_of(
    plain,
    st.lists(plain, max_size=3),
    st.dictionaries(st.sampled_from(["a", "pt", "steps", "name", "seed"]), plain, max_size=2),
)


def override(key: str, value: object) -> list[str]:
    return ["--set", f"{key}={json.dumps(value)}"]


def check_study(sets: list[tuple[str, object]], place) -> None:
    given = [word for key, value in sets for word in override(key, value)]
    check_call(["explain-protocol", "study.yaml", *given], place)


overrides = st.lists(st.tuples(st.sampled_from(KEYS), anything), min_size=1, max_size=2)


def test_every_key_of_a_study_is_taken_or_refused_in_one_line(place):
    @settings(max_examples=60, **HOW)
    @given(overrides)
    def check(sets: list[tuple[str, object]]) -> None:
        check_study(sets, place)

    check()


@pytest.mark.slow
def test_every_key_of_a_study_many_times(place):
    """Also the plan and its costs: all that does not train."""

    @settings(max_examples=1500, **HOW)
    @given(overrides)
    def check(sets: list[tuple[str, object]]) -> None:
        check_study(sets, place)
        given = [word for key, value in sets for word in override(key, value)]
        check_call(["run", "study.yaml", "--dry-run", "--device", "cpu", *given], place)

    check()
