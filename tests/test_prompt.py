"""Initializers, files, and PEFT reading what we write."""

from __future__ import annotations

import os
import stat

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import prompts, random_batch, random_t5, relative
from softstart.errors import SoftstartError
from softstart.prompt import SoftPrompt, from_tensor, gaussian, task_names, vocabulary
from softstart.storage import load_tensors


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_vocabulary_start_is_distinct_rows_of_the_table():
    table = torch.randn(50, 4)
    start = vocabulary(table, range(10, 30))(12, generator())
    ids = [(table == row).all(1).nonzero().item() for row in start]
    assert len(set(ids)) == 12
    assert set(ids) <= set(range(10, 30))
    with pytest.raises(SoftstartError, match="prompt_length 21 is more than the 20 tokens"):
        vocabulary(table, range(10, 30))(21, generator())


def test_task_name_start_is_means_then_vocabulary():
    table = torch.randn(50, 4)
    draw = task_names(table, [[1, 2], [3]], vocabulary(table, range(10, 30)))
    start = draw(5, generator())
    assert torch.allclose(start[0], table[[1, 2]].mean(0))
    assert torch.equal(start[1], table[3])
    assert torch.equal(start[2:], vocabulary(table, range(10, 30))(3, generator()))
    assert torch.equal(draw(1, generator()), start[:1])


def test_other_starts():
    assert gaussian(6, 0.1)(1000, generator()).std().item() == pytest.approx(0.1, rel=0.1)
    assert torch.equal(from_tensor(torch.ones(3, 2))(3, generator()), torch.ones(3, 2))
    with pytest.raises(SoftstartError, match="the start has length 3 but prompt_length is 4"):
        from_tensor(torch.ones(3, 2))(4, generator())


@given(length=st.integers(1, 5), width=st.integers(1, 7), folder=st.booleans(), seed=st.integers(0, 99))
def test_files_hold_exactly_what_was_saved(tmp_path_factory, length, width, folder, seed):
    path = tmp_path_factory.mktemp("prompt") / ("adapter" if folder else "p.safetensors")
    prompt = SoftPrompt(
        torch.randn(length, width, generator=generator(seed)), "some/model", "abc", "prefix", {"lr": 0.5}
    )
    prompt.save(path)
    back = SoftPrompt.load(path)
    assert torch.equal(back.tensor, prompt.tensor)
    assert (back.backbone, back.backbone_digest, back.placement, back.info) == (
        "some/model", "abc", "prefix", {"lr": 0.5},
    )  # fmt: skip


def test_peft_loads_the_adapter_and_computes_the_same_loss(tmp_path):
    backbone = random_t5(torch.float32)
    stack = prompts(backbone, runs=1)
    SoftPrompt(stack[0], backbone.name).save(tmp_path / "adapter")
    batch = random_batch([(6, 3, 0)])
    sums, counts = backbone.nll(stack, batch)
    model = peft.PeftModel.from_pretrained(random_t5(torch.float32).model, str(tmp_path / "adapter")).eval()
    theirs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    assert relative(sums[0] / counts[0], theirs.detach()) < 1e-6


def test_a_suffix_prompt_is_not_offered_to_peft(tmp_path):
    SoftPrompt(torch.ones(2, 3), placement="suffix").save(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "adapter_config.json").exists()
    assert SoftPrompt.load(tmp_path / "adapter").placement == "suffix"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 8}, "p: the prompt has width 3 but backbone 'b' embeds 8"),
        ({"digest": "y"}, "trained on 'a' with other weights than 'b'"),
        ({"placement": "suffix"}, "trained as prefix but is used as suffix"),
    ],
)
def test_a_prompt_of_another_backbone_is_refused(change, message):
    expected = {"width": 3, "digest": "x", "placement": "prefix", "backbone": "b", "where": "p"}
    prompt = SoftPrompt(torch.ones(2, 3), "a", "x")
    prompt.check(**expected)
    with pytest.raises(SoftstartError, match=message):
        prompt.check(**{**expected, **change})


def test_broken_files_are_named(tmp_path):
    with pytest.raises(SoftstartError, match="nothing: no such file"):
        SoftPrompt.load(tmp_path / "nothing")
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\x80\x04pickle")
    with pytest.raises(SoftstartError, match=r"bad\.safetensors: not a readable safetensors file"):
        SoftPrompt.load(bad)
    from safetensors.torch import save_file

    save_file({"other": torch.ones(2)}, bad)
    with pytest.raises(SoftstartError, match="holds no soft prompt"):
        SoftPrompt.load(bad)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "p.safetensors"
    SoftPrompt(torch.ones(2, 3)).save(path)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(SoftstartError, match="cannot write \\(No space left on device\\)"):
        SoftPrompt(torch.zeros(2, 3)).save(path)
    assert torch.equal(load_tensors(path)[0]["prompt_embeddings"], torch.ones(2, 3))
    assert [f.name for f in tmp_path.iterdir()] == ["p.safetensors"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(stat.S_IREAD | stat.S_IEXEC)
    with pytest.raises(SoftstartError, match="Choose a writable folder"):
        SoftPrompt(torch.ones(2, 3)).save(tmp_path / "p.safetensors")
