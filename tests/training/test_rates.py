"""Learning rates in units of the embedding: the same course at any size of its entries."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from helpers.models import random_t5, toy_encoded
from softstart.algorithms import MultiTask
from softstart.errors import SoftstartError
from softstart.prompt import KINDS, frequent_words
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig, MetaConfig, PromptSpec, bound_of
from softstart.training.identity import identity_of
from softstart.training.meta_training import meta_train
from softstart.training.optimizers import Adafactor, AdamW
from softstart.training.rates import entry_size, scaled_rates
from softstart.training.starts import draw_start
from softstart.yourtasks.rates import DEFAULT, EMBEDDED, OUTER, outer_rate_for, rates_for


def test_the_size_is_that_of_a_median_token():
    backbone = random_t5()
    rows = backbone.vocabulary.float().square().mean(1).sqrt()
    assert entry_size(backbone) == pytest.approx(float(rows.median()))
    rates = torch.tensor([0.5, 0.1], dtype=torch.float64)
    assert torch.equal(scaled_rates(backbone, "absolute", rates), rates)
    assert torch.equal(scaled_rates(backbone, "embedding", rates), rates * entry_size(backbone))


@pytest.mark.parametrize("optimizer", [Adafactor(), AdamW()])
def test_a_rate_in_units_is_the_absolute_rate_times_the_size(optimizer):
    backbone = random_t5()
    task, start = toy_encoded(backbone), backbone.vocabulary[10:13].clone()
    config = AdaptConfig(steps=4, eval_every=2, optimizer=optimizer, select="last")
    unit = adapt(backbone, [AdaptRun(start, task, 13, 0.2)], replace(config, lr_unit="embedding"))
    rate = 0.2 * entry_size(backbone)
    absolute = adapt(backbone, [AdaptRun(start, task, 13, rate)], config)
    assert torch.allclose(unit[0].prompt, absolute[0].prompt, rtol=1e-9)
    assert not torch.allclose(unit[0].prompt, start.to(unit[0].prompt), rtol=1e-3)


def test_the_outer_rate_too():
    backbone = random_t5()
    tasks, start = [toy_encoded(backbone)], backbone.vocabulary[10:13].clone()
    config = MetaConfig(steps=3, lr=0.2, lr_unit="embedding")
    unit = meta_train(backbone, MultiTask(), tasks, start, config)
    rate = 0.2 * entry_size(backbone)
    absolute = meta_train(backbone, MultiTask(), tasks, start, replace(config, lr=rate, lr_unit="absolute"))
    assert torch.allclose(unit.prompt, absolute.prompt, rtol=1e-9)


def test_keys_of_old_results_stay():
    for config in (AdaptConfig(), MetaConfig()):
        assert "lr_unit" not in identity_of(config)
        assert identity_of(replace(config, lr_unit="embedding"))["lr_unit"] == "embedding"
    assert "frequent" not in identity_of(PromptSpec())
    assert identity_of(PromptSpec(frequent="words"))["frequent"] == "words"


def test_what_commands_take_without_rates():
    backbone = random_t5()
    assert rates_for(backbone, None, None) == (DEFAULT["embeddings"], "embedding")
    assert rates_for(backbone, [0.1], None) == ([0.1], "absolute")
    assert rates_for(backbone, [0.1], "embedding") == ([0.1], "embedding")
    assert outer_rate_for(backbone, 0.1, None) == (0.1, "absolute")
    assert DEFAULT.keys() == OUTER.keys() == KINDS.keys()
    backbone.name = "softstart/tiny"
    assert rates_for(backbone, None, None) == (EMBEDDED, "absolute")
    assert outer_rate_for(backbone, None, None) == (0.3, "absolute")
    with pytest.raises(SoftstartError, match=r"unknown unit 'embeding' of.*Did you mean embedding"):
        rates_for(backbone, [0.1], "embeding")


def test_frequent_words_are_words():
    from transformers import AutoTokenizer

    from softstart.tiny import weights_path

    tokenizer = AutoTokenizer.from_pretrained(str(weights_path()))
    words = tokenizer.convert_ids_to_tokens(frequent_words(tokenizer, 10_000))
    assert words[:5] == ["Ġthe", "Ġis", "Ġa", "Ġin", "Ġof"]
    assert not {"<pad>", "</s>", "<extra_id_0>", "<", "[", "A", "."} & set(words)
    assert 1000 < len(words) < len(tokenizer) - 200
    assert frequent_words(tokenizer, 7) == frequent_words(tokenizer, 10_000)[:7]


def test_a_start_of_words_is_made_of_them():
    backbone = random_t5()
    start = draw_start(backbone, PromptSpec(length=6, frequent="words"), (), 1)
    table = backbone.vocabulary[frequent_words(backbone.tokenizer, 5000)].float()
    assert all((row == table).all(1).any() for row in start)


@pytest.mark.parametrize("config", [AdaptConfig(), MetaConfig()])
def test_passes_are_larger_on_large_gpus_but_never_with_dropout(config):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert bound_of(config, cpu) == 16384
    assert [bound_of(config, gpu, gib << 30) for gib in (40, 80)] == [16384, 65536]
    assert bound_of(replace(config, max_tokens=None), gpu, 80 << 30) is None
    # Masks depend on how a pass is cut, so the key does; what was computed before "auto" keeps its key.
    dropped = replace(config, dropout=True)
    assert bound_of(dropped, gpu, 80 << 30) == 16384
    assert identity_of(dropped) == identity_of(replace(dropped, max_tokens=16384))
    assert identity_of(replace(dropped, max_tokens=2048)) != identity_of(dropped)
    assert identity_of(replace(config, max_tokens=2048)) == identity_of(config)
