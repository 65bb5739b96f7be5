"""A checkpoint holds exactly the tensors of its model, or it is refused by their names."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.families import random_backbone
from helpers.models import prompts, random_batch, word_tokenizer
from softstart import Backbone
from softstart.errors import SoftstartError

PLACES = [{"device": "cpu"}, {"device_map": "auto"}]
LAYERS = {"gpt2": "transformer.h.1.", "bart": "model.decoder.layers.1.", "umt5": "decoder.block.1."}


def stored(name, folder, change=lambda tensors: tensors, **config):
    """A random checkpoint whose tensors were changed after it was written."""
    backbone = random_backbone(name, torch.float32)
    backbone.model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    weights = folder / "model.safetensors"
    save_file(change(load_file(weights)), weights, {"format": "pt"})
    if config:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return backbone


def refusal(folder, **place):
    with pytest.raises(SoftstartError) as caught:
        Backbone.from_pretrained(str(folder), **place)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", LAYERS)
def test_a_missing_layer_is_named_whatever_the_place(name, place, tmp_path):
    part = LAYERS[name]
    stored(name, tmp_path, lambda t: {key: v for key, v in t.items() if not key.startswith(part)})
    assert f"its checkpoint lacks {part}" in refusal(tmp_path, **place)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("name", "depth"), [("gpt2", "n_layer"), ("bart", "decoder_layers")])
def test_a_layer_too_many_is_named(name, depth, place, tmp_path):
    stored(name, tmp_path, **{depth: 1})
    said = refusal(tmp_path, **place)
    assert f"holds {LAYERS[name]}" in said
    assert "for which the model has no place" in said


@pytest.mark.parametrize("place", PLACES)
def test_a_decoder_that_is_missing_is_not_made_up(place, tmp_path):
    stored("bart", tmp_path, lambda t: {key: v for key, v in t.items() if "decoder" not in key})
    assert "lacks model.decoder." in refusal(tmp_path, **place)


def test_tensors_under_other_names_are_missing_and_left_over(tmp_path):
    stored("llama", tmp_path, lambda t: {key.replace("q_proj", "query"): v for key, v in t.items()})
    said = refusal(tmp_path, device="cpu")
    assert "lacks model.layers.0.self_attn.q_proj.weight, model.layers.1.self_attn.q_proj.weight" in said
    assert "holds model.layers.0.self_attn.query.weight" in said


@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_of_another_shape_is_named_with_both_shapes(place, tmp_path):
    stored("llama", tmp_path, intermediate_size=32)
    assert "of shape [16, 24], not [16, 32] and 5 more" in refusal(tmp_path, **place)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
@pytest.mark.parametrize("name", ["gpt2", "umt5"])
def test_the_prefixes_of_compile_and_ddp_are_stripped_and_said(name, prefix, place, tmp_path):
    original = stored(name, tmp_path, lambda t: {prefix + key: v for key, v in t.items()})
    with pytest.warns(UserWarning, match=f"tensors begin with '{prefix}', which was left out"):
        loaded = Backbone.from_pretrained(str(tmp_path), **place)
    stack, batch = prompts(original), random_batch([(5, 2, 0), (9, 3, 3)])
    assert torch.equal(loaded.nll(stack, batch)[0], original.nll(stack, batch)[0])


def test_a_prefix_does_not_hide_what_is_missing(tmp_path):
    stored("gpt2", tmp_path, lambda t: {f"module.{k}": v for k, v in t.items() if ".h.1." not in k})
    assert "lacks transformer.h.1." in refusal(tmp_path, device="cpu")


def test_a_torch_file_is_checked_alike(tmp_path):
    stored("gpt2", tmp_path)
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    weights.unlink()
    torch.save({f"_orig_mod.{key}": value for key, value in tensors.items()}, tmp_path / "pytorch_model.bin")
    with pytest.warns(UserWarning, match="_orig_mod"):
        Backbone.from_pretrained(str(tmp_path), device="cpu")
    tensors.pop("transformer.wpe.weight")
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    assert "lacks transformer.wpe.weight" in refusal(tmp_path, device="cpu")


def test_buffers_of_old_checkpoints_are_harmless(tmp_path):
    mask = torch.ones(1, 1, 4, 4)
    old = {"transformer.h.0.attn.bias": mask, "transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}
    stored("gpt2", tmp_path / "gpt2", lambda t: t | old)
    stored("gpt_neox", tmp_path / "neox", lambda t: t | {
        "gpt_neox.layers.0.attention.bias": mask, "gpt_neox.layers.0.attention.masked_bias": torch.ones(1),
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(1),
    })  # fmt: skip
    stored("bart", tmp_path / "bart", lambda t: t | {"encoder.version": torch.ones(1)})
    for name in ("gpt2", "neox", "bart"):
        Backbone.from_pretrained(str(tmp_path / name), device="cpu")


def test_a_bias_that_the_model_lacks_is_not_taken_for_a_mask(tmp_path):
    stored("llama", tmp_path, lambda t: t | {"model.layers.0.self_attn.q_proj.bias": torch.ones(16)})
    assert "holds model.layers.0.self_attn.q_proj.bias" in refusal(tmp_path, device="cpu")


def test_a_head_for_another_task_is_refused(tmp_path):
    stored("llama", tmp_path, lambda t: t | {"score.weight": torch.ones(2, 16)})
    assert "holds score.weight, for which the model has no place" in refusal(tmp_path, device="cpu")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_weights_that_are_no_numbers_are_refused(place, value, tmp_path):
    stored(
        "gpt2", tmp_path, lambda t: {k: v.index_fill(0, torch.tensor(0), float(value)) for k, v in t.items()}
    )
    assert "its checkpoint holds NaN or infinity in " in refusal(tmp_path, **place)
