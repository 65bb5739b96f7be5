"""GGUF files as backbones: read as they were written, or refused by name."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

pytest.importorskip("gguf")

from helpers.families import random_model
from helpers.gguf_files import ARCHITECTURES, write_gguf
from helpers.models import prompts, random_batch, relative
from softstart import Backbone
from softstart.backbone.sources.converted import is_whole
from softstart.errors import SoftstartError

BATCH = [(5, 2, 0), (9, 3, 3)]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("SOFTSTART_CACHE", str(folder))
    return folder


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_gguf_file_computes_what_its_model_computed(family, tmp_path, cache):
    # What transformers does not read from the file has to be as in every published model of the family.
    published = {"qwen3": {"head_dim": 128}, "gpt2": {"n_positions": 1024}}.get(family, {})
    model = write_gguf(
        tmp_path / "model.gguf", family, model=random_model(family, torch.float32, **published)
    )
    loaded = Backbone.from_pretrained(str(tmp_path / "model.gguf"), device="cpu")
    assert loaded.model.config.model_type == family
    reference = type(loaded)(model, loaded.tokenizer)
    stack, batch = prompts(reference), random_batch(BATCH)
    assert relative(loaded.nll(stack, batch)[0], reference.nll(stack, batch)[0]) < 1e-5
    ids = loaded.tokenizer(" w12 w3").input_ids
    assert loaded.tokenizer.decode(ids, skip_special_tokens=True) == " w12 w3"


def test_the_second_load_reads_the_cache_and_computes_the_same_bits(tmp_path, cache, capfd):
    file = tmp_path / "model.gguf"
    write_gguf(file, quantize=True)
    first = Backbone.from_pretrained(str(file), device="cpu")
    assert "reading the GGUF file" in capfd.readouterr().err
    second = Backbone.from_pretrained(str(file), device="cpu")
    assert capfd.readouterr().err == ""
    assert first.digest == second.digest
    assert first.name == str(file)
    assert "model.gguf (ALL_F32 GGUF, sha256" in first.weights
    half = Backbone.from_pretrained(str(file), device="cpu", dtype="bfloat16")
    stored = sorted(path.name for path in next(cache.glob("backbones/gguf-*")).iterdir())
    assert stored == [".lock", "bfloat16", "float32"]
    assert torch.equal(half.embedding.weight, first.embedding.weight.bfloat16())


def test_without_a_cache_the_file_is_read_each_time(tmp_path):
    file = tmp_path / "model.gguf"
    model = write_gguf(file)
    loaded = Backbone.from_pretrained(str(file), device="cpu")
    stack, batch = prompts(loaded), random_batch(BATCH)
    reference = type(loaded)(model, loaded.tokenizer)
    assert relative(loaded.nll(stack, batch)[0], reference.nll(stack, batch)[0]) < 1e-5
    shape = Backbone.from_pretrained(str(file), weights=False)
    assert (shape.width, shape.embedding.weight.is_meta) == (loaded.width, True)


@pytest.mark.parametrize(("arguments", "reason"), [
    ({"drop": "blk.1.attn_v.weight"}, r"lacks model\.layers\.1\.self_attn\.v_proj\.weight"),
    ({"surplus": "rope_freqs.weight"}, r"tensors that llama has no place for: rope_freqs\.weight"),
    ({"surplus": "blk.2.attn_q.weight"}, r"no place for: blk\.2\.attn_q\.weight"),
    ({"further": {"llama.rope.scaling.type": "yarn"}}, "rope.scaling.type is yarn, which transformers"),
    ({"further": {"llama.rope.scaling.factor": 8.0}}, "llama.rope.scaling.factor is 8.0"),
    ({"further": {"llama.expert_count": 8}}, "llama.expert_count is 8"),
    ({"further": {"llama.feed_forward_length": 25}}, r"mlp\.(down|gate|up)_proj.weight of shape"),
    ({"further": {"split.count": 3}}, "one of 3 pieces of a GGUF file"),
    ({"further": {"general.architecture": "falcon"}}, "of the family 'falcon', which is not read from GGUF"),
])  # fmt: skip
def test_a_file_that_would_compute_something_else_is_refused_by_name(arguments, reason, tmp_path, cache):
    file = tmp_path / "model.gguf"
    write_gguf(file, **arguments)
    with pytest.raises(SoftstartError, match=reason) as caught:
        Backbone.from_pretrained(str(file), device="cpu")
    assert "\n" not in str(caught.value)
    assert not [path for path in cache.rglob("*") if path.is_file() and path.name != ".lock"]


def test_a_soft_cap_that_is_not_the_family_s_is_refused(tmp_path, cache):
    file = tmp_path / "model.gguf"
    write_gguf(file, "gemma2", further={"gemma2.attn_logit_softcapping": 30.0})
    with pytest.raises(SoftstartError, match="attn_logit_softcapping is 30"):
        Backbone.from_pretrained(str(file), device="cpu")


@pytest.mark.parametrize("keep", [3, 10, 200, 1500, -40])
def test_a_file_that_is_cut_short_says_so(keep, tmp_path, cache):
    file = tmp_path / "model.gguf"
    write_gguf(file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(SoftstartError, match=r"cut short|not a GGUF file") as caught:
        Backbone.from_pretrained(str(file), device="cpu")
    assert "\n" not in str(caught.value)


def test_a_file_of_another_kind_and_one_that_is_not_there(tmp_path, cache):
    (tmp_path / "text.gguf").write_text("Once upon a time")
    for name, reason in (("text.gguf", "not a GGUF file"), ("none.gguf", "no such GGUF file")):
        with pytest.raises(SoftstartError, match=reason):
            Backbone.from_pretrained(str(tmp_path / name), device="cpu")
    with pytest.raises(SoftstartError, match=r"backbone 'nobody/nothing:a\.gguf' cannot be loaded"):
        Backbone.from_pretrained("nobody/nothing:a.gguf", device="cpu")


def test_without_the_package_the_extra_is_named(tmp_path, cache):
    """In a process that cannot import it, as one where it is not installed."""
    file = tmp_path / "model.gguf"
    write_gguf(file)
    code = (
        "import sys; sys.modules['gguf'] = None\n"
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'gguf' else real(name, *a)\n"
        f"from softstart.backbone import load_backbone; load_backbone({str(file)!r}, device='cpu')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "reading GGUF files takes the package gguf. pip install 'softstart[gguf]'" in done.stderr


def test_several_at_once_convert_once(tmp_path, cache, capfd):
    file = tmp_path / "model.gguf"
    write_gguf(file)
    code = (
        "import sys; from softstart.backbone import load_backbone\n"
        f"print(load_backbone({str(file)!r}, device='cpu').digest)"
    )

    def one(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(one, range(3)))
    assert len({process.stdout for process in done}) == 1
    assert sum("keeping it as safetensors" in process.stderr for process in done) == 1


def test_a_converted_folder_that_is_damaged_is_made_again(tmp_path, cache):
    file = tmp_path / "model.gguf"
    write_gguf(file)
    digest = Backbone.from_pretrained(str(file), device="cpu").digest
    (folder,) = (path.parent for path in cache.rglob("softstart.json"))
    with (folder / "model.safetensors").open("r+b") as weights:
        weights.truncate(1000)
    left = folder.with_name(f".{folder.name}.1.tmp")
    left.mkdir()
    assert not is_whole(folder)
    assert Backbone.from_pretrained(str(file), device="cpu").digest == digest
    assert is_whole(folder)
    assert not left.exists()


def test_a_full_disk_leaves_nothing_half_made(tmp_path, cache):
    """Writing stops at a size limit, as it does where no space is left."""
    file = tmp_path / "model.gguf"
    write_gguf(file)
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        f"from softstart.backbone import load_backbone; load_backbone({str(file)!r}, device='cpu')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("softstart.errors.SoftstartError: ")
    assert "cannot write" in last
    assert "Free some space, or set SOFTSTART_CACHE to a writable folder." in last
    assert [path.name for path in next(iter(cache.glob("backbones/gguf-*"))).iterdir()] == [".lock"]
