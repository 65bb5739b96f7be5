"""Damaged, invented and mixed-up files: whatever is in them, one clear error or a result."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import fuzz_targets
from helpers.fuzz_targets import quietly

TARGETS = ("task", "table", "study", "catalog", "prompt", "adapter", "database", "results")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = """
name setting methods meta variants prompt.length adaptation samples pt maml source target tasks shared dataset
kind metric input output info labels scores template backbone placement num_virtual_tokens peft_type softstart
backbone_digest width parts
"""
keys = st.sampled_from(KEYS.split())
declared = st.dictionaries(keys, values | st.dictionaries(keys, values, max_size=4), max_size=5)


@st.composite
def damaged(draw, whole: list[bytes]) -> bytes:
    """A whole file with a few bytes changed, cut out or put in, or the beginning of one before another."""
    data = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["change", "cut", "put", "end", "mix"])):
            case "change" if data:
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 64))]
            case "put":
                data[at:at] = draw(st.binary(max_size=16))
            case "end":
                del data[at:]
            case "mix":
                data[at:] = draw(st.sampled_from(whole))[at:]
    return bytes(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Readers and whole files by name."""
    seeds = fuzz_targets.seeds(tmp_path_factory.mktemp("seeds"))
    return {reader.__name__: (reader, files) for reader, files in seeds.items()}


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return tmp_path_factory.mktemp("room")


@pytest.mark.parametrize("name", TARGETS)
def test_every_whole_file_is_read(whole, room, name, monkeypatch):
    """The seeds are what they should be: at least one reads without an error."""
    reader, files = whole[name]
    refused = []

    class Noted(fuzz_targets.suppress):
        def __exit__(self, kind, problem, trace):
            refused.append(kind)
            return super().__exit__(kind, problem, trace)

    monkeypatch.setattr(fuzz_targets, "suppress", Noted)
    for data in files:
        quietly(reader, data, room)
    assert None in refused


@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_file_is_one_clear_error(whole, room, name):
    reader, files = whole[name]

    @given(damaged(files))
    def check(data: bytes) -> None:
        quietly(reader, data, room)

    check()


@pytest.mark.parametrize("name", ["study", "catalog", "adapter", "task", "table"])
def test_what_is_well_formed_but_means_nothing_is_one_clear_error(whole, room, name):
    reader, _ = whole[name]

    @given(declared)
    def check(data: dict) -> None:
        quietly(reader, json.dumps(data).encode(), room)

    check()


FOUND = (
    (
        "prompt",
        lambda whole: b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'f\\\": {".ljust(118) + bytes(64),
    ),
    ("prompt", lambda whole: b"G"),
    ("database", lambda whole: whole[0].replace(b", digest TEXT", b", digesu TEXT")),
    ("database", lambda whole: whole[0].replace(b"CREATE TABLE runs", b"CREATE \x91ABLE runs")),
    ("results", lambda whole: b"method,task,sample,test\npt,a,1,0.5\n,a,1,0.5\nmaml,a,1,0.6\n"),
)


@pytest.mark.parametrize(("name", "made"), FOUND)
def test_what_a_coverage_guided_fuzzer_found(whole, room, name, made):
    reader, files = whole[name]
    data = made(files)
    assert data not in files
    quietly(reader, data, room)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_thousands_of_damaged_files(whole, room, name):
    reader, files = whole[name]

    @settings(max_examples=3000)
    @given(damaged(files) | st.binary(max_size=200))
    def check(data: bytes) -> None:
        quietly(reader, data, room)

    check()
