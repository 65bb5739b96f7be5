"""Loading backbones: the tensors in the checkpoint are the tensors used; what cannot work is refused."""

from __future__ import annotations

import inspect
import json

import pytest
import torch
import transformers

from helpers.families import BROKEN, random_backbone, random_model
from helpers.models import VOCAB, SavedBytes, prompts, random_batch, random_t5, relative, word_tokenizer
from softstart import Backbone
from softstart.backbone import Decoding, T5Backbone
from softstart.backbone.base import Loader
from softstart.errors import SoftstartError
from softstart.training.gradients import run_gradients
from softstart.training.hessian_products import run_hvps


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


@pytest.mark.parametrize("place", [{"device": "cpu"}, {"device_map": "auto"}])
def test_an_lm_adapted_checkpoint_as_it_is_on_the_hub_stays_untied(place, tmp_path):
    """Written as T5X's converter did: one ``.bin``, the embedding thrice, the head apart, ``tie: false``."""
    original = random_t5(torch.float32)
    assert not original.model.config.tie_word_embeddings
    weights = {key: value.clone() for key, value in original.model.state_dict().items()}
    for stack in ("encoder", "decoder"):
        weights[f"{stack}.embed_tokens.weight"] = weights["shared.weight"].clone()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    names = ("d_ff", "d_kv", "d_model", "decoder_start_token_id", "dropout_rate", "eos_token_id", "num_heads",
             "num_layers", "pad_token_id", "vocab_size", "relative_attention_num_buckets")  # fmt: skip
    config = {name: getattr(original.model.config, name) for name in names}
    config |= {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
    }
    config |= {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "output_past": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    word_tokenizer().save_pretrained(tmp_path)
    loaded = Backbone.from_pretrained(str(tmp_path), **place)
    assert torch.equal(loaded.model.lm_head.weight, original.model.lm_head.weight)
    assert torch.equal(loaded.embedding.weight, original.embedding.weight)
    stack, batch = prompts(original), random_batch([(5, 2, 0), (9, 3, 3)])
    expected = original.nll(stack, batch)[0]
    assert torch.equal(loaded.nll(stack, batch)[0], expected)
    # The trap: transformers 5 makes a fresh model of this configuration tied, which computes otherwise.
    fresh = transformers.AutoModelForSeq2SeqLM.from_config(transformers.AutoConfig.from_pretrained(tmp_path))
    assert fresh.lm_head.weight is fresh.shared.weight
    fresh.load_state_dict(original.model.state_dict(), strict=False)
    tied = T5Backbone(fresh, word_tokenizer())
    assert not torch.allclose(tied.nll(stack, batch)[0], expected, rtol=0.01)


def test_a_tied_checkpoint_stays_tied(tmp_path):
    config = transformers.T5Config(
        vocab_size=VOCAB, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=3, decoder_start_token_id=0,
        pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = transformers.T5ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    loaded = Backbone.from_pretrained(str(tmp_path), device="cpu")
    assert loaded.model.lm_head.weight is loaded.model.shared.weight
    stack, batch = prompts(loaded), random_batch([(5, 2, 0)])
    joined = torch.cat((stack[:1], model.shared(batch.input_ids)), 1)
    sums, counts = loaded.nll(stack, batch)
    with torch.no_grad():
        expected = model(inputs_embeds=joined, labels=batch.labels).loss
    assert relative(sums[0] / counts[0], expected) < 1e-5


@pytest.mark.parametrize("name", ["mt5", "umt5", "pegasus"])
def test_float16_is_refused_where_it_overflows(name, tmp_path):
    with pytest.raises(SoftstartError, match="T5-type models overflow in float16"):
        Backbone.from_pretrained(stored(name, tmp_path), dtype="float16", device="cpu")


def test_bfloat16_weights_keep_float32_prompts(checkpoint):
    path, original = checkpoint
    half = Backbone.from_pretrained(str(path), dtype="bfloat16", device="cpu")
    stack, batch = prompts(original), random_batch([(5, 2, 0), (9, 3, 3)])
    sums, _ = half.nll(stack, batch)
    assert sums.dtype == half.prompt_dtype == torch.float32
    assert torch.allclose(sums, original.nll(stack, batch)[0], rtol=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["mt5", "bart", "gpt2"])
def test_bfloat16_on_a_gpu_is_near(name, tmp_path):
    path, exact = stored(name, tmp_path), random_backbone(name, torch.float32)
    stack, batch = prompts(exact), random_batch([(5, 2, 0), (9, 3, 3)])
    half = Backbone.from_pretrained(path, dtype="bfloat16", device="cuda")
    for twice in (False, True):
        sums = half.nll(stack.cuda(), batch.to("cuda"), twice=twice)[0].cpu()
        assert torch.allclose(sums, exact.nll(stack, batch)[0], rtol=0.1)


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


def test_an_untested_family_is_checked_by_itself_where_the_placement_lets_rows_interact(tmp_path):
    path = stored("marian", tmp_path)
    assert Backbone.from_pretrained(path, device="cpu", placement="after_padding").rows_interact


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


@pytest.mark.parametrize("name", ["t5", "bart", "gemma3_text"])
def test_offloaded_weights_compute_the_same(name):
    """Hooks of accelerate, which a model spread over several devices has too."""
    accelerate = pytest.importorskip("accelerate")
    plain, other = (
        random_t5(torch.float32) if name == "t5" else random_backbone(name, torch.float32) for _ in range(2)
    )
    accelerate.cpu_offload(other.model, execution_device=torch.device("cpu"))
    spread = type(plain)(other.model, other.tokenizer, name=name)
    assert all(p.is_meta for p in spread.model.parameters())
    assert spread.device == torch.device("cpu")
    assert spread.digest == plain.digest
    assert torch.equal(spread.vocabulary, plain.vocabulary)
    stack, batch = prompts(plain), random_batch([(5, 2, 0), (9, 3, 3)])
    for one, two in zip(run_gradients(spread, stack, batch), run_gradients(plain, stack, batch), strict=True):
        assert relative(one, two) < 1e-4
    assert relative(run_hvps(spread, stack, batch, stack), run_hvps(plain, stack, batch, stack)) < 1e-3
    decoding = Decoding(num_beams=2, max_new_tokens=4)
    assert spread.generate(stack, batch, decoding) == plain.generate(stack, batch, decoding)


@pytest.mark.parametrize("name", ["gpt2", "bart", "mt5"])
def test_gradient_checkpointing_keeps_less_and_computes_the_same(name, tmp_path):
    path = stored(name, tmp_path)
    plain, lean = (
        Backbone.from_pretrained(path, device="cpu", gradient_checkpointing=on) for on in (False, True)
    )
    stack, batch = prompts(plain), random_batch([(20, 2, 0), (20, 3, 3)])
    measured = []
    for backbone in (plain, lean):
        with SavedBytes() as saved:
            measured.append((run_gradients(backbone, stack, batch)[1], saved.peak))
    assert relative(measured[1][0], measured[0][0]) < 1e-4
    assert measured[1][1] < 0.7 * measured[0][1]


def test_a_damaged_checkpoint_is_named(checkpoint):
    path, _ = checkpoint
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(SoftstartError, match="cannot be loaded") as caught:
        Backbone.from_pretrained(str(path))
    assert "\n" not in str(caught.value)


def test_the_type_of_from_pretrained_is_the_signature_of_what_it_calls():
    declared = inspect.signature(Loader.__call__).parameters
    actual = inspect.signature(Backbone.from_pretrained).parameters
    assert [*declared][1:] == [*actual]
    assert all(declared[name].kind == actual[name].kind for name in actual)
