"""Loading backbones: the tensors in the checkpoint are the tensors used; what cannot work is refused."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from models import prompts, random_batch, random_t5
from softstart import Backbone
from softstart.errors import SoftstartError


@pytest.fixture
def checkpoint(tmp_path):
    """A T5 v1.1 with two different tensors for embedding and head, as LM-adapted checkpoints have."""
    backbone = random_t5(torch.float32)
    backbone.model.save_pretrained(tmp_path)
    backbone.tokenizer.save_pretrained(tmp_path)
    return tmp_path, backbone


@pytest.mark.parametrize("placement", ["prefix", "suffix"])
def test_a_checkpoint_with_untied_embeddings_computes_what_was_saved(checkpoint, placement):
    path, original = checkpoint
    loaded = Backbone.from_pretrained(str(path), device="cpu", placement=placement)
    original.placement = placement
    head = loaded.model.lm_head.weight
    assert not torch.equal(head, loaded.embedding.weight)
    assert torch.equal(head, original.model.lm_head.weight)
    stack, batch = prompts(original), random_batch([(5, 2, 0), (9, 3, 3)])
    assert torch.equal(loaded.nll(stack, batch)[0], original.nll(stack, batch)[0])
    assert loaded.name == str(path)
    assert not any(p.requires_grad for p in loaded.model.parameters())


def test_bfloat16_weights_keep_float32_prompts(checkpoint):
    path, original = checkpoint
    half = Backbone.from_pretrained(str(path), dtype="bfloat16", device="cpu")
    stack, batch = prompts(original), random_batch([(5, 2, 0), (9, 3, 3)])
    sums, _ = half.nll(stack, batch)
    assert sums.dtype == half.prompt_dtype == torch.float32
    assert torch.allclose(sums, original.nll(stack, batch)[0], rtol=0.05)


def test_what_cannot_work_is_refused_with_the_reason(checkpoint, tmp_path):
    path, _ = checkpoint
    with pytest.raises(SoftstartError, match="T5-type models overflow in float16"):
        Backbone.from_pretrained(str(path), dtype="float16")
    with pytest.raises(SoftstartError, match="unknown dtype 'int8'"):
        Backbone.from_pretrained(str(path), dtype="int8")
    with pytest.raises(SoftstartError, match="unknown placement 'middle'"):
        Backbone.from_pretrained(str(path), device="cpu", placement="middle")
    gpt2 = tmp_path / "gpt2"
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=20)).save_pretrained(gpt2)
    with pytest.raises(SoftstartError, match=r"'gpt2', which is not supported yet\. Supported: t5, mt5"):
        Backbone.from_pretrained(str(gpt2))
    with pytest.raises(SoftstartError, match="backbone 'no/such-model' cannot be loaded"):
        Backbone.from_pretrained("no/such-model")


def test_a_damaged_checkpoint_is_named(checkpoint):
    path, _ = checkpoint
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(SoftstartError, match="cannot be loaded") as caught:
        Backbone.from_pretrained(str(path))
    assert "\n" not in str(caught.value)
