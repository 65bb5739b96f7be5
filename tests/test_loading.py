"""Loading backbones: the tensors in the checkpoint are the tensors used; what cannot work is refused."""

from __future__ import annotations

import pytest
import torch
import transformers

from families import BROKEN, random_backbone, random_model
from models import SavedBytes, prompts, random_batch, random_t5, relative, word_tokenizer
from softstart import Backbone
from softstart.backbone import Decoding
from softstart.errors import SoftstartError
from softstart.objective import run_gradients


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


def test_what_cannot_work_is_refused_with_the_reason(checkpoint):
    path, _ = checkpoint
    with pytest.raises(SoftstartError, match="T5-type models overflow in float16"):
        Backbone.from_pretrained(str(path), dtype="float16")
    with pytest.raises(SoftstartError, match="unknown dtype 'int8'"):
        Backbone.from_pretrained(str(path), dtype="int8")
    with pytest.raises(SoftstartError, match="unknown placement 'middle'"):
        Backbone.from_pretrained(str(path), device="cpu", placement="middle")
    with pytest.raises(SoftstartError, match="device and device_map exclude each other"):
        Backbone.from_pretrained(str(path), device="cpu", device_map="auto")
    with pytest.raises(SoftstartError, match="backbone 'no/such-model' cannot be loaded"):
        Backbone.from_pretrained("no/such-model")
    with pytest.raises(TypeError, match="load_in_8bit"):
        Backbone.from_pretrained(str(path), load_in_8bit=True)


def stored(name, folder, tokenizer=None):
    random_model(name, torch.float32).save_pretrained(folder)
    (tokenizer or word_tokenizer()).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", ["gpt2", "opt", "gemma3_text", "mbart", "umt5", "bloom", "marian"])
def test_a_model_on_disk_is_loaded_into_its_family(name, tmp_path):
    path = stored(name, tmp_path)
    loaded, original = Backbone.from_pretrained(path, device="cpu"), random_backbone(name, torch.float32)
    stack, batch = prompts(original), random_batch([(5, 2, 0), (9, 3, 3)])
    assert type(loaded) is type(original)
    assert torch.equal(loaded.nll(stack, batch)[0], original.nll(stack, batch)[0])
    assert Backbone.from_pretrained(path, device="cpu").digest == loaded.digest


@pytest.mark.parametrize("name", ["gpt2", "llama", "bart"])
def test_bfloat16_is_near_and_float16_is_not_refused(name, tmp_path):
    path, exact = stored(name, tmp_path), random_backbone(name, torch.float32)
    stack, batch = prompts(exact), random_batch([(5, 2, 0), (9, 3, 3)])
    for dtype, near in (("bfloat16", 0.1), ("float16", 0.02)):
        half = Backbone.from_pretrained(path, dtype=dtype, device="cpu")
        sums = half.nll(stack, batch)[0]
        assert (sums.dtype, half.prompt_dtype) == (torch.float32, torch.float32)
        assert torch.allclose(sums, exact.nll(stack, batch)[0], rtol=near)


@pytest.mark.parametrize(("config", "reason"), [
    (transformers.BertConfig(vocab_size=60, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                             intermediate_size=8), "'bert': an encoder only, which writes no output"),
    (transformers.ViTConfig(hidden_size=8), "'vit': not a text-to-text or causal model"),
    (BROKEN["ctrl"](), "'ctrl' cannot be run on embeddings"),
])  # fmt: skip
def test_a_model_that_cannot_work_is_refused_by_its_kind(config, reason, tmp_path):
    if config.model_type == "ctrl":
        stored("ctrl", tmp_path)
    config.save_pretrained(tmp_path)
    with pytest.raises(SoftstartError, match=reason):
        Backbone.from_pretrained(str(tmp_path), device="cpu")


def test_a_tokenizer_without_padding_pads_and_one_without_an_end_is_refused(tmp_path):
    tokenizer = word_tokenizer()
    tokenizer.pad_token = None
    loaded = Backbone.from_pretrained(stored("gpt2", tmp_path / "a", tokenizer), device="cpu")
    assert loaded.tokenizer.pad_token_id == loaded.tokenizer.eos_token_id == 1
    tokenizer.eos_token = None
    with pytest.raises(SoftstartError, match="has no end-of-sequence token"):
        Backbone.from_pretrained(stored("gpt2", tmp_path / "b", tokenizer), device="cpu")


@pytest.mark.parametrize("name", ["gpt2", "bart", "mt5"])
def test_a_model_placed_by_a_device_map_computes_the_same(name, tmp_path):
    pytest.importorskip("accelerate")
    path = stored(name, tmp_path)
    plain = Backbone.from_pretrained(path, device="cpu")
    mapped = Backbone.from_pretrained(path, device_map="cpu")
    stack, batch = prompts(plain), random_batch([(5, 2, 0), (9, 3, 3)])
    assert torch.allclose(mapped.nll(stack, batch)[0], plain.nll(stack, batch)[0], rtol=1e-5)
    decoding = Decoding(num_beams=2, max_new_tokens=4)
    assert mapped.generate(stack, batch, decoding) == plain.generate(stack, batch, decoding)


@pytest.mark.parametrize("name", ["gpt2", "bart", "mt5"])
def test_gradient_checkpointing_keeps_less_and_computes_the_same(name, tmp_path):
    path = stored(name, tmp_path)
    plain, lean = (
        Backbone.from_pretrained(path, device="cpu", gradient_checkpointing=on) for on in (False, True)
    )
    stack, batch = prompts(plain), random_batch([(20, 2, 0), (20, 3, 3)])
    found = []
    for backbone in (plain, lean):
        with SavedBytes() as saved:
            found.append((run_gradients(backbone, stack, batch)[1], saved.peak))
    assert relative(found[1][0], found[0][0]) < 1e-4
    assert found[1][1] < 0.7 * found[0][1]


def test_a_damaged_checkpoint_is_named(checkpoint):
    path, _ = checkpoint
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(SoftstartError, match="cannot be loaded") as caught:
        Backbone.from_pretrained(str(path))
    assert "\n" not in str(caught.value)
