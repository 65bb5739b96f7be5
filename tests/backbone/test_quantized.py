"""Backbones with quantized weights: gradients are those of the rounded weights, the rest is refused."""

from __future__ import annotations

import importlib.util

import pytest
import torch
import transformers

from helpers.families import LLAMA
from helpers.models import prompts, random_batch, relative, word_tokenizer
from softstart import Backbone
from softstart.backbone import CausalBackbone
from softstart.backbone.quantization import keep_differentiable, plain_tensors
from softstart.errors import SoftstartError
from softstart.training.gradients import run_gradients
from softstart.training.hessian_products import run_hvps

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
# int8 rounds activations as well, and its products are taken in half precision.
KINDS = {"bitsandbytes-4": 1e-5, "torchao-8": 1e-5, "bitsandbytes-8": 0.1}


def configuration(kind):
    package, bits = kind.split("-")
    if not importlib.util.find_spec(package):
        pytest.skip(f"needs {package}: pip install 'softstart[quantized]'")
    if package == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig

        return transformers.TorchAoConfig(Int8WeightOnlyConfig())
    if bits == "8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)


@pytest.fixture(params=KINDS)
def quantized(request, tmp_path):
    """A random model that was rounded and saved, as a backbone, and the same numbers in float32."""
    chosen = configuration(request.param)
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**LLAMA, **SIZES})).save_pretrained(
        tmp_path / "a"
    )
    auto = transformers.AutoModelForCausalLM
    how = {"quantization_config": chosen, "device_map": "cpu", "dtype": torch.float32}
    auto.from_pretrained(tmp_path / "a", **how).save_pretrained(tmp_path / "b")
    word_tokenizer().save_pretrained(tmp_path / "b")
    rounded = Backbone.from_pretrained(str(tmp_path / "b"), device="cpu")
    plain = auto.from_pretrained(tmp_path / "a", dtype=torch.float32)
    for name, module in rounded.model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            eye = torch.eye(module.in_features)
            with torch.no_grad():
                # One row at a time, so that int8 finds no outlier next to others.
                columns = torch.cat([module(row[None]) for row in eye])
            plain.get_submodule(name).weight.data = columns.T.clone().contiguous()
    return rounded, CausalBackbone(plain, word_tokenizer(), name="plain"), KINDS[request.param]


def test_gradients_are_those_of_the_rounded_weights_even_after_an_evaluation(quantized):
    rounded, plain, tolerance = quantized
    stack, batch = prompts(plain).float(), random_batch([(5, 2, 0), (3, 1, 1), (6, 2, 2)])
    with torch.no_grad():
        rounded.nll(stack, batch)  # bitsandbytes repacks weights in its first pass without a gradient
    (loss, gradient), (wanted, slope) = (run_gradients(b, stack, batch) for b in (rounded, plain))
    assert relative(loss, wanted) < tolerance
    assert relative(gradient, slope) < 3 * tolerance


def test_second_order_and_fine_tuning_are_refused_by_name(quantized):
    rounded, _, _ = quantized
    stack, batch = prompts(rounded).float(), random_batch([(5, 2, 0)])
    with pytest.raises(SoftstartError, match=r"is quantized by .*second derivatives"):
        run_hvps(rounded, stack[:1], batch, torch.ones_like(stack[:1]))
    with pytest.raises(SoftstartError, match="cannot be fine-tuned"):
        rounded.trainable_copy()
    assert len(rounded.digest) == 64


def test_layers_that_would_repack_themselves_are_told_not_to():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model[0].support_avx512bf16_for_cpu = True
    keep_differentiable(model)
    assert not model[0].support_avx512bf16_for_cpu
    assert plain_tensors(model[0].weight)[0] is model[0].weight
